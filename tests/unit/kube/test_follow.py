"""The index equals what the API server holds, whatever events come, are lost, or come twice and out of order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpeek_operator.core.errors import UnavailableError
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.resource import Metadata, Resource
from mixpeek_operator.kube.events import Seen
from mixpeek_operator.kube.follow import Follower, Listing


class Server:
    """Objects of one kind with versions, as an API server keeps them."""

    def __init__(self) -> None:
        self.version = 0
        self.objects: dict[str, dict[str, Any]] = {}
        self.away = False

    def put(self, name: str) -> Seen:
        self.version += 1
        known = self.objects.get(name)
        uid = known["metadata"]["uid"] if known else f"uid-{self.version}"
        metadata = {"name": name, "namespace": "org", "uid": uid, "resourceVersion": str(self.version)}
        self.objects[name] = {"metadata": metadata}
        return Seen("Bucket", "MODIFIED" if known else "ADDED", self.objects[name])

    def delete(self, name: str) -> Seen:
        self.version += 1
        gone = self.objects.pop(name)
        metadata = {**gone["metadata"], "resourceVersion": str(self.version)}
        return Seen("Bucket", "DELETED", {"metadata": metadata})

    async def list_all(self) -> Sequence[Listing]:
        if self.away:
            raise UnavailableError("the API server is away")
        return [Listing("Bucket", list(self.objects.values()), self.version)]

    def names(self) -> dict[str, int]:
        return {name: int(item["metadata"]["resourceVersion"]) for name, item in self.objects.items()}


class Silent:
    """A source that says nothing by itself."""

    async def run(self) -> None:
        await asyncio.Event().wait()


def decode(raw: Mapping[str, Any]) -> Resource:
    metadata = raw["metadata"]
    version = int(metadata["resourceVersion"])
    return Resource("Bucket", Metadata(metadata["name"], "org", uid=metadata["uid"], resource_version=version), {})


def follower(
    server: Server, decode: Callable[[Mapping[str, Any]], Resource] = decode, **options: Any
) -> tuple[Follower, ResourceIndex]:
    index = ResourceIndex({})
    made = Follower(index=index, list_all=server.list_all, decode=decode, events=lambda deliver: Silent(), **options)
    return made, index


def held(index: ResourceIndex) -> dict[str, int]:
    found = (index.get(key) for key in index.everything())
    return {item.metadata.name: item.metadata.resource_version for item in found if item is not None}


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


ACTS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["put", "put", "delete", "sync"])), max_size=30)


@given(acts=ACTS, data=st.data())
def test_after_a_listing_it_holds_what_is_there_whatever_was_lost_or_came_in_disorder(
    acts: list[tuple[str, str]], data: st.DataObject
) -> None:
    async def run() -> None:
        server = Server()
        one, index = follower(server)
        late: list[Seen] = []
        for name, act in acts:
            if act == "sync":
                await one.sync()
                continue
            if act == "delete" and name not in server.objects:
                continue
            seen = server.put(name) if act == "put" else server.delete(name)
            match data.draw(st.sampled_from(["now", "lost", "late", "twice"])):
                case "now":
                    one.take(seen)
                case "twice":
                    one.take(seen)
                    one.take(seen)
                case "late":
                    late.insert(data.draw(st.integers(0, len(late))), seen)
        for seen in late:
            one.take(seen)
        await one.sync()
        assert held(index) == server.names()

    asyncio.run(run())


async def test_it_is_complete_before_it_has_started_and_not_while_the_api_server_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mixpeek_operator.kube.follow._RETRY_S", 0.02)
    server = Server()
    server.put("a")
    server.away = True
    one, index = follower(server)
    running = asyncio.create_task(one.run())
    await asyncio.sleep(0.1)
    assert not one.complete.is_set()
    server.away = False
    await asyncio.wait_for(one.complete.wait(), 60)
    assert held(index) == {"a": 1}
    await ended(running)


async def test_what_went_while_nobody_watched_goes_after_kopf_listed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixpeek_operator.kube.follow._SETTLE_S", 0.01)
    server = Server()
    server.put("a")
    seen = server.put("b")
    one, index = follower(server)
    running = asyncio.create_task(one.run())
    await one.complete.wait()
    server.delete("a")
    one.take(Seen("Bucket", None, seen.object))
    for _ in range(100):
        await asyncio.sleep(0.01)
        if held(index) == {"b": 2}:
            break
    assert held(index) == {"b": 2}
    await ended(running)


async def test_one_object_that_cannot_be_read_keeps_no_other_from_being_followed() -> None:
    def picky(raw: Mapping[str, Any]) -> Resource:
        if raw["metadata"]["name"] == "poison":
            raise ValueError("deep")
        return decode(raw)

    server = Server()
    server.put("poison")
    server.put("a")
    one, index = follower(server, picky)
    await one.sync()
    assert held(index) == {"a": 2}
    one.take(server.delete("poison"))
    assert held(index) == {"a": 2}
