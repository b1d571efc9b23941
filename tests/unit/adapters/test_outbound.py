"""The guarded client: where a call goes, what it takes along, and what it says of itself."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import ipaddress
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from tests.servers.http import Reply, Server, http_server

from mixpeek_operator.adapters._addresses import Addresses
from mixpeek_operator.adapters._rates import Rates
from mixpeek_operator.adapters.outbound import GuardedClient
from mixpeek_operator.core.domains import Domains
from mixpeek_operator.core.errors import MixpeekError, RateLimitedError, SpecError, UnavailableError
from mixpeek_operator.ports.outbound import Call, Credential, Rate

SECRET = "sk-verysecret"
IN_HEADER = Credential("header", "Authorization", f"Bearer {SECRET}")
IN_QUERY = Credential("query", "key", SECRET)


async def loopback(host: str, port: int) -> Sequence[str]:
    return [host] if host[0].isdigit() else ["127.0.0.1"]


@pytest.fixture
def server() -> Iterator[Server]:
    with http_server(lambda asked: Reply(body={"path": asked.path})) as server:
        yield server


@pytest.fixture
def other() -> Iterator[Server]:
    with http_server(lambda asked: Reply(body="elsewhere")) as server:
        yield server


@pytest.fixture
async def outbound() -> AsyncIterator[GuardedClient]:
    client = GuardedClient(allow_cidrs="127.0.0.0/8", resolve=loopback)
    yield client
    await client.close()


def at(server: Server, path: str = "/", host: str = "api.example") -> str:
    return f"http://{host}:{server.port}{path}"


async def test_a_call_as_it_arrives(server: Server, outbound: GuardedClient) -> None:
    call = Call(at(server, "/v1?a=1#part"), "PUT", {"X-Mine": "1"}, {"b": [2]}, (IN_HEADER, IN_QUERY), ("api.example",))
    answer = await outbound.send(call)
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.query) == ("PUT", "/v1", {"a": "1", "key": SECRET})
    assert asked.json == {"b": [2]}
    assert asked.headers["host"] == f"api.example:{server.port}"
    assert asked.headers["authorization"] == f"Bearer {SECRET}"
    assert asked.headers["x-mine"] == "1"
    assert (answer.status, answer.body, answer.url) == (200, b'{"path": "/v1"}', at(server, "/v1"))
    assert SECRET not in repr(call)


async def test_cookies_are_not_kept(server: Server, outbound: GuardedClient) -> None:
    server.answer = lambda asked: Reply(headers={"set-cookie": "session=another-tenant"})
    await outbound.send(Call(at(server)))
    await outbound.send(Call(at(server)))
    assert all("cookie" not in asked.headers for asked in server.asked)


@pytest.mark.parametrize(("status", "method"), [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")])
async def test_a_redirect_elsewhere_takes_no_secret_along(
    server: Server, other: Server, outbound: GuardedClient, status: int, method: str
) -> None:
    server.answer = lambda asked: Reply(status, headers={"location": at(other, "/next", "other.example")})
    headers = {"X-Token": SECRET, "Accept": "text/html"}
    call = Call(at(server), "POST", headers, {"a": 1}, (IN_HEADER, IN_QUERY), ("api.example", "other.example"))
    answer = await outbound.send(call)
    (asked,) = other.asked
    assert asked.method == method
    assert SECRET not in str(asked)
    assert asked.headers["accept"] == "text/html"
    assert answer.body == b"elsewhere"


async def test_a_redirect_on_the_same_host_keeps_them(server: Server, outbound: GuardedClient) -> None:
    server.answer = lambda asked: Reply() if asked.path == "/b" else Reply(302, headers={"location": "/b"})
    await outbound.send(Call(at(server, "/a"), credentials=(IN_HEADER, IN_QUERY)))
    assert [asked.headers["authorization"] for asked in server.asked] == [f"Bearer {SECRET}"] * 2
    assert server.asked[1].query == {"key": SECRET}


async def refused(outbound: GuardedClient, call: Call, code: str) -> MixpeekError:
    with pytest.raises(MixpeekError) as caught:
        await outbound.send(call)
    assert caught.value.code == code
    shown = "".join(str(error) for error in (caught.value, caught.value.__cause__))
    assert SECRET not in shown
    return caught.value


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://evil.test/", "domain_refused"),
        ("http://10.1.2.3/", "domain_refused"),
        ("file:///etc/passwd", "scheme_refused"),
        ("http://[::1", "invalid_url"),
        ("//api.example@evil.test/", "domain_refused"),
    ],
)
async def test_redirects_are_checked(server: Server, outbound: GuardedClient, location: str, code: str) -> None:
    server.answer = lambda asked: Reply(302, headers={"location": location})
    await refused(outbound, Call(at(server), domains=("api.example",)), code)


async def test_a_name_that_changes_its_meaning_is_checked_when_it_is_connected_to(server: Server) -> None:
    asked = 0

    async def rebinding(host: str, port: int) -> Sequence[str]:
        nonlocal asked
        asked += 1
        return ["127.0.0.1"] if asked == 1 else ["169.254.169.254"]

    client = GuardedClient(allow_cidrs="127.0.0.0/8", resolve=rebinding)
    server.answer = lambda asked: Reply(headers={"connection": "close"})
    await client.send(Call(at(server)))
    await refused(client, Call(at(server)), "address_refused")
    await client.close()


async def test_what_is_refused_before_anything_is_sent(server: Server, outbound: GuardedClient) -> None:
    for url, code in [
        (at(server, "/", "evil.test"), "domain_refused"),
        (at(server, "/", "api.example.evil.test"), "domain_refused"),
        (f"http://api.example@evil.test:{server.port}/", "domain_refused"),
        ("ftp://api.example/", "scheme_refused"),
        ("http:///x", "scheme_refused"),
        ("http://api.example:99999/", "invalid_url"),
    ]:
        await refused(outbound, Call(url, domains=("api.example",), credentials=(IN_QUERY,)), code)
    bad = Credential("header", "X-Key", f"{SECRET}\r\nHost: evil")
    await refused(outbound, Call(at(server), credentials=(bad,)), "header_invalid")
    assert server.asked == []


async def test_answers_within_their_limits(server: Server, outbound: GuardedClient) -> None:
    server.answer = lambda asked: Reply(body=gzip.compress(b"0" * 50_000), headers={"content-encoding": "gzip"})
    assert len((await outbound.send(Call(at(server)))).body) == 50_000
    await refused(outbound, Call(at(server), max_bytes=40_000), "too_large")
    server.answer = lambda asked: Reply(body=b"", headers={"content-encoding": "gzip, gzip"})
    await refused(outbound, Call(at(server)), "encoding_refused")
    server.answer = lambda asked: Reply(302, headers={"location": "/"})
    await refused(outbound, Call(at(server), max_redirects=2), "too_many_redirects")


async def test_a_host_that_is_away(outbound: GuardedClient) -> None:
    silent = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with silent:
        port = silent.sockets[0].getsockname()[1]
        call = Call(f"http://api.example:{port}/?token={SECRET}", credentials=(IN_QUERY,))
        assert isinstance(await refused(outbound, call, "fetch_failed"), UnavailableError)


async def test_a_host_that_speaks_something_else(outbound: GuardedClient) -> None:
    def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as mail:
        port = mail.sockets[0].getsockname()[1]
        call = Call(f"http://api.example:{port}/", credentials=(IN_QUERY,))
        assert "does not speak HTTP" in str(await refused(outbound, call, "fetch_failed"))


async def test_it_is_not_waited_for_longer_than_there_is_time(server: Server, outbound: GuardedClient) -> None:
    server.answer = lambda asked: Reply(429, headers={"retry-after": "3600"})
    assert (await outbound.send(Call(at(server), attempts=3))).status == 429
    assert len(server.asked) == 1


async def test_it_is_asked_again_when_it_says_so(server: Server, outbound: GuardedClient) -> None:
    statuses = iter([429, 503, 200, 503, 503, 500])
    server.answer = lambda asked: Reply(next(statuses), headers={"retry-after": "0"})
    assert (await outbound.send(Call(at(server), attempts=3))).status == 200
    assert (await outbound.send(Call(at(server), attempts=2))).status == 503
    assert (await outbound.send(Call(at(server), attempts=2))).status == 500
    assert len(server.asked) == 6


async def test_rates_of_hosts_and_tenants(server: Server, outbound: GuardedClient) -> None:
    async def call(tenant: str, host: str = "api.example") -> int:
        limited = Call(at(server, host=host), rate=Rate(per_minute=2), tenant=tenant, timeout_s=5)
        return (await outbound.send(limited)).status

    assert [await call("a"), await call("a"), await call("b"), await call("a", "other.example")] == [200] * 4
    with pytest.raises(RateLimitedError, match=r"api\.example may be called 2 times a minute"):
        await call("a")


class Standing:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> Any:
        raise AssertionError

    def monotonic(self) -> float:
        return self.time


@given(
    st.lists(st.floats(0, 100), max_size=60),
    st.one_of(st.none(), st.integers(1, 5)),
    st.one_of(st.none(), st.integers(1, 20)),
)
def test_no_window_ever_holds_more_turns_than_allowed(
    pauses: list[float], per_minute: int | None, per_hour: int | None
) -> None:
    clock, turns = Standing(), []
    rates = Rates(clock)
    for pause in pauses:
        clock.time += pause
        try:
            turns.append(clock.time + rates.reserve("a", "h", Rate(per_minute, per_hour), 300.0))
        except RateLimitedError:
            continue
    assert turns == sorted(turns)
    for count, window in ((per_minute, 60.0), (per_hour, 3600.0)):
        for index, turn in enumerate(turns):
            if count is not None and index >= count:
                assert turn - turns[index - count] >= window - 1e-6
    if per_minute is None and per_hour is None:
        assert len(turns) == len(pauses)


@pytest.mark.parametrize(
    "address",
    [
        "168.63.129.16",
        "100.100.100.200",
        "fd00:ec2::254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::7f00:1",
        "::127.0.0.1",
        "2002:7f00:1::",
        "::ffff:10.0.0.1",
        "255.255.255.255",
        "192.0.0.192",
        "::",
    ],
)
def test_addresses_that_stand_for_private_ones(address: str) -> None:
    assert not Addresses("", loopback).reachable(ipaddress.ip_address(address))


@given(st.ip_addresses(), st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_an_allowed_network_is_reached_and_nothing_else_is_added(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, private: ipaddress.IPv4Address
) -> None:
    closed, opened = Addresses("", loopback), Addresses("10.0.0.0/8", loopback)
    assert opened.reachable(private)
    assert not closed.reachable(private)
    if address.version == 4 and not ipaddress.IPv4Network("10.0.0.0/8").supernet_of(
        ipaddress.IPv4Network((int(address), 32))
    ):
        assert closed.reachable(address) == opened.reachable(address)


@pytest.mark.parametrize(
    ("patterns", "host", "port", "allowed"),
    [
        (["api.example.com"], "api.example.com", 443, True),
        (["api.example.com"], "API.Example.com.", 443, True),
        (["api.example.com"], "x.api.example.com", 443, False),
        (["*.example.com"], "api.example.com", 443, True),
        (["*.example.com"], "example.com", 443, False),
        (["*.example.com"], "badexample.com", 443, False),
        (["api.example.com:8443"], "api.example.com", 443, False),
        (["api.example.com:8443"], "api.example.com", 8443, True),
        (["bücher.example"], "xn--bcher-kva.example", 443, True),
        (["[::1]"], "::1", 80, True),
        (["127.0.0.1"], "127.0.0.1", 8080, True),
    ],
)
def test_domains(patterns: list[str], host: str, port: int, allowed: bool) -> None:
    assert Domains(patterns).allow(host, port) is allowed


@pytest.mark.parametrize(
    "pattern", ["*", "*.com", "https://api.example.com", "api.example.com/x", "", "a b", "*.*.com"]
)
def test_domains_that_are_none(pattern: str) -> None:
    with pytest.raises(SpecError, match="no domain"):
        Domains([pattern])


def certificate(names: list[str], path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(item) for item in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


async def test_tls_verifies_the_name_not_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = certificate(["api.example"], tmp_path / "server.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    client = GuardedClient(allow_cidrs="127.0.0.0/8", resolve=loopback)
    with http_server(lambda asked: Reply(body=asked.headers["host"]), tls) as server:
        answer = await client.send(Call(f"https://api.example:{server.port}/"))
        assert answer.body == f"api.example:{server.port}".encode()
        # The connection that is still open to this address was verified for another name.
        error = await refused(client, Call(f"https://other.example:{server.port}/"), "fetch_failed")
        assert "certificate" in str(error).lower()
        await client.close()
