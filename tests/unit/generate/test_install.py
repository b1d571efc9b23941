"""What an installation is generated from: each reference and each fixed field has its rule, and no rule is too wide."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
import yaml
from pydantic import Field

from mixpeek_operator.adapters.kubernetes_secrets import SECRET
from mixpeek_operator.core.fields import Immutable, Ref
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.spec import ResourceStatus, SpecModel
from mixpeek_operator.generate.admission import admission
from mixpeek_operator.generate.files import kind_schemas
from mixpeek_operator.generate.install import CHART_FILES, install_files
from mixpeek_operator.generate.rbac import api_rules, operator_rules, people_rules

SCHEMAS = kind_schemas()


class Part(SpecModel):
    other_id: Annotated[str | None, Ref("Toy")] = Field(default=None, description="Another.")
    size: Annotated[int, Immutable("it is measured")] = Field(description="Size.")


class ToySpec(SpecModel):
    part: Part | None = Field(default=None, description="A part.")
    parts: list[Part] | None = Field(default=None, description="Parts.")
    others: list[Annotated[str, Ref("Toy")]] = Field(description="Others.")


class Nested(SpecModel):
    many: list[Part] = Field(description="Parts.")


class TooDeepSpec(SpecModel):
    many: list[Nested] = Field(description="Parts of parts.")


def toy(spec: type[SpecModel]) -> dict[str, KindSchema]:
    return {"toy": KindSchema("Toy", "toys", "toy", (), spec, ResourceStatus, ())}


def policy(name: str) -> dict[str, Any]:
    return next(
        document["spec"]
        for document in admission(SCHEMAS)
        if document["kind"] == "ValidatingAdmissionPolicy" and document["metadata"]["name"] == f"{name}.mixpeek.com"
    )


def messages(name: str) -> str:
    return "\n".join(rule["message"] for rule in policy(name)["validations"])


def test_a_new_kind_gets_its_policy_from_its_types() -> None:
    documents = admission(toy(ToySpec))
    assert [item["kind"] for item in documents] == [
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ]
    rules = documents[0]["spec"]["validations"]
    said = "\n".join(rule["message"] for rule in rules)
    for place in ("spec.part.otherId:", "spec.parts[].otherId:", "spec.others[]:", "spec.part.size cannot change"):
        assert place in said
    assert len(rules) == 5, "and one for the id annotation"


def test_a_reference_that_the_policy_could_not_read_is_an_error_and_no_gap() -> None:
    with pytest.raises(TypeError, match="below two lists"):
        admission(toy(TooDeepSpec))


@pytest.mark.parametrize(
    ("kind", "places"),
    [
        ("collections", ["spec.namespace:", "spec.source.bucketIds[]:", "spec.taxonomyApplications[].taxonomyId:"]),
        ("collections", ["spec.featureExtractor.version cannot change"]),
        ("namespaces", ["spec.infrastructure.qdrantUrl cannot change", "qdrantCollection names existing data"]),
        ("taxonomies", ["spec.config.retrieverId:", "spec.config.hierarchicalNodes[].parentCollectionId:"]),
        ("extractors", ["spec.name cannot change"]),
    ],
)
def test_our_kinds_have_the_rules_they_need(kind: str, places: list[str]) -> None:
    assert [place for place in places if place not in messages(kind)] == []


def test_no_rule_of_a_process_uses_a_wildcard_or_reaches_beyond_its_kinds() -> None:
    groups = set()
    people = people_rules(SCHEMAS)
    for rule in [*operator_rules(SCHEMAS), *api_rules(SCHEMAS), *people["view"], *people["edit"]]:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        groups.update(rule["apiGroups"])
    assert groups == {"", "mixpeek.com", "ray.io"}


def test_neither_the_operator_nor_people_may_more_than_they_need() -> None:
    operator = {
        (resource, verb) for rule in operator_rules(SCHEMAS) for resource in rule["resources"] for verb in rule["verbs"]
    }
    assert {verb for resource, verb in operator if resource == "secrets"} == {"get", "list", "watch"}
    assert not {verb for resource, verb in operator if resource == "buckets"} & {"create", "deletecollection"}
    for rule in [*operator_rules(SCHEMAS), *api_rules(SCHEMAS)]:
        if rule["resources"] == ["secrets"] and rule["verbs"] != ["create"]:
            assert rule["resourceNames"] == [SECRET]
    assert all("adopt" not in rule["verbs"] for rules in people_rules(SCHEMAS).values() for rule in rules)


def test_the_chart_and_the_plain_manifests_hold_the_same() -> None:
    files = install_files(SCHEMAS, {"crds/buckets.yaml": "a: 1\n"}, "# generated\n")
    assert files[f"{CHART_FILES}/crds/buckets.yaml"] == "a: 1\n"
    assert yaml.safe_load(files["crds/kustomization.yaml"])["resources"] == ["buckets.yaml"]
    rules = yaml.safe_load(files[f"{CHART_FILES}/rules.yaml"])
    roles = {
        item["metadata"]["name"]: item["rules"]
        for item in yaml.safe_load_all(files["manifests/base/cluster-roles.yaml"])
    }
    assert roles == {f"mixpeek-{name}": value for name, value in rules.items()}
    assert files[f"{CHART_FILES}/admission.yaml"] == files["manifests/base/admission.yaml"]
    assert not any("&id" in text for text in files.values()), "no anchors"
