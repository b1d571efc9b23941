"""Export and convert lose nothing: text → resources → text is exact, and so is the way over Kubernetes documents."""

# ruff: noqa: E501 - a table of cases reads best with one case per line

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpeek_operator.core.errors import NotFoundError, SpecError
from mixpeek_operator.core.resource import ID_ANNOTATION
from mixpeek_operator.manifest import export, kubernetes
from mixpeek_operator.manifest.convert import convert_files, declared_resources
from mixpeek_operator.manifest.parse import parse
from mixpeek_operator.manifest.registry import schemas
from mixpeek_operator.manifest.text import read

ORGANIZATION = "int_test"

_NAMES = st.from_regex(r"\A[A-Za-z0-9]([A-Za-z0-9_-]{0,8}[A-Za-z0-9])?\Z").filter(
    lambda name: name not in ("NaN", "Infinity")
)
_TEXTS = st.one_of(
    st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=30),
    st.sampled_from(["yes", "no", "1e3", "010", "0128", "12:30", "2026-01-31", "null", "~", "", " a ", "a\nb", "#x", "|"]),
    st.sampled_from(["{{INPUT.q}}", "${{ secrets.KEY }}", "- a", "a: b", "\ta", "é\n", "a \nb\n", "'", '"', "=", "<<", ".inf"]),
)  # fmt: skip
_VALUES = st.recursive(
    st.one_of(_TEXTS, st.integers(-(10**12), 10**12), st.booleans(), st.floats(-1e9, 1e9, allow_nan=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXTS, inner, max_size=3)),
    max_leaves=6,
)
_OBJECTS = st.dictionaries(_TEXTS.filter(lambda key: key != "<<"), _VALUES, max_size=4)


@st.composite
def _manifests(draw):
    namespace = draw(_NAMES)
    body = {"version": "1.0", "metadata": {"name": draw(_TEXTS)}, "namespaces": [{"name": namespace}]}
    names = draw(st.lists(_NAMES, min_size=1, max_size=3, unique_by=lambda name: name.lower().replace("_", "-")))
    fields = st.dictionaries(_TEXTS.filter(lambda key: key != "<<"), st.just({"type": "text"}), min_size=1, max_size=3)
    body["buckets"] = [
        {"name": name, "namespace": namespace, "schema": {"properties": draw(fields)}, "metadata": draw(_OBJECTS)}
        for name in names
    ]
    if draw(st.booleans()):
        body["buckets"][0]["kubernetes"] = {"labels": {"team": draw(_TEXTS)}, "name": "chosen"}
    body["collections"] = [
        {
            "name": f"c-{name}",
            "namespace": namespace,
            "description": draw(_TEXTS),
            "source": {"type": "bucket", "bucket_ids": [name]},
            "feature_extractor": {"feature_extractor_name": "text_extractor", "version": "v1", "parameters": draw(_OBJECTS)},
        }
        for name in names
    ]  # fmt: skip
    if draw(st.booleans()):
        body["seed"] = [{"bucket": names[0], "namespace": namespace, "objects": [{"x": draw(_TEXTS)}]}]
    return body


def _facts(manifest):
    assert manifest.problems == [], [str(problem) for problem in manifest.problems]
    entries = [(entry.kind, entry.spec, dict(entry.kubernetes)) for entry in manifest.entries]
    return sorted(entries, key=repr), kubernetes.header_sections(manifest)


@settings(max_examples=150, deadline=None)
@given(_manifests())
def test_a_manifest_survives_the_way_to_kubernetes_and_back(body):
    text = export.to_yaml(body)
    first = parse(text, schemas())
    documents = convert_files([("m.yaml", text)], to="kubernetes")
    back = convert_files([("k.yaml", documents)], to="manifest")

    assert _facts(parse(documents, schemas())) == _facts(first)
    assert _facts(parse(back, schemas())) == _facts(first)
    assert convert_files([("m.yaml", back)], to="kubernetes") == documents
    assert convert_files([("k.yaml", convert_files([("m", back)], to="kubernetes"))], to="manifest") == back


@settings(max_examples=200, deadline=None)
@given(_OBJECTS)
def test_values_survive_as_yaml_for_us_and_for_other_readers(value):
    text = export.to_yaml(value)

    assert read(text).documents == [value]
    assert read(export.to_json(value)).documents == [value]
    assert yaml.safe_load(text) == value


def test_kubernetes_documents_are_the_resources(manifest):
    documents = list(yaml.safe_load_all(convert_files([(None, manifest)], to="kubernetes")))

    header, namespace, bucket, *_ = documents
    assert header["kind"] == "ConfigMap"
    assert namespace == {
        "apiVersion": "mixpeek.com/v1alpha1",
        "kind": "Namespace",
        "metadata": {"name": "shop"},
        "spec": {
            "name": "shop",
            "description": "All of the shop",
            "featureExtractors": [{"featureExtractorName": "text_extractor", "version": "v1"}],
        },
    }
    assert bucket["metadata"]["name"] == "shop.products"
    assert bucket["spec"]["bucketSchema"]["properties"]["price"] == {"type": "number"}


def test_a_document_of_kubectl_is_read(manifest):
    text = """
apiVersion: mixpeek.com/v1alpha1
kind: Bucket
metadata:
  name: raw-videos
  uid: 1b4e28ba
  resourceVersion: "17"
  annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}
spec:
  namespace: n
  bucketSchema: {properties: {videoUrl: {type: text}}}
status: {objectCount: 3}
"""
    (entry,) = parse(text, schemas()).entries

    assert entry.name == "raw-videos"
    assert entry.kubernetes == {"name": "raw-videos"}
    assert list(entry.spec["bucket_schema"]["properties"]) == ["videoUrl"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x}", "is not ours"),
        ("apiVersion: mixpeek.com/v2\nkind: Bucket\nmetadata: {name: x}", "use mixpeek.com/v1alpha1"),
        ("apiVersion: mixpeek.com/v1alpha1\nkind: Buckt\nmetadata: {name: x}", "did you mean 'Bucket'"),
        ("apiVersion: mixpeek.com/v1alpha1\nkind: Bucket\nspec: {}", "metadata.name is required"),
    ],
)
def test_other_documents_are_refused(text, says):
    with pytest.raises(SpecError) as caught:
        convert_files([("k.yaml", text)], to="manifest")

    assert says in str(caught.value) and "k.yaml:" in str(caught.value)


def test_declared_resources_come_in_order(manifest):
    body = yaml.safe_load(manifest)
    text = yaml.safe_dump(dict(reversed(body.items())), sort_keys=False)

    assert declared_resources([(None, text)]) == [
        ("namespaces", "shop", None),
        ("buckets", "products", "shop"),
        ("collections", "titles", "shop"),
        ("retrievers", "search", "shop"),
    ]


@pytest.mark.parametrize("form", ["yaml", "json"])
async def test_export_apply_elsewhere_export_is_byte_identical(world, manifest, form):
    service = world.service()
    await service.apply(ORGANIZATION, [(None, manifest)])
    first = await service.export(ORGANIZATION, format=form)

    applied = await service.apply("int_other", [("e", first)])
    second = await service.export("int_other", format=form)

    assert applied["success"], applied["errors"]
    assert first == second
    again = await service.apply(ORGANIZATION, [("e", first)])
    assert again["skipped_count"] == 4


async def test_export_writes_names_for_ids(world, manifest):
    service = world.service()
    await service.apply(ORGANIZATION, [(None, manifest)])
    resources = await world.all()
    bucket = resources["Bucket/shop.products"].metadata.annotations[ID_ANNOTATION]
    collection = resources["Collection/shop.titles"]
    collection.spec["source"] = {"type": "bucket", "bucket_ids": [bucket]}
    await world.store.update(collection)

    body = yaml.safe_load(await service.export(ORGANIZATION, manifest_name="mine"))

    assert body["metadata"] == {"name": "mine"}
    assert body["collections"][0]["source"]["bucket_ids"] == ["products"]
    assert "kubernetes" not in body["collections"][0]


async def test_export_of_some_namespaces(world, manifest):
    service = world.service()
    await service.apply(ORGANIZATION, [(None, manifest)])
    await service.apply(ORGANIZATION, [(None, "namespaces: [{name: other}]")])
    shop = (await world.all())["Namespace/shop"].id

    by_id = yaml.safe_load(await service.export(ORGANIZATION, namespaces=[shop]))
    by_name = yaml.safe_load(await service.export(ORGANIZATION, namespaces=["other"]))

    assert [item["name"] for item in by_id["namespaces"]] == ["shop"] and len(by_id["buckets"]) == 1
    assert [item["name"] for item in by_name["namespaces"]] == ["other"] and "buckets" not in by_name
    with pytest.raises(NotFoundError):
        await service.export(ORGANIZATION, namespaces=["nowhere"])
