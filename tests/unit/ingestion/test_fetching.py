"""The guarded fetch: where it goes, and where it does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from mixpeek_operator.adapters.outbound import GuardedClient
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.ingestion.fetch import GuardedFetch


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        writer.close()
        return  # the client was out of time before it had asked
    path = request.split()[1].split("?")[0]
    host = next(line for line in request.splitlines() if line.lower().startswith("host:"))
    if path == "/slow":
        await reader.read()  # until the client has gone
    body = host.encode() if path == "/host" else b"x" * 2000
    status, extra = "200 OK", ""
    if path == "/inside":
        status, extra = "302 Found", "Location: http://169.254.169.254/latest\r\n"
    if path == "/loop":
        status, extra = "302 Found", "Location: /loop\r\n"
    if path == "/gone":
        status = "404 Not Found"
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n{extra}Content-Length: {len(body)}\r\n"
    head += "Connection: close\r\n\r\n"
    writer.write(head.encode() + body)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    answers: list[asyncio.Task[None]] = []

    def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers.append(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*answers)


async def loopback(host: str, port: int) -> Sequence[str]:
    return [host] if host[0].isdigit() else ["127.0.0.1"]


@contextlib.asynccontextmanager
async def reaching(**options: Any) -> AsyncIterator[GuardedClient]:
    outbound = GuardedClient(**options)
    yield outbound
    await outbound.close()


async def test_fetches_from_the_checked_address_with_the_real_host(port: int) -> None:
    async with reaching(allow_cidrs="127.0.0.0/8", resolve=loopback) as outbound:
        got = await GuardedFetch(outbound).fetch(f"http://files.example:{port}/host")
    assert (
        got.data == f"Host: files.example:{port}".encode() or got.data.lower() == f"host: files.example:{port}".encode()
    )
    assert got.content_type == "text/plain"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/inside", "address_refused"),
        ("/loop", "too_many_redirects"),
        ("/gone", "fetch_failed"),
        ("/slow", "fetch_timeout"),
        ("/big", "too_large"),
    ],
)
async def test_limits(port: int, path: str, code: str) -> None:
    async with reaching(allow_cidrs="127.0.0.0/8", resolve=loopback) as outbound:
        fetch = GuardedFetch(
            outbound, timeout_s=1 if path == "/slow" else 60, max_bytes=1000 if path == "/big" else 10_000
        )
        with pytest.raises(SpecError) as caught:
            await fetch.fetch(f"http://files.example:{port}{path}?token=hidden")
    assert caught.value.problems[0].code == code
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.0",
        "::1",
        "fe80::1",
        "::ffff:127.0.0.1",
        "fd00::1",
        "100.64.0.1",
        "224.0.0.1",
    ],
)
async def test_private_addresses_are_refused(address: str) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["93.184.215.14", address]

    with pytest.raises(SpecError, match="MIXPEEK_OUTBOUND_ALLOW_CIDRS"):
        await GuardedFetch(GuardedClient(resolve=resolve)).fetch("http://files.example/x")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/y", "http://", "gopher://x"])
async def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(SpecError, match="only http"):
        await GuardedFetch(GuardedClient()).fetch(url)


def test_a_wrong_network_is_named() -> None:
    with pytest.raises(SpecError, match="'nonsense'"):
        GuardedClient(allow_cidrs="10.0.0.0/8, nonsense")
