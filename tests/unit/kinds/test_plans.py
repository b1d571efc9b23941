"""Plans as plain values: what is wanted and what is there in, steps out."""

from __future__ import annotations

import pytest

from mixpeek_operator.core import vectors
from mixpeek_operator.kinds.bucket import plan as bucket
from mixpeek_operator.kinds.collection import plan as collection
from mixpeek_operator.kinds.namespace import plan as namespace
from mixpeek_operator.kinds.retriever import plan as retriever
from mixpeek_operator.ports.vectors import CollectionState, VectorParams

DENSE = VectorParams("dense", 384)
OWNER = {"organization": "int_one", "namespace_id": "ns_1"}
WANT = namespace.Want("ns_1", {"text": DENSE}, {"price": "float"}, frozenset({"chunk"}), OWNER)


def _have(indexes: dict[str, str], dense: dict[str, VectorParams] | None = None, **labels: str) -> namespace.Have:
    state = CollectionState("ns_1", {"text": DENSE} if dense is None else dense, indexes, 0, labels or OWNER)
    return namespace.Have("ns_1", state)


@pytest.mark.parametrize(
    ("have", "steps", "reason"),
    [
        (
            namespace.Have("ns_1", None),
            ["create vector collection ns_1 with 1 vectors", "create float index on price in ns_1"],
            "nothing is there",
        ),
        (_have({"price": "float"}), [], "all is there"),
        (_have({"price": "float", "chunk": "integer"}), [], "a collection's index is kept"),
        (_have({"price": "float", "_internal.x": "keyword"}), [], "a system's index is kept"),
        (_have({"price": "float", "old": "keyword"}), ["drop index on old in ns_1"], "no longer declared"),
        (
            _have({"price": "keyword"}),
            ["drop index on price in ns_1", "create float index on price in ns_1"],
            "an index of another type is made anew",
        ),
        (_have({"price": "float"}, {}), ["add vector text to ns_1"], "a vector is lacking"),
        (
            _have({"price": "float"}, {"text": VectorParams("dense", 768)}),
            [],
            "a vector of another size cannot be changed; the status says so",
        ),
        (_have({}, {}, organization="int_two"), [], "another's collection is not touched"),
    ],
)
def test_namespace(have: namespace.Have, steps: list[str], reason: str) -> None:
    assert [step.todo() for step in namespace.plan(WANT, have)] == steps, reason


def test_a_namespace_goes_with_the_vector_collection_last() -> None:
    have = namespace.Have("ns_1", _have({}).state, {"objects": 2, "batches": 0})
    assert [type(step).__name__ for step in namespace.plan(None, have)] == [
        "EmptyCache",
        "DeleteFiles",
        "DeleteRecords",
        "DropVectorCollection",
    ]
    assert namespace.plan(None, namespace.Have("ns_1", None, {"objects": 0})) == []


def test_bucket() -> None:
    want = bucket.Want("ns_1/bkt_1/")
    full = bucket.Have("ns_1", "bkt_1", {"objects": 3, "uploads": 0})
    assert bucket.plan(want, full) == []
    assert [step.done() for step in bucket.plan(None, full)] == [
        "Deleted files under ns_1/bkt_1/",
        "Deleted records of bkt_1 (objects)",
    ]
    assert bucket.plan(None, bucket.Have("ns_1", "bkt_1", {"objects": 0})) == []


def test_collection() -> None:
    want = collection.Want("ns_1", {"text": DENSE}, {"chunk": "integer"}, 0)
    assert collection.plan(want, collection.Have("col_1", None)) == []
    empty = CollectionState("ns_1", {}, {}, 0)
    assert collection.plan(want, collection.Have("col_1", empty)) == [
        vectors.AddVector("ns_1", "text", DENSE),
        vectors.CreatePayloadIndex("ns_1", "chunk", "integer"),
    ]
    assert collection.plan(None, collection.Have("col_1", empty, 0)) == []
    assert collection.plan(None, collection.Have("col_1", None, 0, "ns_1")) == [
        collection.DeleteSignature("ns_1", "col_1")
    ]
    assert collection.plan(None, collection.Have("col_1", empty, 7)) == [collection.DeleteDocuments("ns_1", "col_1")]


def test_retriever() -> None:
    have = retriever.Have("ns_1", "ret_1", {"executions": 2, "interactions": 0})
    assert retriever.plan(retriever.Want(()), have) == []
    assert retriever.plan(None, have) == [retriever.DeleteHistory("ns_1", "ret_1", ("executions",))]
    assert retriever.plan(None, retriever.Have("ns_1", "ret_1", {"executions": 0})) == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (VectorParams("dense", 3), VectorParams("dense", 3), True),
        (VectorParams("dense", 3), VectorParams("dense", 4), False),
        (VectorParams("dense", 3), VectorParams("dense", 3, "dot"), False),
        (VectorParams("sparse", None, "dot", "idf"), VectorParams("sparse", None, "cosine", "idf"), True),
        (VectorParams("sparse"), VectorParams("sparse", None, "cosine", "idf"), False),
        (VectorParams("dense", 3), VectorParams("sparse"), False),
    ],
)
def test_vectors_that_fit_each_other(one: VectorParams, other: VectorParams, same: bool) -> None:
    assert vectors.same(one, other) is same
