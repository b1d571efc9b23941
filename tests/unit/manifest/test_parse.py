"""A manifest becomes entries; every mistake is found at once, with its place."""

import itertools

import pytest
import yaml

from mixpeek_operator.kinds import kinds
from mixpeek_operator.manifest.parse import parse, parse_files
from mixpeek_operator.manifest.plan import Action, plan
from mixpeek_operator.manifest.registry import schemas
from mixpeek_operator.manifest.resolve import Existing, resolve


def _problems(text, catalog=None, **options):
    manifest = parse(text, schemas(), file="m.yaml", **options)
    return [*manifest.problems, *resolve(manifest, Existing(()), schemas(), catalog).problems]


def test_a_good_manifest_has_no_problems(manifest, catalog):
    assert _problems(manifest, catalog) == []


def test_a_feature_that_no_collection_writes_is_named(manifest, catalog):
    wants = {name: kind.want for name, kind in kinds().items()}
    body = yaml.safe_load(manifest.replace("/text_embedding", "/txt_embedding"))
    stage = body["retrievers"][0]["stages"][0]
    stage["config"] = {"stage_id": stage.pop("stage_id"), "parameters": stage.pop("parameters")}
    text = yaml.safe_dump(body, sort_keys=False)

    read = parse(text, schemas(), file="m.yaml")
    problems = resolve(read, Existing(()), schemas(), catalog, wants).problems
    good = parse(manifest, schemas())

    assert len(problems) == 1 and "did you mean mixpeek://text_extractor@v1/text_embedding" in problems[0].message
    line = next(number for number, line in enumerate(text.splitlines(), 1) if "txt_embedding" in line)
    assert problems[0].place.line == line
    assert resolve(good, Existing(()), schemas(), catalog, wants).problems == []


def _changed(old, new):
    return lambda text: text.replace(old, new, 1)


BAD = [
    (_changed("buckets:", "bucket:"), "unknown_key", 9, "did you mean 'buckets'", "unknown section"),
    (
        _changed("price: {type: number}", "price: {typ: number}"),
        "unknown_field",
        16,
        "did you mean 'type'",
        "nested key",
    ),
    (_changed("    description: What we sell", "    descripton: x"), "unknown_field", 12, "description", "unknown key"),
    (_changed("description: What we sell", "description: 5"), "wrong_type", 12, "expected text", "wrong type"),
    (
        _changed("buckets:\n  - name: products", "buckets:\n  - products\n  - name: products"),
        "wrong_type",
        10,
        "mapping",
        "an entry that is text",
    ),
    (_changed('version: "1.0"', 'version: "9"'), "unsupported_version", 1, '"1.0"', "another version"),
    (
        _changed("name: products\n    namespace: shop", "name: products\n    namespace: shp"),
        "missing_reference",
        11,
        "did you mean 'shop'",
        "a namespace that is not there",
    ),
    (
        _changed("bucket_ids: [products]", "bucket_ids: [product]"),
        "missing_reference",
        21,
        "did you mean 'products'",
        "missing reference",
    ),
    (
        _changed("feature_extractor_name: text_extractor", "feature_extractor_name: txt_extractor"),
        "unknown_extractor",
        23,
        "text_extractor",
        "unknown extractor",
    ),
    (
        _changed("stage_id: feature_search", "stage_id: feature_serch"),
        "unknown_stage",
        35,
        "feature_serch",
        "unknown stage",
    ),
    (
        _changed("input_mappings: {text: title}", "input_mappings: {txt: title}"),
        "unknown_input",
        25,
        "did you mean 'text'",
        "unknown input",
    ),
    (
        _changed("  - name: products\n", "  - name: products\n  - name: products\n    namespace: shop\n"),
        "duplicate_name",
        11,
        "m.yaml:10:5",
        "duplicate name",
    ),
    (
        _changed("description: Finds products", "description: ${{ params.who }}"),
        "unknown_parameter",
        29,
        "params.who",
        "undeclared parameter",
    ),
    (
        _changed("description: Finds products", "description: ${{ what ever }}"),
        "unknown_expression",
        29,
        "secrets.NAME",
        "broken expression",
    ),
    (_changed("  - name: search\n    names", "  - names"), "missing_field", 27, "name is required", "no name"),
]


@pytest.mark.parametrize(("change", "code", "line", "says", "reason"), BAD)
def test_a_mistake_is_named_with_its_place(manifest, catalog, change, code, line, says, reason):
    problems = _problems(change(manifest), catalog)

    found = [problem for problem in problems if problem.code == code]
    assert found, (reason, [str(problem) for problem in problems])
    assert any(problem.place.line == line and says in str(problem) for problem in found), [str(item) for item in found]
    assert all(problem.place.file == "m.yaml" for problem in found)


def test_every_mistake_is_reported_at_once(manifest, catalog):
    text = manifest
    for change in (BAD[1][0], BAD[3][0], BAD[7][0], BAD[8][0], BAD[9][0]):
        text = change(text)

    codes = {problem.code for problem in _problems(text, catalog)}

    assert codes >= {"unknown_field", "wrong_type", "missing_reference", "unknown_extractor", "unknown_stage"}


def test_a_cycle_is_told_as_its_path():
    text = """
namespaces: [{name: n}]
collections:
  - {name: a, namespace: n, source: {type: collection, collection_ids: [c]}}
  - {name: b, namespace: n, source: {type: collection, collection_ids: [a]}}
  - {name: c, namespace: n, source: {type: collection, collection_ids: [b]}}
"""
    (problem,) = _problems(text)

    assert problem.code == "dependency_cycle"
    assert "Collection n/a → Collection n/c → Collection n/b → Collection n/a" in problem.message
    assert problem.place.line == 4


def test_a_reference_cannot_leave_its_namespace():
    text = """
namespaces: [{name: one}, {name: two}]
buckets: [{name: b, namespace: one, schema: {properties: {x: {type: text}}}}]
collections: [{name: c, namespace: two, source: {type: bucket, bucket_ids: [b]}}]
"""
    (problem,) = _problems(text)

    assert problem.code == "other_namespace"
    assert "namespace 'one'" in problem.message


def test_names_that_are_stored_alike_clash():
    text = """
namespaces: [{name: n}]
buckets:
  - {name: a_b, schema: {properties: {x: {type: text}}}}
  - {name: a-b, schema: {properties: {x: {type: text}}}}
"""
    (problem,) = _problems(text)

    assert problem.code == "duplicate_name"
    assert "'n.a-b'" in problem.message
    assert problem.place.line == 5


def test_the_only_namespace_need_not_be_repeated(manifest):
    text = manifest.replace("    namespace: shop\n", "")

    assert {entry.namespace for entry in parse(text, schemas()).entries} == {None, "shop"}
    assert _problems(text) == []


def test_a_manifest_may_be_spread_over_files(manifest, catalog):
    at = manifest.index("collections:")
    read = parse_files((("a.yaml", manifest[at:]), ("b.yaml", manifest[:at])), schemas())

    assert read.problems == []
    assert resolve(read, Existing(()), schemas(), catalog).problems == []
    assert [entry.kind for entry in resolve(read, Existing(()), schemas()).entries] == [
        "Namespace", "Bucket", "Collection", "Retriever",
    ]  # fmt: skip


def test_the_order_of_sections_and_entries_does_not_matter(manifest):
    sections = yaml.safe_load(manifest)
    names = ["namespaces", "buckets", "collections", "retrievers"]
    plans = []
    for order in itertools.permutations(names):
        text = yaml.safe_dump({"version": "1.0", **{name: sections[name] for name in order}}, sort_keys=False)
        read = parse(text, schemas())
        existing = Existing(())
        steps = plan(read, resolve(read, existing, schemas()), existing, schemas()).steps
        plans.append([(step.action, step.entry.kind, step.spec) for step in steps])

    assert all(item == plans[0] for item in plans)
    assert plans[0][0][:2] == (Action.CREATE, "Namespace")


@pytest.mark.parametrize("text", ["", "---\n", "# nothing\n", "null"])
def test_an_empty_manifest_says_so(text):
    assert [problem.code for problem in _problems(text)] == ["empty_manifest"]


@pytest.mark.parametrize("text", ["just text", "- a\n- b", "3"])
def test_something_else_than_a_mapping_says_so(text):
    assert [problem.code for problem in _problems(text)] == ["wrong_type"]


def test_acceptance_steps_that_could_never_pass_are_refused_where_they_stand():
    text = """
namespaces: [{name: n}]
collections: [{name: c, source: {type: bucket, bucket_ids: [b]}}]
buckets: [{name: b, schema: {properties: {text: {type: text}}}}]
acceptance:
  steps:
    - {name: alerts, kind: alert, expect: {results: 1}}
    - {name: serves, kind: realtime, expect: {}}
    - {name: finds, expect: {documents: 3}}
    - {name: counts, kind: documents, collection: c, filters: {a: 1}, expect: {min_top_score: 0.5, documents: 1}}
    - {name: fine, kind: documents, collection: c, expect: {documents: 1}}
"""
    problems = _problems(text)

    assert [(problem.place.line, problem.place.path, problem.code) for problem in problems] == [
        (7, "acceptance.steps[0].kind", "not_supported"),
        (8, "acceptance.steps[1].kind", "not_supported"),
        (9, "acceptance.steps[2].retriever", "missing_field"),
        (9, "acceptance.steps[2].expect.documents", "not_supported"),
        (10, "acceptance.steps[3].filters", "not_supported"),
        (10, "acceptance.steps[3].expect.min_top_score", "not_supported"),
    ]
    assert "'alerts' is of kind alert, and this server runs query and documents steps only" in problems[0].message


def test_acceptance_and_seed_are_checked_too():
    text = """
namespaces: [{name: n}]
seed:
  - {bucket: nope, objects: [{x: 1}]}
acceptance:
  steps:
    - {name: finds, retriever: nope, expct: {}}
    - {name: counts, kind: documents, collection: nope, expect: {min_documents: "3"}}
"""
    problems = _problems(text)

    assert {problem.code for problem in problems} == {
        "missing_reference",
        "unknown_key",
        "missing_field",
        "invalid_value",
    }
    assert {problem.place.line for problem in problems} >= {4, 7, 8}
