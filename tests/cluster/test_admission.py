"""What the API server refuses by our policies, as an author without special rights meets it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from tests.servers.kubernetes.control_plane import REPOSITORY, ControlPlane

BASE = REPOSITORY / "manifests" / "base"
LABEL = "admission-test"
AUTHOR = "--as=author"
SCHEMA = {"properties": {"title": {"type": "string"}}}


@pytest.fixture(scope="module")
def policies(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> ControlPlane:
    """Our policies and roles, bound to the namespaces of this file only: other tests share the server."""
    documents = list(yaml.safe_load_all((BASE / "admission.yaml").read_text()))
    for document in documents:
        if document["kind"] == "ValidatingAdmissionPolicyBinding":
            document["spec"]["matchResources"] = {"namespaceSelector": {"matchLabels": {LABEL: "yes"}}}
    file = tmp_path_factory.mktemp("admission") / "policies.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    control_plane.kubectl("apply", "--server-side", "-f", file, "-f", BASE / "cluster-roles.yaml")
    return control_plane


@pytest.fixture
def tenant(policies: ControlPlane, kubernetes_namespace: Callable[[], str]) -> Tenant:
    return Tenant(policies, kubernetes_namespace())


class Tenant:
    """A namespace whose `author` has the cluster's own role `edit`, and nothing else."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane, self.namespace = plane, namespace
        plane.kubectl("label", "namespace", namespace, f"{LABEL}=yes")
        plane.kubectl("-n", namespace, "create", "rolebinding", "author", "--clusterrole=edit", "--user=author")
        self._until_enforced()

    def apply(self, kind: str, spec: dict[str, Any], *arguments: str, **metadata: Any) -> None:
        document = {
            "apiVersion": "mixpeek.com/v1alpha1",
            "kind": kind,
            # A selector of namespaces takes the labels of the object itself when its plural is "namespaces".
            "metadata": {"name": "x", "labels": {LABEL: "yes"}, **metadata},
            "spec": spec,
        }
        text = yaml.safe_dump(document)
        self.plane.kubectl("-n", self.namespace, AUTHOR, "apply", "-f", "-", *arguments, stdin=text)

    def refused(self, *said: str, **call: Any) -> None:
        with pytest.raises(AssertionError) as caught:
            self.apply(**call)
        for text in said:
            assert text in str(caught.value)

    def _until_enforced(self) -> None:
        """The server learns of a policy, and of the author's role, a moment after they were written."""
        end = time.monotonic() + 30
        said = "accepted"
        while time.monotonic() < end:
            try:
                self.apply("Bucket", {"namespace": "ns_0123456789", "bucketSchema": SCHEMA}, "--dry-run=server")
            except AssertionError as error:
                said = str(error)
                if "is no name" in said:
                    return
            time.sleep(0.2)
        raise AssertionError(f"the policies are not enforced after 30 s: {said}")


def test_what_an_author_writes_every_day_passes(tenant: Tenant) -> None:
    files = sorted((REPOSITORY / "examples" / "kubernetes").glob("*.yaml"))
    run = [argument for file in files for argument in ("-f", str(file))]
    tenant.plane.kubectl("-n", tenant.namespace, AUTHOR, "apply", *run)
    tenant.plane.kubectl("-n", tenant.namespace, AUTHOR, "apply", "--server-side", "--force-conflicts", *run)


@pytest.mark.parametrize(
    ("kind", "spec", "place"),
    [
        ("Bucket", {"namespace": "ns_0123456789", "bucketSchema": SCHEMA}, "spec.namespace 'ns_0123456789'"),
        (
            "Collection",
            {"namespace": "shop", "source": {"type": "bucket", "bucketIds": ["a", "bkt_0123456789"]}},
            "spec.source.bucketIds[] 'bkt_0123456789'",
        ),
        (
            "Collection",
            {"namespace": "shop", "source": {"type": "bucket", "bucketIds": ["other-tenant/products"]}},
            "spec.source.bucketIds[] 'other-tenant/products'",
        ),
        (
            "Taxonomy",
            {
                "namespace": "shop",
                "config": {
                    "taxonomyType": "hierarchical",
                    "hierarchicalNodes": [{"collectionId": "roots"}, {"collectionId": "col_0123456789"}],
                },
            },
            "spec.config.hierarchicalNodes[].collectionId 'col_0123456789'",
        ),
    ],
)
def test_a_reference_that_may_lead_into_another_tenant_is_refused_with_its_place(
    tenant: Tenant, kind: str, spec: dict[str, Any], place: str
) -> None:
    tenant.refused(place, "write the name of a", kind=kind, spec=spec)


def test_a_fixed_field_cannot_be_changed_by_leaving_out_what_holds_it(tenant: Tenant) -> None:
    source = {"type": "bucket", "bucketIds": ["products"]}
    extractor = {"featureExtractorName": "text_extractor", "version": "v1"}
    tenant.apply("Collection", {"namespace": "shop", "source": source, "featureExtractor": extractor})
    tenant.refused(
        "spec.featureExtractor.featureExtractorName cannot change",
        kind="Collection",
        spec={"namespace": "shop", "source": source},
    )
    tenant.apply(
        "Collection", {"namespace": "shop", "source": source, "featureExtractor": extractor, "description": "b"}
    )


def test_only_who_may_adopt_says_whose_data_a_resource_gets(tenant: Tenant) -> None:
    foreign = {"mixpeek.com/id": "ns_0123456789"}
    tenant.refused("'adopt'", kind="Namespace", spec={}, annotations=foreign)
    tenant.refused(
        "spec.infrastructure.qdrantCollection names existing data",
        kind="Namespace",
        spec={"infrastructure": {"qdrantCollection": "ns_0123456789"}},
    )
    tenant.plane.kubectl(
        *("-n", tenant.namespace, "create", "role", "adopter", "--verb=adopt", "--resource=namespaces.mixpeek.com")
    )
    tenant.plane.kubectl("-n", tenant.namespace, "create", "rolebinding", "adopter", "--role=adopter", "--user=author")
    end = time.monotonic() + 15
    while True:
        try:
            return tenant.apply("Namespace", {}, annotations=foreign)
        except AssertionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def test_an_id_stays_where_the_operator_put_it(tenant: Tenant) -> None:
    tenant.apply("Bucket", {"namespace": "shop", "bucketSchema": SCHEMA})
    admin = ("-n", tenant.namespace, "annotate", "--overwrite", "buckets.mixpeek.com/x")
    tenant.plane.kubectl(*admin, "mixpeek.com/id=bkt_0123456789")
    tenant.apply("Bucket", {"namespace": "shop", "bucketSchema": SCHEMA, "description": "changed"})
    with pytest.raises(AssertionError, match="'adopt'"):
        tenant.plane.kubectl(AUTHOR, *admin, "mixpeek.com/id=bkt_9999999999")


def test_what_was_declared_before_the_policies_can_be_labelled_and_deleted_but_not_declared_again(
    policies: ControlPlane, kubernetes_namespace: Callable[[], str]
) -> None:
    namespace = kubernetes_namespace()
    spec = {"namespace": "ns_0123456789", "bucketSchema": SCHEMA}
    old = {
        "apiVersion": "mixpeek.com/v1alpha1",
        "kind": "Bucket",
        "metadata": {"name": "old", "namespace": namespace, "finalizers": ["example.com/waits"]},
        "spec": spec,
    }
    policies.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(old))
    tenant = Tenant(policies, namespace)
    author = ("-n", namespace, AUTHOR)

    policies.kubectl(*author, "annotate", "bucket", "old", "example.com/seen=yes")
    changed = {**spec, "description": "new"}
    tenant.refused("spec.namespace 'ns_0123456789' is no name", kind="Bucket", spec=changed, name="old")
    policies.kubectl(*author, "patch", "bucket", "old", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    policies.kubectl(*author, "delete", "bucket", "old", "--timeout=20s")


def test_the_policies_are_understood_without_a_warning(policies: ControlPlane) -> None:
    """The API server checks the types of every expression against our definitions."""
    end = time.monotonic() + 30
    while True:
        found = yaml.safe_load(policies.kubectl("get", "validatingadmissionpolicies", "-o", "yaml") or "")
        ours = [item for item in found["items"] if item["metadata"]["name"].endswith(".mixpeek.com")]
        checked = [item.get("status", {}).get("typeChecking") for item in ours]
        if len(ours) == 7 and None not in checked:
            break
        assert time.monotonic() < end, checked
        time.sleep(0.5)
    assert checked == [{}] * 7


def test_people_get_our_kinds_through_the_clusters_own_roles(tenant: Tenant) -> None:
    def may(*what: str) -> bool:
        asked = tenant.plane.kubectl("-n", tenant.namespace, AUTHOR, "auth", "can-i", *what, check=False)
        return asked is not None

    assert may("create", "buckets.mixpeek.com")
    assert not may("adopt", "buckets.mixpeek.com")
    assert not may("patch", "buckets.mixpeek.com", "--subresource=status")
