"""A scripted primary of a replica set: MongoDB's wire protocol, documents and transactions enough for one adapter.

It answers by its script where that has something for a command, and keeps what it was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import struct
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import bson

Document = dict[str, Any]
Data = dict[str, dict[str, Document]]
_HEADER = struct.Struct("<iiii")
_OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013
_NOBODY: Document = {"ok": 0, "code": 59, "codeName": "CommandNotFound", "errmsg": "no such command"}


class Hangs:
    """A reply that comes when it is let go; `reached` tells that its command is there."""

    def __init__(self) -> None:
        self.reached, self.go = asyncio.Event(), asyncio.Event()


class Drops:
    """The command is carried out and the connection breaks instead of a reply."""


def failure(code: int, *labels: str) -> Document:
    """Return a reply that says why a command failed, as the server labels it."""
    return {"ok": 0, "code": code, "errmsg": f"failed with {code}", "errorLabels": list(labels)}


class ReplicaSet:
    """`data` holds committed documents by collection and `_id`; `open` the data that running transactions see."""

    def __init__(self) -> None:
        self.data: Data = defaultdict(dict)
        self.open: dict[bytes, Data] = {}
        self.script: defaultdict[str, list[Document | Hangs | Drops]] = defaultdict(list)
        self.asked: list[Document] = []
        self.address = ""
        self.away = False
        self._committed: tuple[bytes, int] | None = None

    async def answer(self, command: Document) -> Document | None:
        """Return the reply to a command; None to break the connection."""
        name = next(iter(command))
        if self.away:
            return None
        self.asked.append(command)
        scripted = self.script[name].pop(0) if self.script[name] else None
        if isinstance(scripted, dict):
            if "TransientTransactionError" in scripted.get("errorLabels", ()):
                self.open.pop(command["lsid"]["id"], None)
            return scripted
        if isinstance(scripted, Hangs):
            scripted.reached.set()
            await scripted.go.wait()
        reply = self._run(name, command)
        return None if self.away or isinstance(scripted, Drops) else reply

    def sent(self, *names: str) -> list[Document]:
        """Return the commands of these names, in the order in which they came."""
        return [command for command in self.asked if next(iter(command)) in names]

    def within(self) -> list[str]:
        """Return the names of all commands that were part of a transaction."""
        return [next(iter(command)) for command in self.asked if "txnNumber" in command and "autocommit" in command]

    def _run(self, name: str, command: Document) -> Document:
        if name in ("hello", "ismaster", "isMaster"):
            return self._hello()
        if name in ("ping", "createIndexes", "endSessions"):
            return {"ok": 1}
        if name in ("commitTransaction", "abortTransaction"):
            this = (command["lsid"]["id"], command["txnNumber"])
            staged = self.open.pop(this[0], None)
            if staged is None and (name, this) != ("commitTransaction", self._committed):
                return failure(251, "TransientTransactionError")
            if staged is not None and name == "commitTransaction":
                self.data, self._committed = staged, this
            return {"ok": 1}
        data = self.data
        if command.get("autocommit") is False:
            session = command["lsid"]["id"]
            if command.get("startTransaction"):
                self.open[session] = copy.deepcopy(self.data)
            if session not in self.open:
                return failure(251, "TransientTransactionError")
            data = self.open[session]
        collection = data[command[name]]
        match name:
            case "find":
                batch = [copy.deepcopy(found) for found in collection.values() if _meets(found, command["filter"])]
                return {"ok": 1, "cursor": {"id": 0, "ns": f"mixpeek.{command[name]}", "firstBatch": batch}}
            case "insert":
                collection.update({document["_id"]: document for document in command["documents"]})
                return {"ok": 1, "n": len(command["documents"])}
            case "update":
                changed = sum(_update(collection, each) for each in command["updates"])
                return {"ok": 1, "n": changed, "nModified": changed}
            case "delete":
                queries = [each["q"] for each in command["deletes"]]
                doomed = [id for id, held in collection.items() if any(_meets(held, query) for query in queries)]
                for id in doomed:
                    del collection[id]
                return {"ok": 1, "n": len(doomed)}
        return _NOBODY

    def _hello(self) -> Document:
        return {
            "ok": 1,
            "helloOk": True,
            "isWritablePrimary": True,
            "ismaster": True,
            "setName": "rs",
            "setVersion": 1,
            "hosts": [self.address],
            "primary": self.address,
            "me": self.address,
            "logicalSessionTimeoutMinutes": 30,
            "minWireVersion": 0,
            "maxWireVersion": 21,
            "maxBsonObjectSize": 16 * 2**20,
            "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": 100_000,
        }


@contextlib.asynccontextmanager
async def replica_set() -> AsyncIterator[ReplicaSet]:
    """Serve a replica set of one on a free loopback port until the block ends."""
    made = ReplicaSet()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                length, number, _, kind = _HEADER.unpack(await reader.readexactly(_HEADER.size))
                reply = await made.answer(_command(kind, await reader.readexactly(length - _HEADER.size)))
                if reply is None:
                    break
                writer.write(_framed(kind, number, reply))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made.address = "{}:{}".format(*server.sockets[0].getsockname())
    try:
        yield made
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)
        await server.wait_closed()


def _command(kind: int, body: bytes) -> Document:
    """Return the command in a message; its lists may come as sequences of documents of their own."""
    if kind == _OP_QUERY:
        return bson.decode(body[body.index(b"\0", 4) + 9 :])
    command: Document = {}
    at = 4
    while at < len(body):
        section, at = body[at], at + 1
        size = int.from_bytes(body[at : at + 4], "little")
        part, at = body[at : at + size], at + size
        if section == 0:
            command = {**bson.decode(part), **command}
        else:
            name, _, documents = part[4:].partition(b"\0")
            command[name.decode()] = bson.decode_all(documents)
    return command


def _framed(kind: int, number: int, reply: Document) -> bytes:
    document = bson.encode(reply)
    if kind == _OP_QUERY:
        head, reply_kind = struct.pack("<iqii", 0, 0, 0, 1), _OP_REPLY
    else:
        head, reply_kind = b"\0\0\0\0\0", _OP_MSG
    return _HEADER.pack(_HEADER.size + len(head) + len(document), 0, number, reply_kind) + head + document


def _update(collection: dict[str, Document], change: Document) -> bool:
    for held in collection.values():
        if _meets(held, change["q"]):
            held.update(change["u"].get("$set", {}))
            for name in change["u"].get("$unset", {}):
                held.pop(name, None)
            return True
    return False


def _meets(document: Document, query: Document) -> bool:
    return all(_holds(document, name, wanted) for name, wanted in query.items())


def _holds(document: Document, name: str, wanted: Any) -> bool:
    match wanted:
        case {"$in": values}:
            return document.get(name) in values
        case {"$exists": there}:
            return (name in document) == there
        case {"$lt": limit}:
            return name in document and document[name] < limit
    return bool(document.get(name) == wanted)
