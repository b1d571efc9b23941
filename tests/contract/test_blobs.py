"""What every BlobStore does; an adapter joins with one line in `STORES`."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mixpeek_operator.adapters.local_blobs import LocalBlobs
from mixpeek_operator.core.errors import BadRequestError, MixpeekError, NotFoundError, UnauthorizedError
from mixpeek_operator.ports.blobs import BlobStore


class HandClock:
    """Time that moves only when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


def local(path: Path, clock: HandClock) -> LocalBlobs:
    return LocalBlobs(path / "blobs", b"k" * 32, "http://localhost:1/", clock)


STORES: dict[str, Callable[[Path, HandClock], BlobStore]] = {"local": local}
KEY = "ns_a/bkt_1/obj_1/my file (ü).txt"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock) -> AsyncIterator[BlobStore]:
    made = STORES[request.param](tmp_path, clock)
    yield made
    await made.close()


def files(path: Path) -> set[Path]:
    return {found for found in path.rglob("*") if found.is_file()}


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize("data", [b"", b"hello", bytes(range(256)) * 20_000])
async def test_what_is_put_is_read_back(store: BlobStore, data: bytes) -> None:
    info = await store.put(KEY, data, content_type="text/plain")
    assert (info.key, info.size, info.sha256) == (KEY, len(data), hashlib.sha256(data).hexdigest())
    assert await store.get(KEY) == data
    assert b"".join([part async for part in store.stream(KEY)]) == data
    assert await store.head(KEY) == info


async def test_a_stream_is_hashed_on_the_way_and_overwrites(store: BlobStore) -> None:
    await store.put(KEY, b"before")
    parts = [b"a" * 3_000_000, b"", b"b" * 5]
    info = await store.put(KEY, chunks(*parts))
    assert info.size == 3_000_005
    assert info.sha256 == hashlib.sha256(b"".join(parts)).hexdigest()
    assert await store.get(KEY) == b"".join(parts)


async def test_a_stream_that_breaks_leaves_what_was_there(store: BlobStore, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        assert await store.get(KEY) == b"before"
        raise ConnectionResetError("the client went away")

    await store.put(KEY, b"before")
    with pytest.raises(ConnectionResetError):
        await store.put(KEY, broken())
    assert await store.get(KEY) == b"before"
    left = [found for found in files(tmp_path) if "partial" in str(found)]
    assert left == []


async def test_an_empty_stream_is_an_empty_file(store: BlobStore) -> None:
    assert (await store.put(KEY, chunks())).size == 0
    assert await store.get(KEY) == b""


async def test_concurrent_writers_leave_one_whole_file(store: BlobStore) -> None:
    await asyncio.gather(*(store.put(KEY, chunks(*[bytes([n])] * 50)) for n in range(8)))
    data = await store.get(KEY)
    assert len(data) == 50
    assert len(set(data)) == 1
    info = await store.head(KEY)
    assert info is not None
    assert info.size == 50
    assert info.sha256 == hashlib.sha256(data).hexdigest()


async def test_the_unknown(store: BlobStore) -> None:
    assert await store.head("ns_a/none") is None
    await store.delete("ns_a/none")
    with pytest.raises(NotFoundError):
        await store.get("ns_a/none")
    with pytest.raises(NotFoundError):
        _ = [part async for part in store.stream("ns_a/none")]
    assert await store.delete_prefix("ns_zzz/") == 0


async def test_delete_prefix_takes_nothing_else(store: BlobStore) -> None:
    for key in ("ns_a/b/1", "ns_a/b/2/x", "ns_ab/b/1", "ns_a/bc/1"):
        await store.put(key, b"x")
    assert await store.delete_prefix("ns_a/b/") == 2
    assert await store.head("ns_a/b/1") is None
    assert await store.head("ns_ab/b/1") is not None
    assert await store.head("ns_a/bc/1") is not None
    # A prefix ends where a name ends: `ns_a` is not the beginning of `ns_ab`.
    assert await store.delete_prefix("ns_a") == 1
    assert await store.head("ns_ab/b/1") is not None


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../up", "a/../../up", "a/./b", "a//b", "a\\..\\b", "..", "a/\x00b", ".facts/a/b"]
)
async def test_a_key_never_leaves_the_store(store: BlobStore, key: str, tmp_path: Path) -> None:
    before = files(tmp_path)
    with pytest.raises(BadRequestError):
        await store.put(key, b"x")
    with pytest.raises(BadRequestError):
        await store.get(key)
    with pytest.raises(BadRequestError):
        await store.upload_url(key, content_type=None, expires_s=1)
    assert files(tmp_path) == before


async def test_health(store: BlobStore) -> None:
    await store.health()


# Signed URLs of the local store, which our own API serves.


@pytest.fixture
def blobs(tmp_path: Path, clock: HandClock) -> LocalBlobs:
    return local(tmp_path, clock)


def token_of(url: str) -> str:
    base, _, token = url.rpartition("/")
    assert base == "http://localhost:1/v1/blobs"
    return token


async def test_a_link_allows_one_method_on_one_key_until_it_expires(blobs: LocalBlobs, clock: HandClock) -> None:
    token = token_of(await blobs.upload_url(KEY, content_type="text/plain", expires_s=60))
    grant = blobs.verify(token, "PUT")
    assert (grant.method, grant.key, grant.content_type) == ("PUT", KEY, "text/plain")
    for method in ("GET", "DELETE", "HEAD"):
        with pytest.raises(UnauthorizedError):
            blobs.verify(token, method)
    clock.seconds = 59
    blobs.verify(token, "PUT")
    clock.seconds = 60
    with pytest.raises(UnauthorizedError, match="expired"):
        blobs.verify(token, "PUT")
    download = token_of(await blobs.download_url(KEY, expires_s=60))
    assert blobs.verify(download, "GET").key == KEY
    with pytest.raises(UnauthorizedError):
        blobs.verify(download, "PUT")


async def test_a_forged_link_is_refused(blobs: LocalBlobs, tmp_path: Path, clock: HandClock) -> None:
    token = token_of(await blobs.upload_url(KEY, content_type=None, expires_s=60))
    body, _, signature = token.partition(".")
    other = base64.urlsafe_b64encode(b'["PUT","ns_b/x",null,9999999999]').rstrip(b"=").decode()
    foreign = LocalBlobs(tmp_path / "foreign", b"z" * 32, "http://localhost:1", clock)
    foreign_token = token_of(await foreign.upload_url(KEY, content_type=None, expires_s=60))
    changed = [token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :] for at in range(len(token) - 1)]
    for forged in ("", ".", token[:-4], body, f"{body}.", f"{other}.{signature}", foreign_token, "é.é", *changed):
        with pytest.raises(UnauthorizedError):
            blobs.verify(forged, "PUT")


async def test_the_base_url_may_be_known_later(blobs: LocalBlobs) -> None:
    blobs.base_url = "https://search.example"
    url = await blobs.download_url(KEY, expires_s=5)
    assert url.startswith("https://search.example/v1/blobs/")


async def test_a_file_whose_facts_are_missing_or_stale_is_still_described(blobs: LocalBlobs, tmp_path: Path) -> None:
    await blobs.put("ns/a", b"first", content_type="text/plain")
    (tmp_path / "blobs" / "ns" / "a").write_bytes(b"other")
    info = await blobs.head("ns/a")
    assert info is not None
    assert (info.size, info.sha256) == (5, hashlib.sha256(b"other").hexdigest())


async def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path, clock: HandClock) -> None:
    blobs = local(tmp_path, clock)
    (tmp_path / "blobs").rename(tmp_path / "moved")
    (tmp_path / "blobs").write_bytes(b"a file")
    with pytest.raises(MixpeekError):
        await blobs.health()
