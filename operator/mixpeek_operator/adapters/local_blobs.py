"""Files on the local file system through obstore, with signed URLs that our own API serves.

obstore's blocking calls run in threads: its own event loop aborts the interpreter when a process ends.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import shutil
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import obstore
import orjson
from obstore.exceptions import BaseError
from obstore.exceptions import NotFoundError as MissingError
from obstore.store import LocalStore

from mixpeek_operator.adapters._blob_keys import CHUNK, FACTS, check
from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.errors import NotFoundError, UnauthorizedError, UnavailableError
from mixpeek_operator.ports.blobs import BlobInfo

_PARTIAL = ".partial/"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a signed URL allows: one method on one key until it expires."""

    method: str
    key: str
    content_type: str | None


class LocalBlobs:
    """Files below `root`; see ports.blobs.BlobStore. `base_url` is where our API can be reached.

    Unless `exclusive`, other processes may be writing below `root`, too.
    """

    def __init__(self, root: Path, signing_key: bytes, base_url: str, clock: Clock, *, exclusive: bool = True) -> None:
        root.mkdir(parents=True, exist_ok=True)
        if exclusive:
            # What a killed process was writing.
            shutil.rmtree(root / _PARTIAL, ignore_errors=True)
        self._store = LocalStore(root)
        self._root = root
        self._signing_key = signing_key
        self._clock = clock
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.base_url = base_url
        """Set again once the port is known."""
        self.upload_headers: Mapping[str, str] = {}

    async def put(self, key: str, data: bytes | AsyncIterator[bytes], *, content_type: str | None = None) -> BlobInfo:
        check(key)
        digest = hashlib.sha256()
        size = 0
        # Written under another name first: a reader never sees half a file.
        partial = f"{_PARTIAL}{uuid.uuid4().hex}"
        try:
            try:
                if isinstance(data, bytes | bytearray | memoryview):
                    digest.update(data)
                    size = len(data)
                    await asyncio.to_thread(obstore.put, self._store, partial, bytes(data))
                else:
                    writer = await asyncio.to_thread(obstore.open_writer, self._store, partial)
                    async for chunk in data:
                        digest.update(chunk)
                        size += len(chunk)
                        await asyncio.to_thread(writer.write, chunk)
                    await asyncio.to_thread(writer.close)
                info = BlobInfo(key, size, digest.hexdigest(), content_type)
                lock = self._locks.setdefault(key, asyncio.Lock())
                async with lock:
                    await asyncio.to_thread(self._publish, partial, info)
            except BaseException:
                await self._forget(partial)
                raise
        except BaseError as error:
            raise _translated(error, key) from error
        return info

    async def get(self, key: str) -> bytes:
        check(key)
        try:
            return await asyncio.to_thread(self._read, key)
        except (BaseError, FileNotFoundError) as error:
            raise _translated(error, key) from error

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        check(key)
        try:
            chunks = iter((await asyncio.to_thread(obstore.get, self._store, key)).stream(min_chunk_size=CHUNK))
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                yield bytes(chunk)
        except (BaseError, FileNotFoundError) as error:
            raise _translated(error, key) from error

    async def head(self, key: str) -> BlobInfo | None:
        check(key)
        try:
            meta = await asyncio.to_thread(obstore.head, self._store, key)
        except (MissingError, FileNotFoundError):
            return None
        except BaseError as error:
            raise _translated(error, key) from error
        try:
            facts = orjson.loads(await asyncio.to_thread(self._read, f"{FACTS}{key}"))
        except (MissingError, FileNotFoundError, orjson.JSONDecodeError):
            facts = {}
        if facts.get("e_tag") != meta["e_tag"]:
            # The process died between the file and its facts; what the file holds counts.
            return await asyncio.to_thread(self._examine, key, facts.get("content_type"))
        return BlobInfo(key, int(meta["size"]), facts["sha256"], facts.get("content_type"))

    async def delete(self, key: str) -> None:
        check(key)
        await self._forget(key)
        await self._forget(f"{FACTS}{key}")

    async def delete_prefix(self, prefix: str) -> int:
        check(prefix)
        try:
            listed = await asyncio.to_thread(self._list, prefix.rstrip("/"))
        except BaseError as error:
            raise _translated(error, prefix) from error
        keys = [key for key in listed if key.startswith(prefix)]
        for key in keys:
            await self.delete(key)
        return len(keys)

    async def upload_url(self, key: str, *, content_type: str | None, expires_s: int) -> str:
        return self._url("PUT", key, content_type, expires_s)

    async def download_url(self, key: str, *, expires_s: int) -> str:
        return self._url("GET", key, None, expires_s)

    def verify(self, token: str, method: str) -> Grant:
        """Return what a token allows. UnauthorizedError when it is forged, expired or for another method."""
        body, _, signature = token.partition(".")
        try:
            given = _unpack(signature)
            payload = _unpack(body)
        except (binascii.Error, ValueError) as error:
            raise UnauthorizedError("the link is not valid", code="signature_invalid") from error
        if not hmac.compare_digest(given, self._signature(payload)):
            raise UnauthorizedError("the link is not valid", code="signature_invalid")
        allowed, key, content_type, until = orjson.loads(payload)
        if allowed != method and not (allowed == "GET" and method == "HEAD"):
            raise UnauthorizedError(f"the link is for {allowed}, not for {method}", code="signature_invalid")
        if self._clock.now().timestamp() >= until:
            raise UnauthorizedError("the link has expired; ask for a new one", code="signature_expired")
        return Grant(allowed, key, content_type)

    async def health(self) -> None:
        probe = ".health"
        try:
            await asyncio.to_thread(obstore.put, self._store, probe, b"ok")
        except BaseError as error:
            raise UnavailableError(f"the blob folder {self._root} cannot be written: {error}") from error

    async def close(self) -> None:
        return None

    async def _forget(self, key: str) -> None:
        try:
            await asyncio.to_thread(obstore.delete, self._store, key)
        except (MissingError, FileNotFoundError):
            return
        except BaseError as error:
            raise _translated(error, key) from error

    def _publish(self, partial: str, info: BlobInfo) -> None:
        obstore.rename(self._store, partial, info.key)
        tag = obstore.head(self._store, info.key)["e_tag"]
        facts = orjson.dumps({"e_tag": tag, "sha256": info.sha256, "content_type": info.content_type})
        obstore.put(self._store, f"{FACTS}{info.key}", facts)

    def _examine(self, key: str, content_type: str | None) -> BlobInfo:
        digest = hashlib.sha256()
        size = 0
        for chunk in obstore.get(self._store, key).stream(min_chunk_size=CHUNK):
            digest.update(chunk)
            size += len(chunk)
        return BlobInfo(key, size, digest.hexdigest(), content_type)

    def _read(self, key: str) -> bytes:
        return bytes(obstore.get(self._store, key).bytes())

    def _list(self, prefix: str) -> list[str]:
        return [str(item["path"]) for page in obstore.list(self._store, prefix=prefix) for item in page]

    def _url(self, method: str, key: str, content_type: str | None, expires_s: int) -> str:
        check(key)
        until = int(self._clock.now().timestamp()) + expires_s
        payload = orjson.dumps([method, key, content_type, until])
        return f"{self.base_url.rstrip('/')}/v1/blobs/{_pack(payload)}.{_pack(self._signature(payload))}"

    def _signature(self, payload: bytes) -> bytes:
        return hmac.new(self._signing_key, payload, hashlib.sha256).digest()


def _translated(error: Exception, key: str) -> NotFoundError | UnavailableError:
    if isinstance(error, MissingError | FileNotFoundError):
        return NotFoundError(f"there is no file {key!r}")
    return UnavailableError(f"the blob folder failed on {key!r}: {error}")


def _pack(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unpack(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
