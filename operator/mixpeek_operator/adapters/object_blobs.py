"""Files in object storage (S3, GCS, Azure, and what speaks S3: R2, MinIO) through obstore, with links it signs itself.

A file becomes visible with the last byte, for the store completes an upload or drops it. What is PUT to a link passes
us by: its sha256 is computed when it is first asked for, and kept beside it for as long as the file stays the same.
obstore's blocking calls run in threads: its own event loop aborts the interpreter when a process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit
from weakref import WeakValueDictionary

import obstore
import orjson
from obstore.exceptions import (
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.exceptions import NotFoundError as MissingError
from obstore.store import from_url

from mixpeek_operator.adapters._blob_keys import CHUNK, FACTS, check
from mixpeek_operator.core.errors import (
    BadRequestError,
    MixpeekError,
    NotFoundError,
    RefusedError,
    SpecError,
    UnavailableError,
)
from mixpeek_operator.ports.blobs import BlobInfo

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

T = TypeVar("T")
_LONGEST_S = 7 * 24 * 3600
"""Seconds; what the stores allow at most for the life of a link."""
_RETRY: RetryConfig = {
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2},
}
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|specified bucket does not exist")
_NO_ACCESS = re.compile(r"403 Forbidden|401 Unauthorized")
"""In the text only: obstore tells these like any other failure where a list meets them."""
_S3 = ("s3", "s3a")
_AZURE = ("az", "azure", "abfs", "abfss")
_SCHEMES = (*_S3, "gs", *_AZURE)


class ObjectBlobs:
    """Files below `url` (`s3://bucket/prefix`, `gs://…`, `az://…`); see ports.blobs.BlobStore.

    `endpoint_url` is that of an S3-compatible store, or of another cloud of the provider. Credentials come from the
    provider's usual chain: environment, files, the machine's or pod's own identity.
    """

    def __init__(self, url: str, *, endpoint_url: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES or not parts.netloc or parts.query or ":" in parts.netloc:
            raise SpecError("the URL of the object storage is s3://bucket/prefix, gs://bucket/prefix or az://container")
        self._place = f"{parts.scheme}://{parts.netloc}{parts.path}"
        if endpoint_url:
            self._place += f" at {urlsplit(endpoint_url).netloc.rpartition('@')[2]}"
        options: ClientConfig = {"connect_timeout": "3s", "timeout": "5m"}
        config: dict[str, Any] = {}
        if endpoint_url:
            config["base_url" if parts.scheme == "gs" else "endpoint"] = endpoint_url.rstrip("/")
            if parts.scheme in _S3:
                # Not all that speak S3 know the request that deletes many at once.
                config["disable_bulk_delete"] = True
            options["allow_http"] = endpoint_url.startswith("http://")
        self._azure = parts.scheme in _AZURE
        self._named = str if parts.scheme in _S3 else _plain
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.upload_headers: Mapping[str, str] = {"x-ms-blob-type": "BlockBlob"} if self._azure else {}
        try:
            # The type says nothing of the store, for the URL chooses it.
            self._store: Any = from_url(url, config=config, client_options=options, retry_config=_RETRY)  # type: ignore[call-overload]
        except (BaseError, ValueError) as error:
            raise SpecError(f"the object storage {self._place} cannot be configured: {error}") from error

    async def put(self, key: str, data: bytes | AsyncIterator[bytes], *, content_type: str | None = None) -> BlobInfo:
        check(key)
        path, attributes = self._named(key), {"Content-Type": content_type} if content_type else None
        if isinstance(data, bytes | bytearray | memoryview):
            data = bytes(data)
            digest, size = hashlib.sha256(data), len(data)
            result = await self._call(key, obstore.put, self._store, path, data, attributes=attributes)
        else:
            # Pulled from a thread, so that obstore drops the upload when the source breaks off.
            source = _Pulled(data)
            try:
                async with self._turn(key):
                    result = await self._call(key, obstore.put, self._store, path, source, attributes=attributes)
            except MixpeekError as error:
                raise source.failure or error from error
            finally:
                source.stop()
            digest, size = source.digest, source.size
        info = BlobInfo(key, size, digest.hexdigest(), content_type)
        await self._remember(info, result["e_tag"])
        return info

    async def get(self, key: str) -> bytes:
        check(key)
        return await self._call(key, lambda: bytes(obstore.get(self._store, self._named(key)).bytes()))

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        check(key)
        result = await self._call(key, obstore.get, self._store, self._named(key))
        chunks = iter(result.stream(min_chunk_size=CHUNK))
        while (chunk := await self._call(key, next, chunks, None)) is not None:
            yield bytes(chunk)

    async def head(self, key: str) -> BlobInfo | None:
        check(key)
        try:
            result = await self._call(key, obstore.get, self._store, self._named(key), options={"head": True})
        except NotFoundError:
            return None
        kind = result.attributes.get("Content-Type")
        try:
            path = FACTS + self._named(key)
            facts = orjson.loads(await self._call(key, lambda: bytes(obstore.get(self._store, path).bytes())))
        except NotFoundError:
            facts = {}
        if facts.get("e_tag") == result.meta["e_tag"]:
            return BlobInfo(key, int(result.meta["size"]), facts["sha256"], facts["content_type"] or kind)
        try:
            info, tag = await self._call(key, self._examine, key)
        except NotFoundError:
            return None
        await self._remember(info, tag)
        return info

    async def delete(self, key: str) -> None:
        check(key)
        for each in (key, FACTS + key):
            try:
                await self._call(key, obstore.delete, self._store, self._named(each))
            except NotFoundError:
                continue

    async def delete_prefix(self, prefix: str) -> int:
        check(prefix)
        deleted = await self._call(prefix, self._delete_below, self._named(prefix))
        await self._call(prefix, self._delete_below, FACTS + self._named(prefix))
        return deleted

    async def upload_url(self, key: str, *, content_type: str | None, expires_s: int) -> str:
        return await self._sign("PUT", key, expires_s)

    async def download_url(self, key: str, *, expires_s: int) -> str:
        return await self._sign("GET", key, expires_s)

    async def health(self) -> None:
        # A list needs the bucket and valid credentials, and costs nothing when there is nothing.
        await self._call(".health", lambda: next(iter(obstore.list(self._store, prefix=".health")), None))

    async def close(self) -> None:
        return None

    async def _call(self, key: str, work: Callable[..., T], *arguments: Any, **options: Any) -> T:
        try:
            return await asyncio.to_thread(work, *arguments, **options)
        except (BaseError, FileNotFoundError) as error:
            # Not chained, and without its text: both may hold a URL with a signature.
            raise _translated(error, key, self._place) from None

    def _turn(self, key: str) -> contextlib.AbstractAsyncContextManager[None]:
        """The blocks of two uploads of one name are the same to Azure, so that they would mix."""
        return self._turns.setdefault(key, asyncio.Lock()) if self._azure else contextlib.nullcontext()

    async def _sign(self, method: Any, key: str, expires_s: int) -> str:
        check(key)
        if expires_s > _LONGEST_S:
            raise BadRequestError(f"a link lasts {_LONGEST_S} seconds at most, not {expires_s}")
        life = timedelta(seconds=expires_s)
        url: str = await self._call(key, obstore.sign, self._store, method, self._named(key), life)
        return url

    async def _remember(self, info: BlobInfo, tag: str | None) -> None:
        facts = orjson.dumps({"e_tag": tag, "sha256": info.sha256, "content_type": info.content_type})
        await self._call(info.key, obstore.put, self._store, FACTS + self._named(info.key), facts)

    def _examine(self, key: str) -> tuple[BlobInfo, str | None]:
        result = obstore.get(self._store, self._named(key))
        digest, size = hashlib.sha256(), 0
        for chunk in result.stream(min_chunk_size=CHUNK):
            digest.update(chunk)
            size += len(chunk)
        return BlobInfo(key, size, digest.hexdigest(), result.attributes.get("Content-Type")), result.meta["e_tag"]

    def _delete_below(self, prefix: str) -> int:
        deleted = 0
        for page in obstore.list(self._store, prefix=prefix.rstrip("/"), chunk_size=1000):
            keys = [str(item["path"]) for item in page if str(item["path"]).startswith(prefix)]
            if keys:
                obstore.delete(self._store, keys)
                deleted += len(keys)
        return deleted


class _Pulled(Iterator[bytes]):
    """Chunks of an asynchronous source for a thread, hashed on the way; made in the loop of the source."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self.failure: BaseException | None = None
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._waiting: Future[bytes | None] | None = None
        self._stopped = False

    def stop(self) -> None:
        """End a pull that nobody waits for any more."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.cancel()

    def __next__(self) -> bytes:
        while True:
            if self._stopped:
                raise ConnectionAbortedError("the upload was given up")
            self._waiting = asyncio.run_coroutine_threadsafe(self._pull(), self._loop)
            try:
                chunk = self._waiting.result()
            except (Exception, CancelledError) as error:
                self.failure = error
                raise
            if chunk is None:
                raise StopIteration
            if chunk:
                self.digest.update(chunk)
                self.size += len(chunk)
                return chunk

    async def _pull(self) -> bytes | None:
        return await anext(self._source, None)


def _plain(key: str) -> str:
    """Return a name that a URL holds as it is, one for each key.

    Of other names obstore's links are wrong: those to Azure are signed over the name as the URL spells it, where Azure
    reads the name itself, and those to GCS spell some letters in two ways or not at all.
    """
    return quote(key, safe="/").replace("~", "%7E").replace("%", "~")


def _translated(error: Exception, key: str, place: str) -> MixpeekError:
    if _NO_BUCKET.search(str(error)):
        return RefusedError(f"{place} does not exist; create it")
    if isinstance(error, MissingError | FileNotFoundError):
        return NotFoundError(f"there is no file {key!r}")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or _NO_ACCESS.search(str(error)):
        return RefusedError(f"{place} refuses these credentials")
    return UnavailableError(f"{place} failed on {key!r} ({type(error).__name__})")
