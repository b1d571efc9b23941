"""Apply on embedded stores: everything or nothing, whatever fails and whenever the process dies."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import yaml

from mixpeek_operator.core.errors import UnavailableError
from mixpeek_operator.manifest.journal import TABLE

ORGANIZATION = "int_test"
KINDS = ("Namespace", "Bucket", "Collection", "Retriever")


async def _apply(service, text, **options):
    return await service.apply(ORGANIZATION, [("m.yaml", text)], **options)


def _statuses(answer):
    return [(row["resource_type"], row["status"]) for row in answer["resources"]]


def _edited(manifest, **changes):
    body = yaml.safe_load(manifest)
    for path, value in changes.items():
        section, index, *keys = path.split("__")
        target = body[section][int(index)]
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value
    return yaml.safe_dump(body, sort_keys=False)


async def _journal(world):
    return await world.metadata.find(TABLE, ORGANIZATION)


async def test_an_apply_creates_in_order_and_again_changes_nothing(world, manifest):
    service = world.service()

    first = await _apply(service, manifest)
    before = {key: item.metadata.resource_version for key, item in (await world.all()).items()}
    second = await _apply(service, manifest)

    assert first["success"] and first["created_count"] == 4
    assert _statuses(first) == [(kind, "created") for kind in ("namespace", "bucket", "collection", "retriever")]
    assert all(row["resource_id"] for row in first["resources"])
    assert second["success"] and second["skipped_count"] == 4 and second["created_count"] == 0
    assert {row["status"] for row in second["resources"]} == {"exists"}
    assert {key: item.metadata.resource_version for key, item in (await world.all()).items()} == before
    assert await _journal(world) == []


async def test_what_the_engine_found_good_is_not_checked_again(world, manifest):
    looked: list[str] = []
    service = world.service(wants={kind: lambda subject: looked.append(subject.resource.name) for kind in KINDS})

    async def checked(text):
        looked.clear()
        answer = await service.validate(ORGANIZATION, [("m.yaml", text)])
        assert answer["valid"], answer
        return sorted(looked)

    everything = sorted(["shop", "products", "titles", "search"])
    assert await checked(manifest) == everything
    assert (await _apply(service, manifest))["success"]
    assert await checked(manifest) == []
    # A changed one is checked, and so is what refers to it.
    assert await checked(_edited(manifest, collections__0__description="Other")) == ["search", "titles"]
    before = await world.store.get(next(key for key in await _keys(world) if key.kind == "Bucket"))
    await world.stop()
    await world.store.update(before.with_spec({**before.spec, "description": "Changed by somebody else"}))
    assert await checked(_edited(manifest, buckets__0__description="Changed by somebody else")) == [
        "products",
        "titles",
    ]
    answer = await service.validate(ORGANIZATION, [("m.yaml", manifest.replace("feature_search", "no_such_stage"))])
    assert not answer["valid"]


async def _keys(world):
    return [item.key for item in await world.store.find(ORGANIZATION)]


async def test_a_change_is_applied_in_place_and_named(world, manifest):
    service = world.service()
    await _apply(service, manifest)

    changed = _edited(manifest, retrievers__0__cache_config__ttl_seconds=90, buckets__0__description="Other")
    diff = await service.diff(ORGANIZATION, [("m.yaml", changed)])
    preview = await _apply(service, changed, dry_run=True)
    answer = await _apply(service, changed)

    assert {item["name"]: item["details"] for item in diff["differences"]} == {
        "products": 'description: "What we sell" → "Other"',
        "search": "cache_config.ttl_seconds: 60 → 90\ntouches: its cached answers are dropped",
    }
    assert diff["to_create"] == [] and diff["in_system_only"] == []
    assert _statuses(preview) == [
        ("namespace", "exists"), ("bucket", "drifted"), ("collection", "exists"), ("retriever", "drifted"),
    ]  # fmt: skip
    assert answer["updated_count"] == 2 and answer["success"]
    assert (await world.specs())["Retriever/shop.search"]["cache_config"] == {"enabled": True, "ttl_seconds": 90}


async def test_a_dry_run_writes_nothing(world, manifest):
    answer = await _apply(world.service(), manifest, dry_run=True)

    assert answer["would_create_count"] == 4 and answer["dry_run"] and answer["success"]
    assert await world.all() == {}


async def test_a_field_that_cannot_change_refuses_the_whole_apply(world, manifest):
    service = world.service()
    await _apply(service, manifest)
    before = await world.specs()
    changed = _edited(
        manifest,
        retrievers__0__input_schema={"query": {"type": "text"}, "page": {"type": "integer"}},
        buckets__0__description="Other",
    )

    answer = await _apply(service, changed)

    assert not answer["success"]
    row = next(item for item in answer["resources"] if item["name"] == "search")
    assert row["status"] == "failed" and row["refused"]
    assert "m.yaml:" in answer["errors"][0] and "because" in answer["errors"][0]
    assert await world.specs() == before
    assert not (await service.validate(ORGANIZATION, [("m.yaml", changed)]))["valid"]


async def test_modes(world, manifest):
    service = world.service()
    await _apply(service, "namespaces: [{name: shop, description: Old}]")
    before = await world.specs()

    refused = await _apply(service, manifest, mode="create_only")
    kept = await world.specs()
    missing = await _apply(service, manifest, mode="create_missing")

    assert not refused["success"] and refused["failed_count"] == 1 and kept == before
    assert missing["success"] and missing["created_count"] == 3
    namespace = missing["resources"][0]
    assert namespace["status"] == "drifted" and "description" in namespace["drift"]
    assert (await world.specs())["Namespace/shop"]["description"] == "Old"


@pytest.mark.parametrize("broken", ["shop", "products", "titles", "search"])
async def test_a_resource_that_cannot_become_ready_undoes_everything(world, manifest, broken):
    world.broken[broken] = "the model is unknown"
    service = world.service()

    answer = await _apply(service, manifest)

    assert not answer["success"] and answer["rollback_performed"] and answer["rollback_orphans"] == []
    assert next(row for row in answer["resources"] if row["name"] == broken)["status"] == "failed"
    assert "the model is unknown" in answer["errors"][0]
    assert await world.all() == {}
    assert await _journal(world) == []
    world.broken.clear()
    assert (await _apply(service, manifest))["created_count"] == 4


async def test_an_update_is_undone_too(world, manifest):
    service = world.service()
    await _apply(service, manifest)
    before = await world.specs()
    body = yaml.safe_load(_edited(manifest, buckets__0__description="Other", retrievers__0__description="Other"))
    body["buckets"].append({"name": "extra", "namespace": "shop", "schema": {"properties": {"x": {"type": "text"}}}})
    world.broken["extra"] = "no room"

    answer = await _apply(service, yaml.safe_dump(body))

    assert not answer["success"] and answer["rollback_performed"] and answer["rollback_orphans"] == []
    assert await world.specs() == before


class _Failing:
    """A store without transactions, which fails at its nth single write of the first batch."""

    def __init__(self, store, at):
        self._store, self._left = store, at

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def apply_batch(self, create, update, delete):
        done = []
        for resource in create:
            self._step()
            done += await self._store.apply_batch([resource], [], [])
        for resource in update:
            self._step()
            done += await self._store.apply_batch([], [resource], [])
        for key in delete:
            await self._store.apply_batch([], [], [key])
        return done

    def _step(self):
        self._left -= 1
        if self._left == 0:
            raise UnavailableError("the store went away")


@pytest.mark.parametrize("step", range(1, 5))
async def test_a_failure_at_any_step_leaves_nothing(world, manifest, step):
    answer = await _apply(world.service(store=_Failing(world.store, step)), manifest)

    assert not answer["success"] and answer["rollback_performed"]
    assert "the store went away" in answer["errors"][0]
    assert await world.all() == {}


@pytest.mark.parametrize("step", range(1, 5))
async def test_a_failure_at_any_step_restores_updates(world, manifest, step):
    service = world.service()
    await _apply(service, manifest)
    before = await world.specs()
    names = ("namespaces", "buckets", "collections", "retrievers")
    changed = _edited(manifest, **{f"{name}__0__description": "Other" for name in names})

    answer = await _apply(world.service(store=_Failing(world.store, step)), changed)

    assert not answer["success"] and answer["rollback_orphans"] == []
    assert await world.specs() == before


class _Killed(BaseException):
    """Stands for the end of the process."""


class _Dying:
    """Ends the process at the nth write over both stores, before or after the write is on disk."""

    def __init__(self, inner, deadline):
        self._inner, self._deadline = inner, deadline

    def __getattr__(self, name):
        call = getattr(self._inner, name)
        if name not in ("put", "delete", "transact", "apply_batch"):
            return call

        async def counted(*args, **kwargs):
            if self._deadline.left <= 0:
                raise _Killed
            self._deadline.left -= 1
            if self._deadline.left == 0 and not self._deadline.after:
                raise _Killed
            result = await call(*args, **kwargs)
            if self._deadline.left == 0:
                raise _Killed
            return result

        return counted


class _Deadline:
    def __init__(self, left, after):
        self.left, self.after = left, after


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", range(1, 10))
@pytest.mark.parametrize("fails", [False, True], ids=["sound", "broken"])
async def test_a_killed_apply_is_finished_or_undone_at_the_next_start(world, manifest, write, after, fails):
    service = world.service()
    await _apply(service, manifest)
    before = await world.specs()
    body = yaml.safe_load(_edited(manifest, buckets__0__description="Other"))
    body["buckets"].append({"name": "extra", "namespace": "shop", "schema": {"properties": {"x": {"type": "text"}}}})
    text = yaml.safe_dump(body)
    if fails:
        world.broken["extra"] = "no room"
    deadline = _Deadline(write, after)
    dying = world.service(store=_Dying(world.store, deadline), metadata=_Dying(world.metadata, deadline))
    with contextlib.suppress(_Killed):
        # `apply` runs this in a task of its own, which a real kill ends together with the process.
        await dying._apply(ORGANIZATION, [("m.yaml", text)], None, "upsert", False, None, False, False)

    await world.service().recover()

    assert await _journal(world) == []
    specs = await world.specs()
    if specs == before:
        return
    assert not fails
    assert specs["Bucket/shop.products"]["description"] == "Other" and "Bucket/shop.extra" in specs
    again = await _apply(world.service(), text)
    assert again["skipped_count"] == 5


async def test_a_resource_that_is_slow_is_pending(world, manifest):
    world.slow.add("titles")

    answer = await _apply(world.service(wait_s=0.2), manifest)
    strict = await _apply(world.service(), manifest.replace("Titles, embedded", "Other"), deadline_s=0.2)

    row = next(item for item in answer["resources"] if item["name"] == "titles")
    assert answer["success"] and row["status"] == "pending" and row["pending_reason"]
    assert answer["created_count"] == 4 and answer["warnings"]
    assert not strict["success"] and "deadline_seconds=0.2" in strict["errors"][0]
    assert (await world.specs())["Collection/shop.titles"]["description"] == "Other"


async def test_applies_of_one_organization_take_turns(world, manifest):
    service = world.service()

    answers = await asyncio.gather(*(_apply(service, manifest) for _ in range(4)))

    assert sorted(answer["created_count"] for answer in answers) == [0, 0, 0, 4]
    assert all(answer["success"] for answer in answers)


async def test_somebody_elses_change_is_not_overwritten(world, manifest):
    service = world.service()
    await _apply(service, manifest)
    store = world.store

    class Interfering:
        def __getattr__(self, name):
            return getattr(store, name)

        async def apply_batch(self, create, update, delete):
            found = await store.get(update[0].key)
            if found.spec.get("tags") is None:
                found.spec["description"] = "By hand"
                found.spec["tags"] = ["x"]
                await store.update(found)
            return await store.apply_batch(create, update, delete)

    answer = await _apply(world.service(store=Interfering()), manifest.replace("What we sell", "Other"))

    assert not answer["success"] and "someone else" in answer["errors"][0]
    assert (await world.specs())["Bucket/shop.products"]["description"] == "By hand"


async def test_what_is_wrong_is_told_without_touching_anything(world):
    text = "namespaces: [{name: n}]\nbuckets: [{name: b, namespace: m}]\nx: 1\n"

    answer = await _apply(world.service(), text)

    assert not answer["success"] and len(answer["errors"]) >= 2
    assert all(error.startswith("m.yaml:") for error in answer["errors"])
    assert await world.all() == {}


async def test_a_missing_secret_refuses_the_apply(world, manifest):
    text = manifest.replace("description: What we sell", "description: ${{ secrets.NOT_THERE }}")
    service = world.service()

    answer = await _apply(service, text)
    checked = await service.validate(ORGANIZATION, [("m.yaml", text)])
    fine = await _apply(service, text.replace("NOT_THERE", "API_KEY"))

    assert not answer["success"] and "NOT_THERE" in answer["errors"][0]
    assert checked["missing_secrets"] == ["NOT_THERE"] and not checked["valid"]
    assert fine["success"]
    assert "${{ secrets.API_KEY }}" in await service.export(ORGANIZATION)


async def test_conflicts_of_status_writes_do_not_disturb(world, manifest):
    service = world.service()
    await _apply(service, manifest)
    store, calls = world.store, []

    class Busy:
        def __getattr__(self, name):
            return getattr(store, name)

        async def apply_batch(self, create, update, delete):
            calls.append(1)
            if len(calls) < 4:
                found = await store.get(update[0].key)
                await store.update_status(found.key, {**found.status, "object_count": len(calls)})
            return await store.apply_batch(create, update, delete)

    answer = await _apply(world.service(store=Busy()), manifest.replace("What we sell", "Other"))

    assert answer["success"], answer["errors"]
    assert len(calls) >= 4
