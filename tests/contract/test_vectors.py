"""What every VectorStore does; an adapter joins with one line in `STORES`.

The adapter of the Qdrant server runs on the client's local mode, over the wire on the stand-in, and on a real server
where `QDRANT_URL` is set.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.servers.qdrant import standin
from tests.servers.qdrant.local import LocalQdrant

from mixpeek_operator.adapters._qdrant_calls import Server
from mixpeek_operator.adapters.qdrant_edge import QdrantEdgeVectors
from mixpeek_operator.adapters.qdrant_server import QdrantServerVectors
from mixpeek_operator.core.errors import (
    BadRequestError,
    ConflictError,
    NotFoundError,
    SpecError,
    UnavailableError,
)
from mixpeek_operator.core.filters import And, Compare, Filter, Not, Operator, Or, equals, matches
from mixpeek_operator.ports.vectors import Point, Search, SparseVector, VectorParams, VectorStore, scroll_all

STORES: dict[str, Callable[[pytest.FixtureRequest, Path], VectorStore]] = {
    "edge": lambda request, path: QdrantEdgeVectors(path / "vectors"),
    "server-local": lambda request, path: QdrantServerVectors(Server(LocalQdrant(), "this process")),
    "server-http": lambda request, path: QdrantServerVectors.connect(request.getfixturevalue("standin_url")),
}
if os.environ.get("QDRANT_URL"):
    STORES["server"] = lambda request, path: QdrantServerVectors.connect(
        os.environ["QDRANT_URL"],
        os.environ.get("QDRANT_API_KEY"),
        prefer_grpc=bool(os.environ.get("QDRANT_PREFER_GRPC")),
    )
VECTORS = {
    "d": VectorParams("dense", 4),
    "s": VectorParams("sparse", modifier="idf"),
}
NAME, OTHER = "ns_0123456789", "ns_other"


@pytest.fixture(scope="module")
def standin_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with standin(tmp_path_factory.mktemp("qdrant")) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[VectorStore]:
    made = STORES[request.param](request, tmp_path)
    for name in (NAME, OTHER):
        await made.delete_collection(name)
    yield made
    for name in (NAME, OTHER):
        await made.delete_collection(name)
    await made.close()


@pytest.fixture
async def filled(store: VectorStore) -> VectorStore:
    await store.create_collection(NAME, VECTORS, labels={"organization": "int_a"})
    await store.upsert(NAME, [point(n) for n in range(20)])
    for field, kind in (("color", "keyword"), ("price", "integer"), ("on", "bool"), ("at", "datetime")):
        await store.create_payload_index(NAME, field, kind)
    return store


def pid(n: int) -> str:
    return str(uuid.UUID(int=n + 1))


def point(n: int) -> Point:
    angle = n / 20
    return Point(
        pid(n),
        {"d": [math.cos(angle), math.sin(angle), 0.0, 0.0], "s": SparseVector([n % 3, 10 + n], [1.0, 2.0])},
        {
            "n": n,
            "color": ["red", "green", "blue"][n % 3],
            "price": n * 10,
            "on": n % 2 == 0,
            "at": f"2026-01-{n + 1:02}T00:00:00Z",
            "tags": ["even" if n % 2 == 0 else "odd", "all"],
            "items": [{"size": n}, {"size": n + 100}],
        },
    )


async def test_collections_are_created_once_listed_and_deleted(store: VectorStore) -> None:
    assert await store.describe(NAME) is None
    for _ in range(2):
        await store.create_collection(NAME, VECTORS, labels={"organization": "int_a"})
    state = await store.describe(NAME)
    assert state is not None
    assert (state.vectors, state.points, state.labels) == (VECTORS, 0, {"organization": "int_a"})
    assert state.name == NAME
    assert await store.list_collections() == [NAME]
    with pytest.raises(ConflictError):
        await store.create_collection(NAME, {"d": VectorParams("dense", 5)}, labels={})
    for _ in range(2):
        await store.delete_collection(NAME)
    assert await store.list_collections() == []


async def test_a_collection_may_begin_without_vectors(store: VectorStore) -> None:
    await store.create_collection(NAME, {}, labels={})
    await store.upsert(NAME, [Point(pid(0), {}, {"a": 1})])
    assert (await store.get(NAME, [pid(0)], with_vectors=True))[0].vectors == {}


@pytest.mark.parametrize("name", ["../evil", ".hidden", "a/b", "", "x" * 200])
async def test_a_name_never_leaves_the_store(store: VectorStore, name: str) -> None:
    with pytest.raises(SpecError):
        await store.create_collection(name, VECTORS, labels={})


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("~", VectorParams("sparse")),
        ("", VectorParams("dense", 2)),
        ("x", VectorParams("dense")),
        ("x", VectorParams("dense", 2, "cosinus")),
        ("x", VectorParams("sparse", modifier="tf")),
        ("x", VectorParams("thick", 2)),
    ],
)
async def test_vectors_that_cannot_be_made(store: VectorStore, name: str, params: VectorParams) -> None:
    with pytest.raises(SpecError):
        await store.create_collection(NAME, {name: params}, labels={})
    assert await store.list_collections() == []
    await store.create_collection(NAME, VECTORS, labels={})
    with pytest.raises(SpecError):
        await store.add_vector(NAME, name, params)


async def test_what_a_payload_cannot_hold(filled: VectorStore) -> None:
    for point_id, payload in ((pid(1), {"a": object()}), ("no uuid", {})):
        with pytest.raises(SpecError):
            await filled.upsert(NAME, [Point(point_id, {}, payload)])
    (found,) = await filled.get(NAME, [pid(1)])
    assert found.payload["n"] == 1


async def test_unknown_collection(store: VectorStore) -> None:
    for call in (
        store.upsert(NAME, [point(0)]),
        store.get(NAME, [pid(0)]),
        store.search(NAME, [Search("d", [1, 0, 0, 0], 1)]),
        store.scroll(NAME),
        store.count(NAME),
        store.add_vector(NAME, "x", VectorParams("dense", 2)),
        store.delete_points(NAME, [pid(0)]),
        store.set_payload(NAME, [pid(0)], {}),
    ):
        with pytest.raises(NotFoundError):
            await call


@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        ({"d": [1.0, 2.0]}, "4 are expected"),
        ({"x": [1.0]}, "unknown vector"),
        ({"s": [1.0]}, "sparse"),
        ({"d": SparseVector([1], [1.0])}, "dense"),
        ({"s": SparseVector([1, 1], [1.0, 2.0])}, "once"),
        ({"d": [float("nan"), 0.0, 0.0, 0.0]}, "finite"),
    ],
)
async def test_wrong_vectors_write_nothing(filled: VectorStore, vectors: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        await filled.upsert(NAME, [point(50), Point(pid(51), vectors, {})])
    assert await filled.count(NAME) == 20


async def test_wrong_queries(filled: VectorStore) -> None:
    with pytest.raises(SpecError):
        await filled.search(NAME, [Search("d", [1.0], 1)])
    with pytest.raises(SpecError):
        await filled.search(NAME, [Search("nope", [1.0], 1)])


async def test_upsert_replaces_whole_and_is_seen_at_once(filled: VectorStore) -> None:
    await filled.upsert(NAME, [Point(pid(3), {"d": [0, 0, 1, 0]}, {"only": True})])
    (found,) = await filled.get(NAME, [pid(3)], with_vectors=True)
    assert found.payload == {"only": True}
    assert list(found.vectors) == ["d"]
    hits = (await filled.search(NAME, [Search("d", [0, 0, 1, 0], 1)]))[0]
    assert [hit.id for hit in hits] == [pid(3)]


async def test_get_keeps_order_and_skips_the_missing(filled: VectorStore) -> None:
    found = await filled.get(NAME, [pid(5), pid(99), pid(1)])
    assert [item.id for item in found] == [pid(5), pid(1)]
    assert found[0].vectors == {}


async def test_set_payload_merges_and_ignores_missing_points(filled: VectorStore) -> None:
    await filled.set_payload(NAME, [pid(1), pid(99)], {"color": "black", "new": {"a": 1}})
    (found,) = await filled.get(NAME, [pid(1)])
    assert (found.payload["color"], found.payload["new"], found.payload["price"]) == ("black", {"a": 1}, 10)
    assert await filled.count(NAME) == 20


async def test_delete_points_and_by_filter(filled: VectorStore) -> None:
    await filled.delete_points(NAME, [pid(0), pid(99)])
    await filled.delete_by_filter(NAME, equals("color", "green"))
    await filled.delete_by_filter(NAME, Compare("color", Operator.REGEX, "^bl"))
    left = [item.payload["color"] async for item in scroll_all(filled, NAME)]
    assert set(left) == {"red"}
    assert len(left) == 6


async def test_search_falls_with_rank_and_filters(filled: VectorStore) -> None:
    dense, sparse, none = await filled.search(
        NAME,
        [
            Search("d", [1, 0, 0, 0], 5, filter=equals("color", "blue")),
            Search("s", SparseVector([2], [1.0]), 3),
            Search("d", [1, 0, 0, 0], 5, filter=equals("color", "pink")),
        ],
    )
    assert [hit.payload["n"] for hit in dense] == [2, 5, 8, 11, 14]
    assert [hit.score for hit in dense] == sorted((hit.score for hit in dense), reverse=True)
    assert dense[0].score == pytest.approx(math.cos(2 / 20), abs=1e-5)
    assert [hit.payload["n"] % 3 for hit in sparse] == [2, 2, 2]
    assert none == []


async def test_search_threshold_vectors_and_empty_sparse(filled: VectorStore) -> None:
    near, empty = await filled.search(
        NAME,
        [Search("d", [1, 0, 0, 0], 20, score_threshold=0.99), Search("s", SparseVector([], []), 3)],
        with_vectors=["d"],
    )
    assert near
    assert all(hit.score >= 0.99 for hit in near)
    assert list(near[0].vectors) == ["d"]
    assert empty == []


async def test_equal_scores_come_by_id_also_at_the_limit(store: VectorStore) -> None:
    await store.create_collection(NAME, VECTORS, labels={})
    same = [Point(pid(n), {"d": [1, 0, 0, 0]}, {}) for n in (9, 3, 7, 1, 5)]
    await store.upsert(NAME, same)
    hits = (await store.search(NAME, [Search("d", [1, 0, 0, 0], 3)]))[0]
    assert [hit.id for hit in hits] == [pid(1), pid(3), pid(5)]


@pytest.mark.parametrize("distance", ["cosine", "dot", "euclid", "manhattan"])
async def test_every_distance_is_a_similarity(store: VectorStore, distance: str) -> None:
    await store.create_collection(NAME, {"d": VectorParams("dense", 2, distance)}, labels={})
    await store.upsert(NAME, [Point(pid(n), {"d": [1.0 + n, float(n)]}, {"n": n}) for n in range(3)])
    hits = (await store.search(NAME, [Search("d", [1.0, 0.0], 3)]))[0]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    expected = [2, 1, 0] if distance == "dot" else [0, 1, 2]
    assert [hit.payload["n"] for hit in hits] == expected
    middle = hits[1].score
    above = (await store.search(NAME, [Search("d", [1.0, 0.0], 3, score_threshold=middle - 1e-4)]))[0]
    assert len(above) == 2


async def test_vectors_come_and_go_on_a_live_collection(filled: VectorStore) -> None:
    for _ in range(2):
        await filled.add_vector(NAME, "e", VectorParams("dense", 2, "dot"))
    await filled.add_vector(NAME, "s2", VectorParams("sparse", modifier="idf"))
    with pytest.raises(ConflictError):
        await filled.add_vector(NAME, "e", VectorParams("dense", 3, "dot"))
    assert await filled.count(NAME) == 20
    await filled.upsert(NAME, [Point(pid(30), {"e": [1, 2], "s2": SparseVector([1], [1.0])}, {})])
    e, s2, d = await filled.search(
        NAME, [Search("e", [1, 1], 9), Search("s2", SparseVector([1], [1.0]), 9), Search("d", [1, 0, 0, 0], 99)]
    )
    assert (len(e), len(s2), len(d)) == (1, 1, 20)
    for _ in range(2):
        await filled.delete_vector(NAME, "e")
    state = await filled.describe(NAME)
    assert state is not None
    assert set(state.vectors) == {"d", "s", "s2"}
    with pytest.raises(SpecError):
        await filled.search(NAME, [Search("e", [1, 1], 9)])


async def test_payload_indexes_are_listed(filled: VectorStore) -> None:
    await filled.create_payload_index(NAME, "title", "text")
    await filled.create_payload_index(NAME, "price", "integer")
    await filled.delete_payload_index(NAME, "on")
    await filled.delete_payload_index(NAME, "never")
    state = await filled.describe(NAME)
    assert state is not None
    assert state.payload_indexes == {"color": "keyword", "price": "integer", "at": "datetime", "title": "text"}
    with pytest.raises(SpecError):
        await filled.create_payload_index(NAME, "x", "colour")


async def test_scroll_in_id_order_page_by_page(filled: VectorStore) -> None:
    seen: list[int] = []
    after: str | None = None
    pages = 0
    while True:
        page = await filled.scroll(NAME, filter=Not((equals("color", "red"),)), limit=5, after=after)
        seen += [item.payload["n"] for item in page.points]
        pages += 1
        if page.next is None:
            break
        after = page.next
    assert seen == [n for n in range(20) if n % 3]
    assert pages == 3


@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_scroll_by_a_field_survives_deletions_between_pages(filled: VectorStore, direction: str) -> None:
    await filled.upsert(NAME, [Point(pid(40), {}, {"price": 50}), Point(pid(41), {}, {"other": 1})])
    page = await filled.scroll(NAME, order_by=("price", direction), limit=8)
    first = [item.payload["price"] for item in page.points]
    await filled.delete_points(NAME, [page.points[0].id])
    rest: list[int] = []
    while page.next is not None:
        page = await filled.scroll(NAME, order_by=("price", direction), limit=8, after=page.next)
        rest += [item.payload["price"] for item in page.points]
    assert first + rest == sorted([*range(0, 200, 10), 50], reverse=direction == "desc")


async def test_orders_and_facets_need_an_index(filled: VectorStore) -> None:
    with pytest.raises(SpecError, match="index"):
        await filled.scroll(NAME, order_by=("n", "asc"))
    with pytest.raises(SpecError, match="index"):
        await filled.facet(NAME, "n")


async def test_a_token_that_is_none(filled: VectorStore) -> None:
    with pytest.raises(BadRequestError):
        await filled.scroll(NAME, after="nonsense")
    with pytest.raises(BadRequestError):
        await filled.scroll(NAME, after="nonsense", order_by=("price", "asc"))


async def test_facets_count_values_most_frequent_first(filled: VectorStore) -> None:
    assert await filled.facet(NAME, "color") == [("green", 7), ("red", 7), ("blue", 6)]
    assert await filled.facet(NAME, "color", limit=1) == [("green", 7)]
    assert await filled.facet(NAME, "on", filter=equals("color", "red")) == [(True, 4), (False, 3)]
    assert (await filled.facet(NAME, "price", limit=2)) == [(0, 1), (10, 1)]
    regex = Compare("color", Operator.REGEX, "^r")
    assert await filled.facet(NAME, "color", filter=regex) == [("red", 7)]


async def test_what_cannot_be_pushed_down_still_works_everywhere(filled: VectorStore) -> None:
    regex = And((Compare("color", Operator.REGEX, "^b.*e$"), Compare("price", Operator.LT, 100)))
    assert not filled.can_push_down(regex)
    assert await filled.count(NAME, regex) == 3
    hits = (await filled.search(NAME, [Search("d", [1, 0, 0, 0], 10, filter=regex)]))[0]
    assert [hit.payload["n"] for hit in hits] == [2, 5, 8]
    page = await filled.scroll(NAME, filter=regex, limit=2)
    assert [item.payload["n"] for item in page.points] == [2, 5]
    assert page.next is not None


async def test_paths_reach_into_arrays_of_objects(filled: VectorStore) -> None:
    size = Compare("items.size", Operator.GTE, 115)
    assert filled.can_push_down(size)
    assert await filled.count(NAME, size) == 5
    assert await filled.count(NAME, Compare("items.size", Operator.EXISTS, False)) == 0


async def test_a_snapshot_brings_everything_back(
    filled: VectorStore, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.params["store"] == "server-local":
        with pytest.raises(UnavailableError, match="no snapshots"):
            await filled.snapshot(NAME, tmp_path / "snap")
        return
    await filled.snapshot(NAME, tmp_path / "snap")
    before = [item async for item in scroll_all(filled, NAME, with_vectors=True)]
    await filled.delete_points(NAME, [pid(n) for n in range(10)])
    await filled.add_vector(NAME, "later", VectorParams("dense", 2))
    await filled.restore(NAME, tmp_path / "snap")
    assert [item async for item in scroll_all(filled, NAME, with_vectors=True)] == before
    state = await filled.describe(NAME)
    assert state is not None
    assert set(state.vectors) == {"d", "s"}
    await filled.restore(OTHER, tmp_path / "snap")
    assert await filled.count(OTHER, equals("color", "red")) == 7
    (tmp_path / "bad").write_bytes(b"no snapshot")
    with pytest.raises(SpecError):
        await filled.restore(NAME, tmp_path / "bad")
    with pytest.raises(NotFoundError):
        await filled.restore(NAME, tmp_path / "absent")
    assert await filled.count(NAME) == 20


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    store = QdrantEdgeVectors(tmp_path)
    await store.create_collection(NAME, VECTORS, labels={"a": "b"})
    await store.upsert(NAME, [point(n) for n in range(20)])
    await store.create_payload_index(NAME, "color", "keyword")
    before = await store.describe(NAME)
    await store.close()
    store = QdrantEdgeVectors(tmp_path)
    assert await store.describe(NAME) == before
    assert await store.count(NAME, Compare("items.size", Operator.GT, 100)) == 19
    await store.close()


WRITER = """
    import asyncio, sys
    sys.path[:0] = {paths!r}
    from pathlib import Path
    from mixpeek_operator.adapters.qdrant_edge import QdrantEdgeVectors
    from mixpeek_operator.ports.vectors import Point, VectorParams
    import uuid
    async def main():
        store = QdrantEdgeVectors(Path({root!r}))
        await store.create_collection("c", {{"d": VectorParams("dense", 4)}}, labels={{}})
        n = 0
        while True:
            batch = [Point(str(uuid.UUID(int=n + i + 1)), {{"d": [1, 2, 3, n]}}, {{"n": n + i}}) for i in range(7)]
            await store.upsert("c", batch)
            n += 7
            print(n, flush=True)
    asyncio.run(main())
"""


def write_until_killed(root: Path, acknowledged: int) -> int:
    """Return how many points the writer said were written when it was killed."""
    code = textwrap.dedent(WRITER.format(paths=[p for p in sys.path if p], root=str(root)))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(acknowledged)]
    os.kill(process.pid, signal.SIGKILL)
    lines += process.stdout.readlines()
    process.stdout.close()
    process.wait()
    return int(next(line for line in reversed(lines) if line.endswith("\n")))


@pytest.mark.parametrize("acknowledged", [1, 40, 900])
async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, acknowledged: int) -> None:
    written = write_until_killed(tmp_path, acknowledged)
    store = QdrantEdgeVectors(tmp_path)
    found = [item.payload["n"] async for item in scroll_all(store, "c")]
    assert found[:written] == list(range(written))
    assert len(found) - written in (0, 7)
    await store.close()


# Filters: whatever the store pushes down means what `core.filters` means.

_TEXTS = ["", "a", "A", "ab", "b a", "x.y", "2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01T01:30:00+01:30", "ß"]
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, 1.0, -2.0, 2.0**53]),
    st.sampled_from(_TEXTS),
)
# Whether a null in an array of arrays counts, Edge and a server disagree; with Python the server does not count it.
_NOT_NULL = _SCALARS.filter(lambda value: value is not None)
_LEAVES = st.one_of(_SCALARS, st.lists(_SCALARS, max_size=3), st.lists(st.lists(_NOT_NULL, max_size=2), max_size=2))
_OBJECTS = st.dictionaries(st.sampled_from("xy"), _LEAVES, max_size=2)
_DOCUMENTS = st.dictionaries(
    st.sampled_from(["a", "b", "my key"]), st.one_of(_LEAVES, _OBJECTS, st.lists(_OBJECTS, max_size=2)), max_size=3
)
_FIELDS = st.sampled_from(["a", "b", "my key", "a.x", "b.y", "a[].x"])
_CONDITIONS = st.one_of(
    st.builds(Compare, _FIELDS, st.sampled_from([Operator.EQ, Operator.NE]), _SCALARS),
    st.builds(Compare, _FIELDS, st.sampled_from([Operator.GT, Operator.GTE, Operator.LT, Operator.LTE]), _SCALARS),
    st.builds(Compare, _FIELDS, st.sampled_from([Operator.IN, Operator.NIN]), st.lists(_SCALARS, max_size=3)),
    st.builds(Compare, _FIELDS, st.sampled_from([Operator.EXISTS, Operator.IS_NULL]), st.booleans()),
    st.builds(
        Compare,
        _FIELDS,
        st.sampled_from([Operator.CONTAINS, Operator.STARTS_WITH, Operator.ENDS_WITH, Operator.TEXT]),
        st.sampled_from(_TEXTS),
    ),
)
_FILTERS = st.recursive(
    _CONDITIONS,
    lambda inner: st.one_of(
        *(st.builds(kind, st.lists(inner, max_size=3).map(tuple)) for kind in (And, Or, Not)),
    ),
    max_leaves=5,
)
_INDEXES = st.dictionaries(
    st.sampled_from(["a", "b", "a.x"]),
    st.sampled_from(["keyword", "integer", "float", "bool", "datetime", "text", "uuid"]),
    max_size=2,
)


async def check_filters(
    store: VectorStore, documents: list[dict[str, Any]], filters: list[Filter], indexes: dict[str, str]
) -> None:
    await store.create_collection(NAME, {}, labels={})
    await store.delete_by_filter(NAME, And(()))
    for field in ("a", "b", "a.x"):
        await store.delete_payload_index(NAME, field)
    for field, kind in indexes.items():
        await store.create_payload_index(NAME, field, kind)
    await store.upsert(NAME, [Point(pid(n), {}, document) for n, document in enumerate(documents)])
    for filter in filters:
        found = [item.id async for item in scroll_all(store, NAME, filter=filter)]
        assert found == [pid(n) for n, document in enumerate(documents) if matches(filter, document)], filter
        assert await store.count(NAME, filter) == len(found)


_GIVEN = given(
    documents=st.lists(_DOCUMENTS, min_size=1, max_size=6),
    filters=st.lists(_FILTERS, min_size=6, max_size=6),
    indexes=_INDEXES,
)
_ONE_STORE = [HealthCheck.function_scoped_fixture]


@pytest.mark.parametrize("store", ["edge"], indirect=True)
@settings(max_examples=100, deadline=None, suppress_health_check=_ONE_STORE)
@_GIVEN
async def test_a_filter_means_the_same_in_the_store_and_in_python(
    store: VectorStore, documents: list[dict[str, Any]], filters: list[Filter], indexes: dict[str, str]
) -> None:
    await check_filters(store, documents, filters, indexes)


@pytest.mark.parametrize("store", sorted(set(STORES) - {"edge"}), indirect=True)
@settings(max_examples=25, deadline=None, suppress_health_check=_ONE_STORE)
@_GIVEN
async def test_a_filter_means_the_same_on_a_server_and_in_python(
    store: VectorStore, documents: list[dict[str, Any]], filters: list[Filter], indexes: dict[str, str]
) -> None:
    await check_filters(store, documents, filters, indexes)
