"""Writes and queries in random interleavings, against a model of the truth: no answer is older than what was
acknowledged before it was asked for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import orjson
import pytest
from tests.unit.retrieval.conftest import DENSE, World, letters

from mixpeek_operator.core.links import Links
from mixpeek_operator.ingestion.documents import Documents
from mixpeek_operator.retrieval.dependencies import Dependencies

IDS = [f"d{number}" for number in range(5)]
SEARCH = {
    "stage_id": "feature_search",
    "parameters": {
        "searches": [
            {
                "feature_uri": "mixpeek://text_extractor@v1/text_embedding",
                "query": {"input_mode": "text", "value": "{{INPUT.query}}"},
                "top_k": 50,
            }
        ],
        "final_top_k": 50,
    },
}
KEEP = {
    "stage_id": "attribute_filter",
    "parameters": {"conditions": {"AND": [{"field": "parity", "operator": "eq", "value": "{{INPUT.parity}}"}]}},
}
JOIN = {
    "stage_id": "document_enrich",
    "parameters": {
        "target_collection_id": "other",
        "source_field": "key",
        "target_field": "key",
        "fields_to_merge": ["number"],
        "output_field": "there",
    },
}
NESTED = {
    "stage_id": "document_enrich",
    "parameters": {
        "retriever_id": "{{INPUT.nested}}",
        "retriever_inputs": {"query": "abc"},
        "output_field": "found",
        "multiple": True,
        "limit": 50,
        "cache_behavior": "aggressive",
    },
}


@dataclass
class Version:
    """A number that was, or is being, written under an id; None for its deletion. Times are turns of one counter."""

    number: int | None
    began: int
    ended: int | None = None


@dataclass
class Truth:
    """Every write there was to one collection."""

    turn: int = 0
    written: dict[str, list[Version]] = field(default_factory=lambda: {id: [Version(None, 0, 0)] for id in IDS})

    def tick(self) -> int:
        self.turn += 1
        return self.turn

    def possible(self, id: str, asked: int, answered: int) -> set[int | None]:
        """What a read in that time may see: the last write that ended before it, and all that overlap it."""
        versions = self.written[id]
        settled = [version for version in versions if version.ended is not None and version.ended < asked]
        last = max((version.began for version in settled), default=0)
        return {
            version.number
            for version in versions
            if version.began <= answered and (version.ended is None or version.ended >= last)
        }


class Actors:
    """One collection's writers and everybody's readers."""

    def __init__(self, world: World, dice: random.Random) -> None:
        self.world, self.dice = world, dice
        self.documents = Documents(
            world.vectors, world, world.signatures, world.clock, Links(world.blobs, expires_s=60)
        )
        self.truth = {"mine": Truth(), "other": Truth()}
        self.locks = {(name, id): asyncio.Lock() for name in self.truth for id in IDS}
        self.number = 0
        self.hits = 0

    async def write(self) -> None:
        name, id = self.dice.choice(list(self.truth)), self.dice.choice(IDS)
        truth, full_id = self.truth[name], f"{name}_{id}"
        # Two writers of one document would leave open which of them was last.
        async with self.locks[name, id]:
            self.number += 1
            there = truth.written[id][-1].number is not None
            kind = self.dice.choice(["patch", "replace", "delete", "bulk"] if there else ["create"])
            version = Version(None if kind == "delete" else self.number, truth.tick())
            truth.written[id].append(version)
            body = {"number": self.number, "parity": self.number % 2, "key": id}
            if kind == "create":
                new = {"document_id": full_id, **body, "vectors": {DENSE: letters(id)}}
                await self.documents.create(self.world.scope, name, new)
            elif kind == "patch":
                await self.documents.patch(self.world.scope, name, full_id, body)
            elif kind == "replace":
                await self.documents.update(self.world.scope, name, full_id, body)
            elif kind == "bulk":
                update = {"updates": [{"document_id": full_id, "update_data": body}]}
                await self.documents.batch_update(self.world.scope, name, update)
            else:
                await self.documents.delete(self.world.scope, name, full_id)
            version.ended = truth.tick()

    async def read(self) -> None:
        retriever = self.dice.choice(["all", "odd", "joined", "nested"])
        asked = {name: truth.tick() for name, truth in self.truth.items()}
        request: dict[str, Any] = {"inputs": {"query": "abc", "parity": 1, "nested": "of_other"}}
        if self.dice.random() < 0.1:
            request["skip_cache"] = True
        answer = await self.world.retrieval.answer(self.world.scope, retriever, request)
        self.hits += answer.cached_at is not None
        answered = {name: truth.tick() for name, truth in self.truth.items()}
        found = {item["key"]: item for item in orjson.loads(answer.body)["documents"] if "key" in item}

        def check(name: str, id: str, number: int | None, *, odd: bool = False) -> None:
            possible = self.truth[name].possible(id, asked[name], answered[name])
            if odd:
                possible = {value if value is not None and value % 2 else None for value in possible}
            assert number in possible, f"{retriever}: {name}/{id} is {number}, possible were {possible}"

        for id in IDS:
            document = found.get(id)
            check("mine", id, None if document is None else document["number"], odd=retriever == "odd")
            if document is None:
                continue
            if retriever == "joined":
                check("other", id, document.get("there", {}).get("number"))
            if retriever == "nested":
                inner = {item["key"]: item["number"] for item in document.get("found", [])}
                for other in IDS:
                    check("other", other, inner.get(other))

    async def act(self, turns: int) -> None:
        for _ in range(turns):
            chance = self.dice.random()
            if chance < 0.25:
                await self.write()
            elif chance < 0.28:
                await self.world.retrieval.clear_cache(self.world.scope, "all")
            else:
                await self.read()


Call = TypeVar("Call", bound=Callable[..., Awaitable[Any]])


def dawdling(call: Call, dice: random.Random) -> Call:
    """The same call, before and behind which others get their turns now and then."""

    async def nap() -> None:
        chance = dice.random()
        if chance < 0.3:
            for _ in range(dice.randrange(6)):
                await asyncio.sleep(0)
        elif chance < 0.4:
            await asyncio.sleep(dice.random() / 100)

    async def called(*args: Any, **kwargs: Any) -> Any:
        await nap()
        result = await call(*args, **kwargs)
        await nap()
        return result

    return cast(Call, called)


@pytest.mark.parametrize("seed", range(6))
async def test_no_answer_is_older_than_what_was_acknowledged(
    world: World, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(seed)
    for store, name in (
        (world.metadata, "get_many"),
        (world.metadata, "transact"),
        (world.vectors, "search"),
        (world.vectors, "upsert"),
        (world.cache, "get"),
        (world.cache, "set"),
    ):
        monkeypatch.setattr(store, name, dawdling(getattr(store, name), dice))
    world.add_collection("mine")
    world.add_collection("other")
    inputs = {"query": {"type": "text"}, "parity": {"type": "number"}, "nested": {"type": "text"}}
    kept = {"ttl_seconds": 600, "cache_stage_names": ["feature_search"]}
    for name, stages, collections in (
        ("all", [SEARCH], ("mine",)),
        ("odd", [KEEP, SEARCH], ("mine",)),
        ("joined", [SEARCH, JOIN], ("mine",)),
        ("nested", [SEARCH, NESTED], ("mine",)),
        ("of_other", [SEARCH], ("other",)),
    ):
        world.declare(stages, name=name, collections=collections, inputs=inputs, cache=kept)
    actors = Actors(world, dice)
    await asyncio.gather(*(actors.act(60) for _ in range(5)))
    assert actors.hits > 20, "a test of kept answers needs some"


def test_the_model_knows_what_is_too_old() -> None:
    truth = Truth()
    truth.written["d0"] = [Version(None, 0, 0), Version(1, 1, 2), Version(2, 5, 6), Version(3, 9)]
    assert truth.possible("d0", 3, 4) == {1}
    assert truth.possible("d0", 3, 5) == {1, 2}
    assert truth.possible("d0", 7, 8) == {2}
    assert truth.possible("d0", 7, 10) == {2, 3}


async def test_what_was_read_first_counts_of_marks_taken_at_once() -> None:
    told: list[asyncio.Future[str]] = []

    async def mark(kind: str, identifier: str) -> str:
        told.append(asyncio.get_running_loop().create_future())
        return await told[-1]

    dependencies = Dependencies(mark)
    both = [asyncio.create_task(dependencies.add("collection", "c")) for _ in range(2)]
    await asyncio.sleep(0)
    for future, text in zip(told, ("old", "new"), strict=True):
        future.set_result(text)
    await asyncio.gather(*both)
    assert dependencies.snapshot() == {"collection/c": "old"}


async def test_a_query_by_a_document_depends_on_where_that_document_is(world: World) -> None:
    world.add_collection("mine")
    world.add_collection("other")
    await world.put("mine", [{"document_id": "a", "title": "aaaa"}, {"document_id": "b", "title": "dddd"}])
    await world.put("other", [{"document_id": "o", "title": "aaaa"}])
    query = {"input_mode": "document", "value": "o"}
    by_document = {
        "stage_id": "feature_search",
        "parameters": {
            "searches": [{"feature_uri": "mixpeek://text_extractor@v1/text_embedding", "query": query, "top_k": 1}]
        },
    }
    world.declare([by_document], name="like", collections=("mine",))

    async def first() -> str:
        answer = await world.retrieval.answer(world.scope, "like", {})
        return str(orjson.loads(answer.body)["documents"][0]["document_id"])

    assert [await first(), await first()] == ["a", "a"]
    await world.put("other", [{"document_id": "o", "title": "dddd"}])
    assert await first() == "b"
