"""Whatever the order in which resources arrive or go, the world ends up the same."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.reconciling.world import BASE, SCOPE, World, condition

from mixpeek_operator.core.resource import Metadata, Resource, metadata_name
from mixpeek_operator.ports.resources import Change

DECLARED: list[tuple[str, dict[str, Any]]] = [
    ("Namespace", {"name": "products", "payload_indexes": [{"field_name": "price", "type": "float"}]}),
    *((kind, {**body, "namespace": "products"}) for kind, body in BASE),
    (
        "Cluster",
        {
            "name": "topics",
            "namespace": "products",
            "cluster_type": "attribute",
            "collection_ids": ["article_texts"],
            "attribute_config": {"attributes": ["category"]},
        },
    ),
    (
        "Taxonomy",
        {
            "name": "labels",
            "namespace": "products",
            "config": {
                "taxonomy_type": "flat",
                "retriever_id": "search",
                "source_collection": {"collection_id": "article_texts"},
                "input_mappings": [{"input_key": "query", "path": "title"}],
            },
        },
    ),
]
ORDERS = st.permutations(range(len(DECLARED)))
SLOW = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


async def _apply(world: World, order: list[int], *, visit_between: bool) -> None:
    """Arrive one by one as custom resources do, visited in between or only in the end."""
    for position in order:
        kind, spec = DECLARED[position]
        name = metadata_name(spec.get("namespace"), spec["name"])
        made = await world.store.create(Resource(kind, Metadata(name, SCOPE.organization), dict(spec)))
        world.index.apply(Change("ADDED", made))
        if visit_between:
            await world.engine.reconcile(made.key)
    await world.settle()


async def _world(order: list[int], *, visit_between: bool = True, goes: list[int] | None = None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        try:
            await _apply(world, order, visit_between=visit_between)
            if goes is None:
                for key in world.index.everything():
                    assert condition(world.index.get(key), "Ready")["status"] == "True", world.index.get(key)
            for position in goes or ():
                kind, spec = DECLARED[position]
                found = world.index.named(
                    SCOPE.organization, kind, None if kind == "Namespace" else "products", spec["name"]
                )
                assert found is not None
                await world.resources.commit([], [], [found.key])
                await world.engine.reconcile(found.key)
            await world.settle()
            return world.snapshot()
        finally:
            await world.close()


_EXPECTED: list[dict[str, Any]] = []


@SLOW
@given(order=ORDERS, visit_between=st.booleans())
def test_any_order_of_arrival_gives_the_same_world(order: list[int], visit_between: bool) -> None:
    if not _EXPECTED:
        _EXPECTED.append(asyncio.run(_world(list(range(len(DECLARED))))))
    assert asyncio.run(_world(order, visit_between=visit_between)) == _EXPECTED[0]


@SLOW
@given(order=ORDERS)
def test_any_order_of_deletion_leaves_nothing(order: list[int]) -> None:
    left = asyncio.run(_world(list(range(len(DECLARED))), goes=order))
    assert left == {"declared": {}, "outside": {}, "documents": {}}
