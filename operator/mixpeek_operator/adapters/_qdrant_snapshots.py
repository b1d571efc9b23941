"""Snapshots of a Qdrant server as files on this machine."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import httpx

from mixpeek_operator.adapters._qdrant_calls import Server, translate
from mixpeek_operator.core.errors import MixpeekError, NotFoundError, SpecError, UnavailableError

_BLOCK = 1024 * 1024


async def save(server: Server, physical: str, target: Path) -> None:
    """Write a snapshot of a physical collection to `target`. UnavailableError on a cluster of several nodes."""
    files = server.files()
    await _alone(server)
    made = await server.call(server.client.create_snapshot, physical, wait=True)
    if made is None:
        raise UnavailableError(f"the vector store at {server.host} made no snapshot; try again")
    making = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
    url = f"/collections/{quote(physical, safe='')}/snapshots/{quote(made.name, safe='')}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        async with files.stream("GET", url) as answer:
            if answer.is_error:
                await answer.aread()
            answer.raise_for_status()
            with making.open("wb") as file:
                async for block in answer.aiter_bytes(_BLOCK):
                    file.write(block)
        making.replace(target)
    except httpx.HTTPError as error:
        raise translate(error, server.host) from error
    except OSError as error:
        raise UnavailableError(f"the snapshot cannot be written to {target.name}: {error.strerror}") from error
    finally:
        making.unlink(missing_ok=True)
        await server.call(server.client.delete_snapshot, physical, made.name, wait=True)


async def load(server: Server, physical: str, source: Path) -> None:
    """Make a physical collection of a snapshot. SpecError for another kind of file, NotFoundError for none."""
    files = server.files()
    await _alone(server)
    if not source.is_file():  # noqa: ASYNC240 - one look
        raise NotFoundError(f"the snapshot {source.name} does not exist")
    boundary = uuid.uuid4().hex
    try:
        answer = await files.post(
            f"/collections/{quote(physical, safe='')}/snapshots/upload",
            params={"wait": "true", "priority": "snapshot"},
            content=_form(source, boundary),
            headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
        )
        answer.raise_for_status()
    except httpx.HTTPError as error:
        # What a server says of a file that is no snapshot differs with its version; that the file is wrong does not.
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in (400, 422, 500):
            await _drop(server, physical)
            raise SpecError(f"{source.name} is no snapshot of a vector collection") from error
        raise translate(error, server.host) from error


async def _drop(server: Server, physical: str) -> None:
    await server.call(server.client.delete_collection, physical)


async def _alone(server: Server) -> None:
    """UnavailableError where a snapshot would hold one node's part of the points."""
    try:
        status = await server.call(server.client.cluster_status)
    except MixpeekError as error:
        if isinstance(error.__cause__, NotImplementedError):
            return
        raise
    peers = getattr(status, "peers", None) or {}
    if len(peers) > 1:
        raise UnavailableError(
            f"the vector store at {server.host} is a cluster of {len(peers)} nodes, and a snapshot holds one node's "
            "part; use the cluster's own backups"
        )


async def _form(source: Path, boundary: str) -> AsyncIterator[bytes]:
    """Yield a multipart form with the file in it, block by block."""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="snapshot"; filename="snapshot"\r\n'
    yield f"{head}Content-Type: application/octet-stream\r\n\r\n".encode()
    with source.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
    yield f"\r\n--{boundary}--\r\n".encode()
