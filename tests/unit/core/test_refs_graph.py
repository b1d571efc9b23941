"""References and immutable fields come from the types; the order of resources from the references."""

from __future__ import annotations

import copy
import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpeek_operator.core import graph
from mixpeek_operator.core.kind import Reference
from mixpeek_operator.core.normal import normalise
from mixpeek_operator.core.refs import immutable_changes, references, translate
from mixpeek_operator.generate.files import kind_schemas

SCHEMAS = kind_schemas()


def spec_of(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    spec, problems = normalise(SCHEMAS[kind], body)
    assert problems == []
    return spec


def found(kind: str, body: dict[str, Any]) -> set[tuple[str, str, bool]]:
    return {(item.kind, item.value, item.ordered) for item in references(SCHEMAS[kind], spec_of(kind, body))}


def test_references_of_a_collection() -> None:
    body = {
        "name": "c1",
        "namespace": "n1",
        "source": {"type": "bucket", "bucket_ids": ["b1", "b2"], "field_map": {"b1": [{"source_path": "x"}]}},
        "cluster_applications": [{"cluster_id": "k1"}],
        "taxonomy_applications": [{"taxonomy_id": "t1"}],
    }
    assert found("collection", body) == {
        ("Namespace", "n1", True),
        ("Bucket", "b1", True),
        ("Bucket", "b2", True),
        ("Cluster", "k1", False),
        ("Taxonomy", "t1", False),
    }


def test_references_in_stage_parameters_but_not_in_templates_or_values() -> None:
    parameters = {
        "target_collection_id": "catalog",
        "retriever_id": "{{INPUT.retriever}}",
        "filters": {"field": "collection_id", "value": "x", "collection_id": "no"},
        "nested": [{"taxonomy_id": "topics"}],
        "collection_ids": ["c2", "{{INPUT.c}}"],
    }
    body = {"name": "r1", "namespace": "n1", "stages": [{"stage_id": "document_enrich", "parameters": parameters}]}
    assert found("retriever", body) == {
        ("Namespace", "n1", True),
        ("Collection", "catalog", True),
        ("Collection", "c2", True),
        ("Taxonomy", "topics", True),
    }


def test_references_of_both_taxonomies() -> None:
    flat = dict(SCHEMAS["taxonomy"].example)
    assert ("Retriever", "topic_lookup", True) in found("taxonomy", flat)
    assert ("Collection", "topic_names", True) in found("taxonomy", flat)
    nodes = [{"collection_id": "a"}, {"collection_id": "b", "parent_collection_id": "a", "retriever_id": "r"}]
    tree = {"name": "t", "namespace": "n", "config": {"taxonomy_type": "hierarchical", "hierarchical_nodes": nodes}}
    assert found("taxonomy", tree) == {
        ("Namespace", "n", True),
        ("Collection", "a", True),
        ("Collection", "b", True),
        ("Retriever", "r", True),
    }


def test_each_reference_stands_where_its_path_says() -> None:
    for schema in SCHEMAS.values():
        for item in references(schema, schema.example):
            value: Any = schema.example
            for part in item.path:
                value = value[part]
            assert value == item.value


def test_translate_there_and_back_and_the_original_is_untouched() -> None:
    body = {
        "name": "c1",
        "namespace": "n1",
        "source": {"type": "bucket", "bucket_ids": ["b1", "b2"], "field_map": {"b1": [{"source_path": "x"}]}},
    }
    spec = spec_of("collection", body)
    before = copy.deepcopy(spec)
    schema = SCHEMAS["collection"]
    there = translate(spec, references(schema, spec), {("Bucket", "b1"): "bkt_1", ("Collection", "b2"): "no"})
    assert spec == before
    assert there["source"] == {
        "type": "bucket",
        "bucket_ids": ["bkt_1", "b2"],
        "field_map": {"bkt_1": [{"source_path": "x"}]},
    }
    assert translate(there, references(schema, there), {("Bucket", "bkt_1"): "b1"}) == before


def test_references_survive_a_wrong_spec() -> None:
    wrong = {"namespace": 3, "source": ["b1"], "cluster_applications": {"cluster_id": "x"}}
    assert references(SCHEMAS["collection"], wrong) == []
    assert references(SCHEMAS["retriever"], {"stages": [3, {"parameters": "x"}]}) == []


def test_immutable_changes_name_field_and_reason() -> None:
    schema = SCHEMAS["collection"]
    old = dict(schema.example)
    new = {**old, "description": "other", "feature_extractor": {**old["feature_extractor"], "version": "v2"}}
    assert [path for path, _why in immutable_changes(schema, old, new)] == [("feature_extractor", "version")]
    assert immutable_changes(schema, old, old) == []
    namespace = SCHEMAS["namespace"]
    assert immutable_changes(namespace, {"name": "n"}, {"name": "n", "mode": "managed"}) == []
    changed = immutable_changes(namespace, {"name": "n"}, {"name": "n", "infrastructure": {"qdrant_url": "http://q"}})
    assert [path for path, _why in changed] == [("infrastructure", "qdrant_url")]
    taxonomy = SCHEMAS["taxonomy"]
    other = {**taxonomy.example, "config": {"taxonomy_type": "hierarchical", "path_field": "p"}}
    assert [path for path, _why in immutable_changes(taxonomy, taxonomy.example, other)] == [
        ("config", "taxonomy_type")
    ]


Node = tuple[str, str]


@st.composite
def acyclic(draw: st.DrawFn) -> dict[Node, list[Node]]:
    count = draw(st.integers(0, 12))
    nodes = [(draw(st.sampled_from(["Bucket", "Collection", "Retriever"])), f"n{i}") for i in range(count)]
    return {
        node: draw(st.lists(st.sampled_from(nodes[:index]), max_size=4)) if index else []
        for index, node in enumerate(nodes)
    }


@given(dependencies=acyclic(), seed=st.integers(0, 100))
def test_order_respects_dependencies_and_does_not_depend_on_the_mapping(
    dependencies: dict[Node, list[Node]], seed: int
) -> None:
    result = graph.order(dependencies)
    assert sorted(result) == sorted(dependencies)
    position = {node: index for index, node in enumerate(result)}
    for node, needs in dependencies.items():
        assert all(position[item] < position[node] for item in needs)
    shuffled = list(dependencies.items())
    random.Random(seed).shuffle(shuffled)
    assert graph.order(dict(shuffled)) == result
    assert [node for wave in graph.levels(dependencies) for node in wave] == sorted(
        result,
        key=lambda node: (
            next(i for i, w in enumerate(graph.levels(dependencies)) if node in w),
            graph.kind_rank(node),
        ),
    )
    assert graph.find_cycles(dependencies) == []


@given(data=st.data(), count=st.integers(1, 8))
def test_a_cycle_is_a_real_path_that_closes(data: st.DataObject, count: int) -> None:
    nodes = [("Collection", f"n{i}") for i in range(count)]
    dependencies = {node: data.draw(st.lists(st.sampled_from(nodes), max_size=3)) for node in nodes}
    cycles = graph.find_cycles(dependencies)
    try:
        graph.order(dependencies)
        assert cycles == []
    except graph.CycleError as error:
        assert error.path in cycles
    for path in cycles:
        assert path[0] == path[-1] == min(path)
        assert all(after in dependencies[before] for before, after in itertools.pairwise(path))


def test_a_cycle_is_told_as_its_path() -> None:
    dependencies = {
        ("B", "b"): [("B", "c")],
        ("B", "c"): [("B", "a")],
        ("B", "a"): [("B", "b")],
        ("B", "z"): [("B", "a")],
    }
    with pytest.raises(graph.CycleError, match="B/a → B/b → B/c → B/a"):
        graph.order(dependencies)


def test_kinds_break_ties_and_strangers_are_passed_over() -> None:
    dependencies: dict[Node, list[Node]] = {
        ("Retriever", "a"): [("Collection", "elsewhere")],
        ("Bucket", "z"): [],
        ("Namespace", "n"): [],
    }
    assert graph.order(dependencies) == [("Namespace", "n"), ("Bucket", "z"), ("Retriever", "a")]


def test_many_separate_cycles_are_all_found() -> None:
    dependencies: dict[Node, list[Node]] = {}
    for index in range(0, 4000, 2):
        one, two = ("Collection", f"n{index:04}"), ("Collection", f"n{index + 1:04}")
        dependencies[one], dependencies[two] = [two], [one]
    assert len(graph.find_cycles(dependencies)) == 2000


def test_reference_is_a_plain_value() -> None:
    assert Reference(("a",), "Bucket", "b") == Reference(("a",), "Bucket", "b", ordered=True, in_key=False)
