"""Batches from submit to done: tiers, failures, retries, dedup, cancel, lineage."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from mixpeek import models

from mixpeek_operator.core.errors import (
    ConflictError,
    ModelUnavailableError,
    NotFoundError,
    SpecError,
    UnavailableError,
)
from mixpeek_operator.core.listing import ListQuery
from mixpeek_operator.core.scope import Scope


async def test_two_tiers_with_lineage(world: Any) -> None:
    bucket = world.bucket()
    chunks = world.directory.add("chunks", bucket.id)
    world.directory.add("words", chunks.id, input_mappings={"text": "text"}, field_passthrough=(("title", "title"),))
    ids = await world.fill(bucket.id, ["one\ntwo", "three"])
    batch = await world.process(bucket.id, ids)
    assert batch["status"] == "COMPLETED"
    assert batch["dag_tiers"] == [["col_chunks"], ["col_words"]]
    assert [tier["status"] for tier in batch["tier_tasks"]] == ["COMPLETED", "COMPLETED"]
    assert batch["progress"]["percent"] == 100.0
    assert models.BatchModel.from_dict(batch) is not None
    upstream, below = world.stored("col_chunks"), world.stored("col_words")
    assert {key[0] for key in upstream} == set(ids) and len(upstream) == 3 and len(below) == 3
    document = next(item for item in below.values() if item["text"] == "two")
    shown = await world.documents.get(world.scope, "words", document["document_id"])
    assert shown["title"] == "t0"
    assert shown["root_object_id"] == ids[0]
    assert shown["lineage_path"] == f"{bucket.id}/col_chunks/col_words"
    lineage = shown["_internal"]["lineage"]
    assert lineage["source_type"] == "collection" and lineage["source_collection_id"] == "col_chunks"
    assert [step["collection_id"] for step in lineage["chain"]] == ["col_chunks", "col_words"]
    assert models.DocumentResponse.from_dict(shown) is not None
    answer = await world.documents.lineage(world.scope, "words", document["document_id"])
    assert models.DocumentLineageResponse.from_dict(answer).depth == 2
    tree = await world.derived.decomposition_tree(world.scope, ids[0])
    assert tree["tree"][0]["children"][0]["document_count"] == 2
    assert (await world.derived.of_object(world.scope, ids[0]))["total"] == 4
    task = await world.tasks.get(world.scope, batch["task_id"])
    assert task["status"] == "COMPLETED" and models.TaskResponse.from_dict(task) is not None


async def test_a_bad_object_does_not_sink_the_batch(world: Any) -> None:
    bucket = world.bucket()
    world.directory.add("chunks", bucket.id)
    ids = await world.fill(bucket.id, ["good", "bad", "fine"])
    batch = await world.process(bucket.id, ids)
    assert batch["status"] == "COMPLETED_WITH_ERRORS"
    assert batch["failed_object_count"] == 1
    (failure,) = batch["failed_objects"]
    assert failure["object_id"] == ids[1] and failure["error_type"] == "permanent"
    assert {key[0] for key in world.stored("col_chunks")} == {ids[0], ids[2]}
    assert models.BatchModel.from_dict(batch).failed_objects is not None
    listed = await world.batches.failed_documents(world.scope, bucket.id, batch["batch_id"], tier_num=0)
    assert listed["total"] == 1 and listed["failed_documents"][0]["error_type"] == "ValidationError"
    nothing = await world.batches.retry(world.scope, bucket.id, batch["batch_id"])
    assert nothing["retried_count"] == 0
    await world.objects.update(world.scope, bucket.id, ids[1], {"content": "better"})
    again = await world.batches.retry(world.scope, bucket.id, batch["batch_id"], {"retry_mode": "all"})
    assert again["retried_count"] == 1
    await world.worker().run_until_idle()
    batch = await world.batches.get(world.scope, bucket.id, batch["batch_id"])
    assert batch["status"] == "COMPLETED" and batch["failed_objects"] == []
    assert len(world.stored("col_chunks")) == 3


@pytest.mark.parametrize(("strategy", "rows"), [("skip", 0), ("replace", 2), ("force", 2)])
async def test_the_same_objects_again_make_no_new_documents(world: Any, strategy: str, rows: int) -> None:
    bucket = world.bucket()
    world.directory.add("chunks", bucket.id)
    ids = await world.fill(bucket.id, ["one\ntwo", "three"])
    await world.process(bucket.id, ids)
    before = set(world.vectors.points)
    world.runner.rows.clear()
    batch = await world.process(bucket.id, ids, dedup_strategy=strategy)
    assert batch["status"] == "COMPLETED"
    assert len(world.runner.rows) == rows
    assert set(world.vectors.points) == before


async def test_a_changed_object_is_processed_again_and_its_stale_segments_go(world: Any) -> None:
    bucket = world.bucket()
    chunks = world.directory.add("chunks", bucket.id)
    world.directory.add("words", chunks.id, input_mappings={"text": "text"})
    ids = await world.fill(bucket.id, ["a\nb\nc", "other"])
    await world.process(bucket.id, ids)
    assert len(world.stored("col_chunks")) == len(world.stored("col_words")) == 4
    await world.objects.update(world.scope, bucket.id, ids[0], {"content": "only"})
    world.runner.rows.clear()
    batch = await world.process(bucket.id, ids)
    assert batch["documents_deleted"] == 2
    assert sorted(item["text"] for item in world.stored("col_chunks").values()) == ["only", "other"]
    assert sorted(item["text"] for item in world.stored("col_words").values()) == ["only", "other"]
    assert ids[1] not in world.runner.rows


async def test_a_changed_collection_processes_everything_again(world: Any) -> None:
    bucket = world.bucket()
    made = world.directory.add("chunks", bucket.id)
    ids = await world.fill(bucket.id, ["one"])
    await world.process(bucket.id, ids)
    world.runner.rows.clear()
    world.directory.kept[made.id] = replace(made, config_signature="other")
    await world.process(bucket.id, ids)
    assert world.runner.rows == ids


async def test_an_object_says_what_became_of_it(world: Any) -> None:
    bucket = world.bucket()
    world.directory.add("chunks", bucket.id)
    ids = await world.fill(bucket.id, ["one", "bad", "two", "three"])

    async def statuses() -> list[str]:
        return [(await world.objects.get(world.scope, bucket.id, id))["status"] for id in ids]

    assert await statuses() == ["PENDING"] * 4
    await world.process(bucket.id, ids[:2])
    assert await statuses() == ["COMPLETED", "FAILED", "PENDING", "PENDING"]
    await world.objects.update(world.scope, bucket.id, ids[0], {"title": "other"})
    assert await statuses() == ["PENDING", "FAILED", "PENDING", "PENDING"]
    await world.process(bucket.id, ids)
    assert await statuses() == ["COMPLETED", "FAILED", "COMPLETED", "COMPLETED"]
    world.runner.rows.clear()
    await world.process(bucket.id, ids)
    assert world.runner.rows == [ids[1]], "a status is no content"


async def test_submit_twice_is_harmless_and_a_draft_takes_objects(world: Any) -> None:
    bucket = world.bucket()
    world.directory.add("chunks", bucket.id)
    ids = await world.fill(bucket.id, ["one", "two", "three"])
    batch = await world.batches.create(world.scope, bucket.id, {"object_ids": ids[:1]})
    assert batch["status"] == "DRAFT" and models.BatchModel.from_dict(batch) is not None
    with pytest.raises(NotFoundError, match="obj_nothere"):
        await world.batches.add_objects(world.scope, bucket.id, batch["batch_id"], ["obj_nothere"])
    batch = await world.batches.add_objects(world.scope, bucket.id, batch["batch_id"], ids)
    assert batch["object_ids"] == ids
    first = await world.batches.submit(world.scope, bucket.id, batch["batch_id"])
    second = await world.batches.submit(world.scope, bucket.id, batch["batch_id"])
    assert first == second and first["additional_data"]["batch_id"] == batch["batch_id"]
    with pytest.raises(ConflictError, match="DRAFT"):
        await world.batches.add_objects(world.scope, bucket.id, batch["batch_id"], ids)
    await world.worker().run_until_idle()
    assert len(world.stored("col_chunks")) == 3


async def test_what_cannot_be_submitted_says_why(world: Any) -> None:
    bucket = world.bucket()
    empty = await world.batches.create(world.scope, bucket.id, {})
    with pytest.raises(SpecError, match="no objects"):
        await world.batches.submit(world.scope, bucket.id, empty["batch_id"])
    ids = await world.fill(bucket.id, ["one"])
    lonely = await world.batches.create(world.scope, bucket.id, {"object_ids": ids})
    with pytest.raises(ConflictError, match="no enabled collection"):
        await world.batches.submit(world.scope, bucket.id, lonely["batch_id"])
    with pytest.raises(SpecError, match="dedup_strategy"):
        await world.batches.create(world.scope, bucket.id, {"object_ids": ids, "dedup_strategy": "no"})


async def test_cancel_stops_between_blocks(world: Any) -> None:
    bucket = world.bucket()
    world.directory.add("chunks", bucket.id)
    ids = await world.fill(bucket.id, [f"text {number}" for number in range(100)])
    batch_id = await world.submit(bucket.id, ids)
    blocks = 0

    async def cancel_in_the_third() -> None:
        nonlocal blocks
        blocks += 1
        if blocks == 3:
            task = await world.batches.cancel(world.scope, bucket.id, batch_id)
            assert task["status"] == "CANCELED"

    world.runner.before = cancel_in_the_third
    await world.worker().run_until_idle()
    batch = await world.batches.get(world.scope, bucket.id, batch_id)
    assert batch["status"] == "CANCELED"
    assert 0 < len(world.stored("col_chunks")) < 64
    assert batch["tier_tasks"][0]["status"] == "CANCELED"
    world.runner.before = None
    assert (await world.batches.retry(world.scope, bucket.id, batch_id))["status"] == "PENDING"
    await world.worker().run_until_idle()
    assert (await world.batches.get(world.scope, bucket.id, batch_id))["status"] == "COMPLETED"
    assert len(world.stored("col_chunks")) == 100


async def test_a_model_that_cannot_be_loaded_fails_the_batch_and_says_so(world: Any) -> None:
    bucket = world.bucket()
    chunks = world.directory.add("chunks", bucket.id)
    world.directory.add("words", chunks.id, input_mappings={"text": "text"})
    ids = await world.fill(bucket.id, ["one"])
    world.runner.error = ModelUnavailableError("model x cannot be loaded; set MIXPEEK_MODEL_PATH")
    batch = await world.process(bucket.id, ids)
    assert batch["status"] == "FAILED" and "MIXPEEK_MODEL_PATH" in batch["failure_reason"]
    assert [tier["status"] for tier in batch["tier_tasks"]] == ["FAILED", "SKIPPED"]
    task = await world.tasks.get(world.scope, batch["task_id"])
    assert task["status"] == "FAILED" and "MIXPEEK_MODEL_PATH" in task["error"]
    world.runner.error = None
    await world.batches.retry(world.scope, bucket.id, batch["batch_id"])
    await world.worker().run_until_idle()
    assert (await world.batches.get(world.scope, bucket.id, batch["batch_id"]))["status"] == "COMPLETED"


async def test_a_backend_that_is_away_is_waited_for(world: Any) -> None:
    bucket = world.bucket()
    world.directory.add("chunks", bucket.id)
    ids = await world.fill(bucket.id, ["one", "two"])
    calls = 0

    def away(call: str) -> None:
        nonlocal calls
        calls += call == "upsert"
        if call == "upsert" and calls < 3:
            raise UnavailableError("the vector store is away")

    world.vectors.fail = away
    batch_id = await world.submit(bucket.id, ids)
    for _ in range(4):
        await world.worker().run_until_idle()
        world.clock.shift += world.clock.shift.__class__(seconds=60)
    assert (await world.batches.get(world.scope, bucket.id, batch_id))["status"] == "COMPLETED"
    assert len(world.stored("col_chunks")) == 2


async def test_an_internal_error_is_not_shown(world: Any) -> None:
    bucket = world.bucket()
    world.directory.add("chunks", bucket.id)
    ids = await world.fill(bucket.id, ["one"])
    world.runner.error = ZeroDivisionError("secret detail")
    batch = await world.process(bucket.id, ids)
    assert batch["status"] == "FAILED" and "secret" not in batch["failure_reason"]
    assert "log_" in batch["failure_reason"]


async def test_trigger_a_bucket_fed_and_a_collection_fed_collection(world: Any) -> None:
    bucket = world.bucket()
    chunks = world.directory.add("chunks", bucket.id)
    await world.fill(bucket.id, ["one\ntwo", "three"])
    answer = await world.batches.trigger_collection(world.scope, "chunks", {})
    assert models.TriggerCollectionResponse.from_dict(answer).object_count == 2
    await world.worker().run_until_idle()
    world.directory.add("words", chunks.id, input_mappings={"text": "text"})
    answer = await world.batches.trigger_collection(world.scope, "words")
    assert answer["document_count"] == 3 and answer["source_collection_ids"] == ["col_chunks"]
    await world.worker().run_until_idle()
    assert sorted(item["text"] for item in world.stored("col_words").values()) == ["one", "three", "two"]
    paths = {item["_internal"]["lineage"]["path"] for item in world.stored("col_words").values()}
    assert paths == {f"{bucket.id}/col_chunks/col_words"}
    with pytest.raises(SpecError, match="does not feed"):
        world.bucket("more")
        await world.batches.trigger_collection(world.scope, "chunks", {"include_buckets": ["more"]})


async def test_passthrough_takes_everything_and_vectors_along(world: Any) -> None:
    bucket = world.bucket()
    chunks = world.directory.add("chunks", bucket.id, field_passthrough=(), include_all_source_fields=True)
    vector = chunks.features[0].index.name
    world.directory.add(
        "copies",
        chunks.id,
        extractor="passthrough_extractor",
        features=(),
        input_mappings={},
        field_passthrough=((vector, ""), ("payload.price", "cost"), ("title", "head.line")),
    )
    made = await world.objects.create(
        world.scope, bucket.id, {"content": "hello", "title": "T", "price": 3, "metadata": {"lang": "en"}}
    )
    await world.process(bucket.id, [made["object_id"]])
    (chunk,) = world.stored("col_chunks").values()
    assert chunk["metadata"] == {"lang": "en"} and chunk["price"] == 3
    (copy,) = [point for point in world.vectors.points.values() if point.payload["collection_id"] == "col_copies"]
    assert copy.payload["cost"] == 3 and copy.payload["head"] == {"line": "T"}
    assert list(copy.vectors[vector]) == [5.0, 1.0]


async def test_blobs_feed_the_extractor(world: Any) -> None:
    bucket = world.bucket("files", content={"type": "text"}, title={"type": "string"})
    world.directory.add("chunks", bucket.id, input_mappings={"text": "payload.content"})
    bodies = [
        {"blobs": [{"property": "content", "type": "text", "data": "plain"}]},
        {"blobs": [{"property": "content", "type": "text", "data": "data:text/plain;base64,aGVsbG8="}]},
        {"blobs": [{"property": "content", "type": "text", "data": "x" * 70_000}]},
        {"blobs": [{"property": "content", "type": "text", "data": "data:application/octet-stream;base64,/w=="}]},
        {},
    ]
    made = await world.objects.create_many(world.scope, bucket.id, bodies)
    ids = [item["object_id"] for item in made["succeeded"]]
    batch = await world.process(bucket.id, ids)
    assert batch["status"] == "COMPLETED_WITH_ERRORS"
    assert {item["object_id"] for item in batch["failed_objects"]} == set(ids[3:])
    texts = {item["text"] for item in world.stored("col_chunks").values()}
    assert texts == {"plain", "hello", "x" * 70_000}


async def test_signature_changes_with_every_write(world: Any) -> None:
    bucket = world.bucket()
    info = world.directory.add("chunks", bucket.id)
    ids = await world.fill(bucket.id, ["one"])
    seen = [await world.signatures.signature(info)]
    await world.process(bucket.id, ids)
    seen.append(await world.signatures.signature(info))
    assert await world.signatures.signature(info) == seen[-1]
    (document,) = world.stored("col_chunks").values()
    await world.documents.patch(world.scope, "chunks", document["document_id"], {"title": "new"})
    seen.append(await world.signatures.signature(info))
    await world.objects.delete(world.scope, bucket.id, ids[0])
    seen.append(await world.signatures.signature(info))
    assert len(set(seen)) == 4 and world.stored("col_chunks") == {}


async def test_the_worker_runs_until_stopped_and_hands_back(world: Any) -> None:
    bucket = world.bucket()
    world.directory.add("chunks", bucket.id)
    ids = await world.fill(bucket.id, [f"text {number}" for number in range(64)])
    batch_id = await world.submit(bucket.id, ids)
    reached = asyncio.Event()

    async def hold() -> None:
        reached.set()
        await asyncio.sleep(30)

    world.runner.before = hold
    stop = asyncio.Event()
    running = asyncio.create_task(world.worker().run(stop))
    await asyncio.wait_for(reached.wait(), 60)
    stop.set()
    await asyncio.wait_for(running, 60)
    world.runner.before = None
    assert await world.worker().run_until_idle() == 1
    batch = await world.batches.get(world.scope, bucket.id, batch_id)
    assert batch["status"] == "COMPLETED" and batch["deploy_resubmit_count"] == 1
    assert len(world.stored("col_chunks")) == 64


async def test_a_slow_block_keeps_its_lease(world: Any) -> None:
    bucket = world.bucket()
    world.directory.add("chunks", bucket.id)
    ids = await world.fill(bucket.id, ["one"])
    batch_id = await world.submit(bucket.id, ids)

    async def slow() -> None:
        await asyncio.sleep(3.0)

    world.runner.before = slow
    # Long enough that a loaded machine renews it in time, shorter than the block takes.
    options = {"lease_s": 1.5}
    one, other = world.worker(**options), world.worker(**options)
    stop = asyncio.Event()
    running = [asyncio.create_task(item.run(stop)) for item in (one, other)]
    async with asyncio.timeout(60):
        while (await world.batches.get(world.scope, bucket.id, batch_id))["status"] != "COMPLETED":  # noqa: ASYNC110 - a state in a store is polled
            await asyncio.sleep(0.05)
    stop.set()
    await asyncio.gather(*running)
    assert world.runner.rows == ids
    assert (await world.batches.get(world.scope, bucket.id, batch_id))["status"] == "COMPLETED"


async def test_a_collection_deleted_while_its_batch_runs_gets_no_more_documents(world: Any) -> None:
    bucket = world.bucket()
    world.directory.add("chunks", bucket.id)
    ids = await world.fill(bucket.id, [f"text {number}" for number in range(80)])
    batch_id = await world.submit(bucket.id, ids)
    blocks = 0

    async def delete_in_the_third() -> None:
        nonlocal blocks
        blocks += 1
        if blocks == 3:
            world.directory.kept.clear()

    world.runner.before = delete_in_the_third
    await world.worker().run_until_idle()
    batch = await world.batches.get(world.scope, bucket.id, batch_id)
    assert batch["status"] == "FAILED" and "was deleted" in batch["failure_reason"]
    assert len(world.stored("col_chunks")) < 48


async def test_tasks_are_listed_per_organization_and_stop_their_batch(world: Any) -> None:
    bucket = world.bucket()
    world.directory.add("chunks", bucket.id)
    ids = await world.fill(bucket.id, ["one"])
    batch_id = await world.submit(bucket.id, ids)
    everywhere = Scope(world.scope.organization)
    page = await world.tasks.list(everywhere, ListQuery(include_total=True), status="PENDING")
    assert page.total == 1 and page.items[0]["additional_data"]["batch_id"] == batch_id
    assert (await world.tasks.list(Scope("int_other"), ListQuery())).items == []
    task_id = page.items[0]["task_id"]
    assert await world.tasks.cancel(everywhere, task_id)
    assert not await world.tasks.cancel(everywhere, task_id)
    assert not await world.tasks.cancel(everywhere, "task_none")
    assert (await world.batches.get(world.scope, None, batch_id))["status"] == "CANCELED"
    assert (await world.tasks.get(everywhere, task_id))["status"] == "CANCELED"
    assert await world.worker().run_until_idle() == 0
    with pytest.raises(SpecError, match="unknown status"):
        await world.tasks.list(everywhere, ListQuery(), status="DONE")
    listed = await world.batches.list(world.scope, bucket.id, ListQuery(limit=5), status="CANCELED")
    assert [item["batch_id"] for item in listed.items] == [batch_id]
    logs = await world.batches.logs(world.scope, bucket.id, batch_id)
    assert logs["tiers"][0]["tier_num"] == 0
    assert (await world.batches.delete(world.scope, bucket.id, batch_id))["success"]
    with pytest.raises(NotFoundError):
        await world.batches.get(world.scope, bucket.id, batch_id)
