"""What every BlobStore does; an adapter joins in the fixture `store`."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import httpx
import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from tests.servers import stores
from tests.servers.process import Program

from mixpeek_operator.adapters import object_blobs
from mixpeek_operator.adapters.local_blobs import LocalBlobs
from mixpeek_operator.adapters.object_blobs import ObjectBlobs
from mixpeek_operator.core.errors import (
    BadRequestError,
    MixpeekError,
    NotFoundError,
    RefusedError,
    SpecError,
    UnauthorizedError,
    UnavailableError,
)
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


KEY = "ns_a/bkt_1/obj_1/50 % of my file (ü) #1?=^a+b~.txt"
REMOTE = ["s3", *(name for name in ("GCS", "AZURE") if f"{name}_URL" in os.environ)]
"""S3 always; GCS and Azure where GCS_URL (gs://bucket) or AZURE_URL (az://container) names one of the user's own."""
CHECKED = [name for name in REMOTE if name != "GCS" or "GCS_ENDPOINT_URL" not in os.environ]
"""Those that check signatures: what stands in for GCS does not."""


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(scope="session")
def s3_bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URL of a bucket and its endpoint; S3_ENDPOINT_URL, S3_BUCKET and AWS_* name one of the user's own."""
    bucket = os.environ.get("S3_BUCKET", "test")
    if own := os.environ.get("S3_ENDPOINT_URL"):
        yield f"s3://{bucket}", own
        return
    with stores.s3proxy(tmp_path_factory.mktemp("s3proxy")) as server, stores.s3_credentials():
        yield "s3://test", f"http://127.0.0.1:{server.port}"


@pytest.fixture(params=REMOTE)
def remote(request: pytest.FixtureRequest) -> tuple[str, str | None]:
    """URL of a bucket, and its endpoint unless that is the provider's own."""
    return place(request)


def place(request: pytest.FixtureRequest) -> tuple[str, str | None]:
    if request.param == "s3":
        found: tuple[str, str] = request.getfixturevalue("s3_bucket")
        return found
    return os.environ[f"{request.param}_URL"], os.environ.get(f"{request.param}_ENDPOINT_URL")


@pytest.fixture(params=["local", *REMOTE])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock) -> AsyncIterator[BlobStore]:
    if request.param == "local":
        yield local(tmp_path, clock)
        return
    url, endpoint = place(request)
    made = ObjectBlobs(f"{url}/{uuid.uuid4().hex}", endpoint_url=endpoint)
    yield made
    for prefix in ("ns_a", "ns_ab"):
        await made.delete_prefix(prefix)
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


# Links of object storage, which the store itself serves.


@pytest.fixture
async def objects(remote: tuple[str, str | None]) -> AsyncIterator[ObjectBlobs]:
    url, endpoint = remote
    made = ObjectBlobs(f"{url}/{uuid.uuid4().hex}", endpoint_url=endpoint)
    yield made
    await made.delete_prefix("ns_a")


async def test_what_is_put_to_a_signed_link_is_known_with_its_hash(objects: ObjectBlobs) -> None:
    data = os.urandom(300_000)
    url = await objects.upload_url(KEY, content_type="image/png", expires_s=60)
    async with httpx.AsyncClient(trust_env=False) as client:
        png, text = ({"Content-Type": kind, **objects.upload_headers} for kind in ("image/png", "text/plain"))
        assert (await client.put(url, content=data, headers=png)).is_success
        for _ in range(2):
            info = await objects.head(KEY)
            assert info is not None
            assert (info.size, info.sha256, info.content_type) == (
                len(data),
                hashlib.sha256(data).hexdigest(),
                "image/png",
            )
        assert (await client.put(url, content=b"other", headers=text)).is_success
        info = await objects.head(KEY)
        assert info is not None
        assert (info.sha256, info.content_type) == (hashlib.sha256(b"other").hexdigest(), "text/plain")
        answer = await client.get(await objects.download_url(KEY, expires_s=60))
        assert (answer.content, answer.headers["content-type"]) == (b"other", "text/plain")


@pytest.mark.parametrize("remote", CHECKED, indirect=True)
async def test_a_signed_link_of_the_store_allows_one_method_on_one_key(objects: ObjectBlobs) -> None:
    await objects.put("ns_a/x", b"x")
    link = await objects.download_url("ns_a/x", expires_s=60)
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(link)).content == b"x"
        assert (await client.put(link, content=b"y", headers=objects.upload_headers)).status_code == 403
        assert (await client.get(link.replace("/ns_a/x", "/ns_a/y"))).status_code == 403
        assert (await client.get(link.partition("?")[0])).status_code == 403
    with pytest.raises(BadRequestError, match="seconds at most"):
        await objects.download_url("ns_a/x", expires_s=8 * 24 * 3600)


async def test_an_upload_that_is_given_up_leaves_nothing(objects: ObjectBlobs) -> None:
    started = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        started.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(objects.put(KEY, endless()))
    await started.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert await objects.head(KEY) is None


async def test_object_storage_that_is_away_comes_back_with_what_it_acknowledged(tmp_path: Path) -> None:
    with stores.s3proxy(tmp_path) as server, stores.s3_credentials():
        objects = ObjectBlobs("s3://test/prefix", endpoint_url=f"http://127.0.0.1:{server.port}")
        written: list[str] = []
        some = asyncio.Event()

        async def write() -> None:
            for n in range(1000):
                await objects.put(f"ns_a/{n}", str(n).encode())
                written.append(f"ns_a/{n}")
                if n == 5:
                    some.set()

        task = asyncio.create_task(write())
        await some.wait()
        server.kill()
        with pytest.raises(UnavailableError):
            await task
        for attempt in (objects.health(), objects.get("ns_a/0"), objects.head("ns_a/0"), objects.delete_prefix("ns_a")):
            with pytest.raises(UnavailableError, match="s3://test/prefix at 127"):
                await attempt
        server.start()
        await returned(objects, server)
        assert [await objects.get(key) for key in written] == [key.rpartition("/")[2].encode() for key in written]


async def returned(objects: ObjectBlobs, server: Program) -> None:
    for _ in range(100):
        try:
            await objects.health()
        except UnavailableError:
            await asyncio.sleep(0.2)
        else:
            return
    raise AssertionError(f"port {server.port} does not serve")


async def test_a_missing_bucket_is_the_administrators(remote: tuple[str, str | None]) -> None:
    url, endpoint = remote
    absent = f"{url.partition('://')[0]}://absent-{uuid.uuid4().hex}"
    with pytest.raises(RefusedError, match="does not exist"):
        await ObjectBlobs(absent, endpoint_url=endpoint).health()


@pytest.mark.parametrize("remote", CHECKED, indirect=True)
async def test_wrong_credentials_are_the_administrators(
    remote: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = base64.b64encode(b"hunter2" * 5).decode()
    for name in ("AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_KEY"):
        monkeypatch.setenv(name, wrong)
    url, endpoint = remote
    with pytest.raises(RefusedError, match="credentials") as caught:
        await ObjectBlobs(url, endpoint_url=endpoint).health()
    assert wrong not in str(caught.value)


# What can be known of links without a server: they are signed here.


@pytest.fixture
def signing(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Put credentials of every provider where its client looks; returns the key of Azure."""
    key = b"k" * 32
    robot = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"private_key": robot.decode(), "private_key_id": "1", "client_email": "robot@example.com"}
    for name, value in {
        "AWS_ACCESS_KEY_ID": "ours",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AZURE_STORAGE_ACCOUNT_NAME": "account",
        "AZURE_STORAGE_ACCOUNT_KEY": base64.b64encode(key).decode(),
        "GOOGLE_SERVICE_ACCOUNT_KEY": orjson.dumps({"type": "service_account", **account}).decode(),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GOOGLE_SERVICE_ACCOUNT", raising=False)
    return key


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("s3://bucket/x", "https://s3.us-east-1.amazonaws.com/bucket/x/"),
        ("gs://bucket/x", "https://storage.googleapis.com/bucket/x/"),
        ("az://bucket/x", "https://account.blob.core.windows.net/bucket/x/"),
    ],
)
async def test_links_lead_to_the_provider_or_to_the_endpoint(signing: bytes, url: str, own: str) -> None:
    assert (await ObjectBlobs(url).upload_url(KEY, content_type=None, expires_s=60)).startswith(own)
    there = ObjectBlobs(url, endpoint_url="http://127.0.0.1:1/")
    link = await there.download_url(KEY, expires_s=60)
    assert link.startswith("http://127.0.0.1:1/bucket/x/")


async def test_a_link_to_azure_is_signed_over_what_azure_takes_the_name_for(signing: bytes) -> None:
    """The string to sign is that of a service SAS, in which the name stands as it is and not as a URL spells it."""
    link = urlsplit(await ObjectBlobs("az://files/x").upload_url(KEY, content_type=None, expires_s=60))
    query = dict(parse_qsl(link.query))
    fields = [query["sp"], query["st"], query["se"], f"/blob/account{unquote(link.path)}", "", "", "", query["sv"], "b"]
    expected = hmac.digest(signing, "\n".join([*fields, *[""] * 7]).encode(), "sha256")
    assert base64.b64decode(query["sig"]) == expected


@given(st.lists(st.text(min_size=1), min_size=2, max_size=2, unique=True))
def test_names_for_links_stay_apart_and_are_spelled_as_they_are(keys: list[str]) -> None:
    names = [object_blobs._plain(key) for key in keys]
    assert names[0] != names[1]
    assert [quote(name, safe="/") for name in names] == names
    assert object_blobs._plain("".join(keys)) == "".join(names)


@pytest.mark.parametrize("url", ["", "file:///tmp", "s3://", "bucket", "http://host/bucket", "s3://key:secret@bucket"])
def test_a_url_that_names_no_object_storage(url: str) -> None:
    with pytest.raises(SpecError) as caught:
        ObjectBlobs(url)
    assert "secret" not in str(caught.value)
