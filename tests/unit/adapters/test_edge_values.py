"""Conditions that every point meets are not asked of Edge; whatever is written, a search finds what the filter says."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixpeek_operator.adapters import _edge_filters, _edge_reads
from mixpeek_operator.adapters.qdrant_edge import QdrantEdgeVectors
from mixpeek_operator.core.filters import And, Compare, Filter, Not, Operator, Or, all_of, equals, matches
from mixpeek_operator.ports.vectors import Point, Search, VectorParams

NAME = "ns_0123456789"
VALUES = st.sampled_from(["a", "b", ["a"], ["a", "a"], ["a", "b"], 1, None])
PAYLOADS = st.fixed_dictionaries({"f": VALUES}, optional={"g": st.sampled_from(["x", "y"])})
IDS = st.integers(0, 3)
WRITES = st.one_of(
    st.tuples(st.just("upsert"), st.dictionaries(IDS, PAYLOADS, min_size=1, max_size=3)),
    st.tuples(st.just("set"), st.tuples(IDS, PAYLOADS)),
    st.tuples(st.just("delete"), IDS),
    st.tuples(st.just("delete where"), st.sampled_from(["a", "b"])),
    st.tuples(st.just("reopen"), st.none()),
)
FILTERS = [equals("f", "a"), equals("f", "b"), equals("g", "x"), all_of(equals("f", "a"), equals("g", "y"))]


CONDITIONS = st.builds(
    Compare,
    st.sampled_from(["f", "a.b", "", "a..b", "a[]", 'a"b', "0"]),
    st.sampled_from(list(Operator)),
    st.sampled_from(["a", "", 1, True, None, 10**400, ["a", 1], ["a", {}], {"lat": 1, "lon": 2}]),
    st.booleans(),
)
TREES = st.recursive(
    CONDITIONS,
    lambda inner: st.builds(
        lambda join, parts: join(tuple(parts)), st.sampled_from([And, Or, Not]), st.lists(inner, max_size=3)
    ),
    max_leaves=6,
)


@given(TREES)
def test_what_edge_can_evaluate_whole_is_known_without_compiling(tree: Filter) -> None:
    assert _edge_filters.is_exact(tree) is _edge_filters.compile_filter(tree).exact


def pid(n: int) -> str:
    return str(uuid.UUID(int=n + 1))


async def opened(path: Path) -> QdrantEdgeVectors:
    store = QdrantEdgeVectors(path)
    await store.create_collection(NAME, {"d": VectorParams("dense", 2)}, labels={})
    for field in ("f", "g"):
        await store.create_payload_index(NAME, field, "keyword")
    return store


async def found(store: QdrantEdgeVectors, filter: Filter | None) -> set[str]:
    (hits,) = await store.search(NAME, [Search("d", [1.0, 0.5], 10, filter)])
    return {hit.id for hit in hits}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=st.lists(WRITES, max_size=8))
async def test_a_search_finds_what_its_filter_says_whatever_was_written(tmp_path: Path, writes: list[Any]) -> None:
    path = tmp_path / uuid.uuid4().hex
    store = await opened(path)
    there: dict[str, dict[str, Any]] = {}
    for kind, what in writes:
        if kind == "upsert":
            await store.upsert(NAME, [Point(pid(n), {"d": [1.0, n / 4]}, payload) for n, payload in what.items()])
            there |= {pid(n): dict(payload) for n, payload in what.items()}
        elif kind == "set":
            await store.set_payload(NAME, [pid(what[0])], what[1])
            if pid(what[0]) in there:
                there[pid(what[0])] |= what[1]
        elif kind == "delete":
            await store.delete_points(NAME, [pid(what)])
            there.pop(pid(what), None)
        elif kind == "delete where":
            await store.delete_by_filter(NAME, equals("f", what))
            there = {id: payload for id, payload in there.items() if not matches(equals("f", what), payload)}
        else:
            await store.close()
            store = await opened(path)
        for filter in FILTERS:
            assert await found(store, filter) == {id for id, payload in there.items() if matches(filter, payload)}
    await store.close()


async def test_the_only_collection_of_a_namespace_is_no_condition(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.upsert(NAME, [Point(pid(n), {"d": [1.0, n / 4]}, {"f": "a", "g": f"{n}"}) for n in range(3)])
    shard = store._shard(NAME)
    assert _edge_reads.condition(shard, equals("f", "a")) is None
    both = all_of(equals("f", "a"), equals("g", "1"))
    assert both is not None
    assert 'key="f"' not in repr(_edge_reads.condition(shard, both))
    await store.upsert(NAME, [Point(pid(7), {"d": [1.0, 1.0]}, {"f": "b"})])
    assert 'key="f"' in repr(_edge_reads.condition(shard, both))
    await store.close()


@pytest.mark.parametrize("name", ["missing", "f.x", 'a"b'])
async def test_a_field_without_index_has_no_only_value(tmp_path: Path, name: str) -> None:
    store = await opened(tmp_path)
    await store.upsert(NAME, [Point(pid(1), {"d": [1.0, 1.0]}, {"f": "a"})])
    assert store._shard(NAME).only_value(name) is None
    await store.close()
