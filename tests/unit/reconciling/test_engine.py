from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.reconciling.world import BASE, DENSE, SCOPE, URI, FixedClock, World, condition

from mixpeek_operator.core.errors import RefusedError
from mixpeek_operator.core.resource import Metadata, Resource, ResourceKey, metadata_name
from mixpeek_operator.core.resources import Referrers
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.ports.resources import Change


async def test_everything_declared_becomes_ready(world: World) -> None:
    scope = await world.base()
    await world.settle()
    for kind in ("Bucket", "Collection", "Retriever"):
        for item in await world.resources.find(scope, kind):
            assert condition(item, "Ready")["status"] == "True", (item.key, item.status)
            assert item.status["observed_generation"] == item.metadata.generation
            assert item.status["id"] == item.id
    state = world.vectors.states[scope.namespace_id or ""]
    assert set(state.vectors) == {DENSE.name}
    assert state.payload_indexes["collection_id"] == "keyword"
    assert state.payload_indexes["chunk"] == "integer"
    assert state.labels == {"organization": SCOPE.organization, "namespace_id": scope.namespace_id}
    summaries = await world.resources.get(scope, "Collection", "summaries")
    assert summaries.status["tier"] == 1
    search = await world.resources.get(scope, "Retriever", "search")
    assert search.status["features"] == [URI]


async def test_a_second_visit_writes_nothing(world: World) -> None:
    await world.base()
    await world.settle()
    before = {key: world.index.get(key) for key in world.index.everything()}
    for key in world.index.everything():
        await world.engine.reconcile(key)
    after = {key: await world.store.get(key) for key in world.index.everything()}
    assert {key: item and item.metadata.resource_version for key, item in before.items()} == {
        key: item and item.metadata.resource_version for key, item in after.items()
    }


async def test_a_missing_reference_is_waited_for_by_name(world: World) -> None:
    key = await _custom(world, "Collection", None, {**BASE[1][1], "namespace": "products"})
    await world.engine.reconcile(key)
    found = world.index.get(key)
    assert condition(found, "Ready")["reason"] == "WaitingForBucket"
    assert 'Namespace "products" does not exist' in condition(found, "Ready")["message"]
    assert found is not None and found.id.startswith("col_")
    assert not [item for item in found.status["conditions"] if item["type"] == "Stalled"]


@pytest.mark.parametrize("crash_after", range(6))
async def test_a_crash_after_any_step_changes_nothing_in_the_end(world: World, crash_after: int) -> None:
    """Stop after step k, visit again: the same world as without a crash."""
    made = await world.namespace(feature_extractors=[{"name": "text_extractor", "version": "v1"}])
    _crash(world, "Namespace", crash_after)
    await world.engine.reconcile(made.key)
    _mend(world, "Namespace")
    await world.settle()
    found = world.index.get(made.key)
    assert condition(found, "Ready")["status"] == "True"
    state = world.vectors.states[made.id]
    assert set(state.vectors) == {DENSE.name}
    assert set(state.payload_indexes) == {
        "collection_id",
        "document_id",
        "_internal.lineage.root_object_id",
        "chunk",
    }


@pytest.mark.parametrize("crash_after", range(4))
async def test_a_crash_in_a_deletion_leaves_nothing_behind(world: World, crash_after: int) -> None:
    scope = await world.base()
    namespace_id = scope.namespace_id or ""
    await world.settle()
    bucket = await world.resources.get(scope, "Bucket", "articles")
    await world.metadata.put("objects", namespace_id, "obj_1", {"bucket_id": bucket.id})
    await world.blobs.put(f"{namespace_id}/{bucket.id}/obj_1/text", b"hello")
    await world.cache.set(f"{namespace_id}/x", b"1", ttl_s=60)
    await world.resources.delete(SCOPE, "Namespace", "products")
    for kind in ("Namespace", "Bucket"):
        _crash(world, kind, crash_after)
    for key in sorted(world.index.everything()):
        await world.engine.reconcile(key)
    for kind in ("Namespace", "Bucket"):
        _mend(world, kind)
    await world.settle()
    assert world.index.everything() == []
    assert await world.store.find(SCOPE.organization) == []
    assert world.vectors.states == {}
    assert await world.metadata.count("objects", namespace_id) == 0
    assert await world.blobs.head(f"{namespace_id}/{bucket.id}/obj_1/text") is None
    assert await world.cache.get(f"{namespace_id}/x") is None


@pytest.mark.parametrize(("late", "gone"), [(1, True), (2, True), (100, False)])
async def test_a_deletion_takes_what_is_written_beside_it(
    world: World, late: int, gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await world.namespace()
    await world.settle()
    world.vectors.states.clear()
    delete_where, left = world.metadata.delete_where, late

    async def deleted_and_written_again(table: str, namespace_id: str, filter: Any = None) -> int:
        nonlocal left
        count = await delete_where(table, namespace_id, filter)
        if table == "executions" and left:
            left -= 1
            await world.metadata.put(table, namespace_id, f"exec_{left}", {})
        return count

    monkeypatch.setattr(world.metadata, "delete_where", deleted_and_written_again)
    await world.metadata.put("executions", made.id, "exec_first", {})
    await world.resources.delete(SCOPE, "Namespace", "products")
    await world.engine.reconcile(made.key)
    found = world.index.get(made.key)
    assert (found is None) == gone
    if found is not None:
        assert "internal error" in condition(found, "Ready")["message"]


async def test_a_deletion_waits_for_who_refers_to_it(world: World) -> None:
    scope = await world.base()
    await world.settle()
    bucket = await world.resources.get(scope, "Bucket", "articles")
    await world.resources.delete(scope, "Bucket", "articles", referrers=Referrers.WAIT)
    await world.engine.reconcile(bucket.key)
    waiting = condition(world.index.get(bucket.key), "Ready")
    assert waiting["reason"] == "StillReferredTo"
    assert "Collection/products.article-texts" in waiting["message"]


async def test_a_namespace_ends_when_its_time_is_over(world: World) -> None:
    made = await world.namespace(ttl_seconds=60)
    kept = await world.namespace(name="kept", ttl_seconds=60, management_policy="NoDelete")
    await world.resources.create(Scope(SCOPE.organization, made.id, made.name), *BASE[0])
    await world.settle()
    outcome = await world.engine.reconcile(made.key)
    assert outcome.after_s is not None
    assert 0 < outcome.after_s <= 60
    changed = await world.resources.update(SCOPE, "Namespace", made.name, {"description": "Changed"})
    world.engine._clock = FixedClock(datetime.now(UTC) + timedelta(seconds=59))
    await world.settle()
    assert world.index.get(changed.key) is not None
    world.engine._clock = FixedClock(datetime.now(UTC) + timedelta(seconds=61))
    for key in (made.key, kept.key):
        await world.engine.reconcile(key)
    await world.settle()
    assert [key.name for key in world.index.everything()] == ["kept"]
    assert made.id not in world.vectors.states


@pytest.mark.parametrize(
    ("spec", "left"),
    [({"deletion_policy": "Retain"}, True), ({"management_policy": "NoDelete"}, True), ({}, False)],
)
async def test_what_a_deletion_leaves(world: World, spec: dict[str, Any], left: bool) -> None:
    made = await world.namespace(**spec)
    await world.settle()
    await world.resources.delete(SCOPE, "Namespace", made.name)
    await world.settle()
    assert world.index.get(made.key) is None
    assert (made.id in world.vectors.states) is left
    again = await world.namespace(**spec)
    assert again.id == made.id, "the same declaration finds its data again"


@pytest.mark.parametrize(
    ("policy", "there", "synced", "reason"),
    [
        ("Correct", True, "True", "InSync"),
        ("Report", False, "False", "Drifted"),
        ("Ignore", False, "True", "DriftIgnored"),
    ],
)
async def test_lost_data_is_reported_and_only_restored_when_asked(
    world: World, policy: str, there: bool, synced: str, reason: str
) -> None:
    made = await world.namespace(drift_policy=policy)
    await world.settle()
    world.vectors.states.clear()
    await world.engine.reconcile(made.key)
    found = world.index.get(made.key)
    assert (made.id in world.vectors.states) is there
    assert condition(found, "Synced")["status"] == synced
    assert condition(found, "Synced")["reason"] == reason
    assert condition(found, "Ready")["status"] == str(there)
    events = [event.reason for event in await world.store.events(made.key)]
    assert ("DriftFound" in events) is there
    assert found is not None
    assert ("data_lost_at" in found.status) is there


async def test_observe_touches_nothing(world: World) -> None:
    made = await world.namespace(management_policy="Observe")
    await world.engine.reconcile(made.key)
    assert world.vectors.states == {}
    found = world.index.get(made.key)
    assert condition(found, "Synced")["reason"] == "NotManaged"
    assert condition(found, "Ready")["reason"] == "CollectionMissing"


async def test_no_delete_never_drops_an_index(world: World) -> None:
    indexes = [{"field_name": "price", "type": "float"}]
    made = await world.namespace(management_policy="NoDelete", payload_indexes=indexes)
    await world.settle()
    await world.resources.update(SCOPE, "Namespace", made.name, {"payload_indexes": None})
    await world.settle()
    assert "price" in world.vectors.states[made.id].payload_indexes
    found = world.index.get(made.key)
    assert condition(found, "Synced")["reason"] == "NotManaged"
    assert condition(found, "Ready")["status"] == "True"


async def test_an_absent_backend_is_tried_again_and_said(world: World) -> None:
    made = await world.namespace()
    world.vectors.away = True
    outcome = await world.engine.reconcile(made.key)
    assert outcome.again == "backoff"
    assert condition(world.index.get(made.key), "Synced")["reason"] == "BackendUnavailable"
    world.vectors.away = False
    await world.settle()
    assert condition(world.index.get(made.key), "Ready")["status"] == "True"


async def test_errors_become_conditions(world: World) -> None:
    made = await world.namespace()
    _fail(world, "Namespace", RefusedError("over quota"))
    assert (await world.engine.reconcile(made.key)).again == "slow"
    assert condition(world.index.get(made.key), "Synced")["reason"] == "BackendRefused"
    _mend(world, "Namespace")
    _fail(world, "Namespace", ZeroDivisionError("oops"))
    await world.engine.reconcile(made.key)
    synced = condition(world.index.get(made.key), "Synced")
    assert synced["reason"] == "InternalError"
    assert "err_" in synced["message"] and "oops" not in synced["message"]


async def test_a_plan_that_does_not_shrink_is_our_bug(world: World) -> None:
    made = await world.namespace()
    client = world.clients["Namespace"]

    class Idle:
        observe = staticmethod(client.observe)

        async def act(self, subject: Any, step: Any) -> None:
            return None

    world.clients["Namespace"] = Idle()
    await world.engine.reconcile(made.key)
    assert condition(world.index.get(made.key), "Synced")["reason"] == "InternalError"


async def test_a_custom_resource_with_mistakes_is_stalled(world: World) -> None:
    await world.base()
    body = {"name": "bad", "namespace": "products", "stages": [{"stage_id": "no_such_stage"}]}
    key = await _custom(world, "Retriever", "products", body)
    await world.settle()
    found = world.index.get(key)
    assert condition(found, "Synced")["reason"] == "SpecInvalid"
    assert "no_such_stage" in condition(found, "Ready")["message"]
    assert condition(found, "Stalled")["status"] == "True"


async def test_a_circle_is_told_and_can_be_deleted(world: World) -> None:
    await world.namespace()
    keys = [
        await _custom(
            world,
            "Collection",
            "products",
            {"name": one, "namespace": "products", "source": {"type": "collection", "collection_ids": [other]}},
        )
        for one, other in (("a", "b"), ("b", "c"), ("c", "a"))
    ]
    await world.settle()
    ready = condition(world.index.get(keys[0]), "Ready")
    assert ready["reason"] == "SpecInvalid"
    assert "products.a → Collection/products.b → Collection/products.c → Collection/products.a" in ready["message"]
    await world.resources.commit([], [], keys)
    await world.settle()
    assert [key.kind for key in world.index.everything()] == ["Namespace"]


async def test_a_dedicated_tier_needs_kubernetes(world: World) -> None:
    made = await world.namespace(infrastructure={"compute_tier": "dedicated_gpu"})
    await world.settle()
    found = world.index.get(made.key)
    assert condition(found, "Ready")["reason"] == "ComputeUnavailable"
    assert "Kubernetes" in condition(found, "ComputeReady")["message"]


async def test_a_foreign_collection_is_never_touched(world: World) -> None:
    made = await world.namespace()
    await world.vectors.create_collection(made.id, {}, labels={"organization": "int_two", "namespace_id": made.id})
    await world.settle()
    assert condition(world.index.get(made.key), "Ready")["reason"] == "OwnedByAnother"
    assert world.vectors.states[made.id].payload_indexes == {}


async def test_a_changed_index_is_replaced_and_a_removed_one_dropped(world: World) -> None:
    made = await world.namespace(payload_indexes=[{"field_name": "price", "type": "keyword"}])
    await world.settle()
    patch = {"payload_indexes": [{"field_name": "price", "type": "float"}]}
    await world.resources.update(SCOPE, "Namespace", made.name, patch)
    await world.settle()
    assert world.vectors.states[made.id].payload_indexes["price"] == "float"
    await world.resources.update(SCOPE, "Namespace", made.name, {"payload_indexes": None})
    await world.settle()
    assert "price" not in world.vectors.states[made.id].payload_indexes


async def _custom(world: World, kind: str, namespace: str | None, spec: dict[str, Any]) -> ResourceKey:
    """Create a resource as `kubectl` would: no id, no finalizer, nothing checked."""
    name = metadata_name(namespace, str(spec["name"]))
    made = await world.store.create(Resource(kind, Metadata(name, SCOPE.organization), spec))
    world.index.apply(Change("ADDED", made))
    return made.key


_REAL: dict[tuple[int, str], Any] = {}


def _crash(world: World, kind: str, after: int) -> None:
    """Let the client of a kind die once it has carried out `after` steps."""
    client = world.clients[kind]
    left = [after]

    class Dying:
        observe = staticmethod(client.observe)
        forget = staticmethod(client.forget)

        async def act(self, subject: Any, step: Any) -> None:
            if left[0] == 0:
                raise RuntimeError("killed")
            left[0] -= 1
            await client.act(subject, step)

    _REAL.setdefault((id(world), kind), client)
    world.clients[kind] = Dying()


def _fail(world: World, kind: str, error: Exception) -> None:
    client = world.clients[kind]

    class Failing:
        async def observe(self, subject: Any) -> Any:
            raise error

    _REAL.setdefault((id(world), kind), client)
    world.clients[kind] = Failing()


def _mend(world: World, kind: str) -> None:
    world.clients[kind] = _REAL.pop((id(world), kind))


@pytest.mark.parametrize("edited", [False, True])
async def test_a_visit_reads_what_was_declared_until_then_or_says_nothing(world: World, edited: bool) -> None:
    """An edit that comes while the id is given is not in the visit's hands; the queue has to bring it back."""
    key = await _custom(world, "Namespace", None, {"name": "products"})
    give_id = world.store.update
    calls: list[str] = []

    async def update(resource: Resource) -> Resource:
        given = await give_id(resource)
        calls.append("given")
        if edited:
            newer = replace(given.metadata, generation=2, resource_version=given.metadata.resource_version + 1)
            world.index.apply(Change("MODIFIED", replace(given, metadata=newer)))
        return given

    world.store.update = update  # type: ignore[method-assign]
    await world.engine.reconcile(key, reading=lambda: calls.append("reading"))
    assert calls == ["given"] if edited else ["given", "reading"]
