from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from mixpeek_operator.core.catalog import Catalog
from mixpeek_operator.core.lifecycle import Backends, Refs, Subject
from mixpeek_operator.core.resource import ID_ANNOTATION, Metadata, Resource
from mixpeek_operator.kinds.collection.client import CollectionClient
from mixpeek_operator.kinds.collection.plan import Have
from mixpeek_operator.ports.vectors import CollectionState


class Vectors:
    """A server whose number of points as a whole may lag behind."""

    def __init__(self, points: int) -> None:
        self.state = CollectionState("ns_1", {}, {}, points, {})
        self.max_age_s = -1.0

    async def describe(self, collection: str, *, max_age_s: float = 0.0) -> CollectionState:
        self.max_age_s = max_age_s
        return self.state

    async def count(self, collection: str, filter: Any) -> int:
        return 3


class Metadatas:
    async def get_many(self, table: str, namespace_id: str, ids: list[str]) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(("points", "deleting", "documents"), [(0, False, 0), (7, False, 3), (0, True, 3)])
async def test_documents_that_are_to_go_are_counted_whatever_the_whole_says(
    points: int, deleting: bool, documents: int
) -> None:
    assert (await observed(Vectors(points), deleting=deleting)).documents == documents


@pytest.mark.parametrize(
    ("reconciled", "deleting", "old"), [(False, False, True), (True, False, False), (False, True, False)]
)
async def test_only_for_a_new_collection_an_older_look_will_do(reconciled: bool, deleting: bool, old: bool) -> None:
    vectors = Vectors(0)
    await observed(vectors, deleting=deleting, status={"conditions": [{"type": "Ready"}]} if reconciled else {})
    assert (vectors.max_age_s > 0) is old


async def observed(vectors: Vectors, *, deleting: bool, status: dict[str, Any] | None = None) -> Have:
    gone = datetime(2026, 1, 1, tzinfo=UTC) if deleting else None
    metadata = Metadata("shop.one", "org", annotations={ID_ANNOTATION: "col_1"}, deletion_timestamp=gone)
    resource = Resource("Collection", metadata, {"namespace": "shop", "name": "one"}, status or {})
    stores = cast("Backends", type("Stores", (), {"vectors": vectors, "metadata": Metadatas()}))
    return await CollectionClient(stores).observe(Subject(resource, Refs(), cast("Catalog", None), "ns_1"))
