"""Documents of a collection are embedded by the same weights, or not written."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mixpeek_operator.core.errors import ConflictError
from mixpeek_operator.extraction.embedders import Embedders

INDEX = "text_extractor_v1_embedding"
OLD, NEW = {INDEX: "mini@aaaaaaaaaaaa"}, {INDEX: "mini@bbbbbbbbbbbb"}


async def test_a_batch_of_other_weights_is_refused_and_writes_nothing(world: Any) -> None:
    bucket = world.bucket()
    world.directory.add("chunks", bucket.id)
    first, second = await world.fill(bucket.id, ["one"]), await world.fill(bucket.id, ["two"])
    world.runner.embedders = OLD
    assert (await world.process(bucket.id, first))["status"] == "COMPLETED"
    world.runner.embedders = NEW
    batch = await world.process(bucket.id, second)
    assert batch["status"] == "FAILED"
    for said in ("'chunks'", OLD[INDEX], NEW[INDEX], "Set the model back", "embed the documents again"):
        assert said in batch["failure_reason"]
    assert [item["text"] for item in world.stored("col_chunks").values()] == ["one"]
    world.runner.embedders = OLD
    assert (await world.process(bucket.id, second))["status"] == "COMPLETED"


async def test_an_empty_collection_takes_other_weights(world: Any) -> None:
    bucket = world.bucket()
    info = world.directory.add("chunks", bucket.id)
    ids = await world.fill(bucket.id, ["one"])
    world.runner.embedders = OLD
    await world.process(bucket.id, ids)
    before = await world.signatures.signature(info)
    (document,) = world.stored("col_chunks").values()
    await world.documents.delete(world.scope, "chunks", document["document_id"])
    world.runner.embedders = NEW
    assert (await world.process(bucket.id, ids))["status"] == "COMPLETED"
    assert await world.signatures.signature(info) != before
    await Embedders(world.metadata, world.vectors, world.clock).check([info], NEW)


async def test_the_embedder_is_part_of_the_signature(world: Any) -> None:
    info = world.directory.add("chunks", world.bucket().id)
    seen = [await world.signatures.signature(info)]
    for embedders in (OLD, NEW):
        await world.signatures.claim(info, embedders)
        seen.append(await world.signatures.signature(info))
        assert (await world.signatures.facts(info))["index_signature"] == seen[-1]
    assert len(set(seen)) == 3


async def test_a_vector_that_joins_later_keeps_what_is_known_of_the_others(world: Any) -> None:
    info = world.directory.add("chunks", world.bucket().id)
    embedders = Embedders(world.metadata, world.vectors, world.clock)
    await asyncio.gather(*(embedders.claim(info, {f"vector_{number}": "mini@a"}) for number in range(4)))
    await embedders.claim(info, {})
    assert await embedders.of(info.namespace_id, info.id) == {f"vector_{number}": "mini@a" for number in range(4)}


async def test_a_search_is_checked_without_a_read_while_what_was_read_is_fresh(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = world.bucket()
    infos = [world.directory.add(name, bucket.id) for name in ("chunks", "other")]
    world.runner.embedders = OLD
    await world.process(bucket.id, await world.fill(bucket.id, ["one"]))
    embedders = Embedders(world.metadata, world.vectors, world.clock)
    reads = []
    get_many = world.metadata.get_many

    async def counted(*arguments: Any) -> Any:
        reads.append(arguments)
        return await get_many(*arguments)

    monkeypatch.setattr(world.metadata, "get_many", counted)
    for _ in range(5):
        await embedders.check(infos, OLD)
    assert len(reads) == 1
    with pytest.raises(ConflictError, match="the query is embedded by mini@bbb") as refused:
        await embedders.check(infos, NEW)
    assert refused.value.code == "embedder_changed"
    assert len(reads) == 2
