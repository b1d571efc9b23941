"""The guarded HTTP client: reaches what it may, within limits, and gives no secret away.

A name is resolved when a connection is opened, every address is checked, and the connection goes to a checked
address, so that a name cannot change its meaning between check and use. Connections are pooled by name, so what TLS
verified for one name never serves another. Redirects go through the same checks.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpcore
import httpx
import structlog

from mixpeek_operator.adapters._addresses import Addresses, Resolve, resolve_host
from mixpeek_operator.adapters._rates import Rates
from mixpeek_operator.core.clock import Clock, SystemClock
from mixpeek_operator.core.domains import Domains
from mixpeek_operator.core.errors import Problem, SpecError, UnavailableError
from mixpeek_operator.ports.outbound import Answer, Call

_AGENT: Final = "mixpeek-operator"
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_AGAIN: Final = frozenset({429, 502, 503, 504})
_FIRST_PAUSE_S: Final = 0.25
_KEPT_ELSEWHERE: Final = frozenset({"accept", "accept-language", "content-type", "user-agent"})
_FAILURES: Final = (
    httpx.HTTPError,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    OSError,
)

_log = structlog.get_logger(__name__)


class GuardedClient:
    """The `Outbound` port. One for the process; it keeps connections between calls."""

    def __init__(
        self,
        *,
        allow_cidrs: str = "",
        max_connections: int = 100,
        clock: Clock | None = None,
        resolve: Resolve = resolve_host,
    ) -> None:
        """`allow_cidrs` holds the private networks that may be reached. Raises SpecError when one is wrong."""
        self._addresses = Addresses(allow_cidrs, resolve)
        self._max_connections = max_connections
        self._clock = clock or SystemClock()
        self._rates = Rates(self._clock)
        self._transport: _Transport | None = None
        self._opening = asyncio.Lock()

    async def address(self, host: str, port: int) -> str:
        return await self._addresses.checked(host, port)

    async def send(self, call: Call) -> Answer:
        url = _url(call.url)
        domains = None if call.domains is None else Domains(call.domains)
        _check(url, domains)
        try:
            async with asyncio.timeout(call.timeout_s) as limit:
                if call.rate is not None:
                    await self._rates.turn(call.tenant, url.host, call.rate, call.timeout_s)
                return await self._try(call, url, domains, limit.when())
        except TimeoutError as error:
            raise UnavailableError(
                f"{shown(url)} took longer than {call.timeout_s:g} s", code="fetch_timeout"
            ) from error

    async def close(self) -> None:
        """Close every connection."""
        if self._transport is not None:
            await self._transport.aclose()

    async def _try(self, call: Call, url: httpx.URL, domains: Domains | None, deadline: float | None) -> Answer:
        now = asyncio.get_running_loop().time
        for attempt in range(1, call.attempts + 1):
            pause = _FIRST_PAUSE_S * 2 ** (attempt - 1)
            try:
                answer = await self._follow(call, url, domains)
            except _FAILURES as error:
                if attempt == call.attempts:
                    raise UnavailableError(
                        f"{shown(url)} cannot be fetched: {_why(error)}", code="fetch_failed"
                    ) from None
            else:
                pause = _retry_after_s(answer.headers) or pause
                late = deadline is not None and now() + pause >= deadline
                if answer.status not in _AGAIN or attempt == call.attempts or late:
                    return answer
            await asyncio.sleep(pause)
        raise AssertionError("a call is sent at least once")

    async def _follow(self, call: Call, url: httpx.URL, domains: Domains | None) -> Answer:
        transport = await self._opened()
        first, method, content = _origin(url), call.method.upper(), call.json
        for _ in range(call.max_redirects + 1):
            request = _request(call, url, method, content, elsewhere=_origin(url) != first)
            response = await transport.handle_async_request(request)
            try:
                _log.debug("called", host=url.host, method=method, status=response.status_code)
                if response.status_code not in _REDIRECTS or "location" not in response.headers:
                    body = await _read(response, call.max_bytes, url)
                    return Answer(response.status_code, dict(response.headers), body, shown(url))
                url = _url(response.headers["location"], base=url)
                if response.status_code == 303 or (response.status_code in (301, 302) and method == "POST"):
                    method, content = "GET", None
            finally:
                await response.aclose()
            _check(url, domains)
        raise refused("too_many_redirects", f"{shown(url)}: more than {call.max_redirects} redirects")

    async def _opened(self) -> _Transport:
        async with self._opening:
            if self._transport is None:
                tls = await asyncio.to_thread(ssl.create_default_context)
                self._transport = _Transport(tls, self._addresses, self._max_connections)
            return self._transport


class _Backend(httpcore.AsyncNetworkBackend):
    """Opens connections to checked addresses."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        address = await self._addresses.checked(host, port)
        return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _Transport(httpx.AsyncBaseTransport):
    """Sends without a client of httpx, which keeps cookies between calls.

    The transport of httpx does not let one choose how connections are opened.
    """

    def __init__(self, tls: ssl.SSLContext, addresses: Addresses, max_connections: int) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=15.0,
            network_backend=_Backend(addresses),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        sent = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
        )
        got = await self._pool.handle_async_request(sent)
        return httpx.Response(got.status, headers=got.headers, stream=_Body(got))

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    """The body as httpcore reads it."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._response.aiter_stream():
            yield part

    async def aclose(self) -> None:
        await self._response.aclose()


def shown(url: httpx.URL | str) -> str:
    """A URL for a message: without query and credentials, which may hold a secret."""
    parts = urlsplit(str(url))
    return f"{parts.scheme}://{parts.netloc.rsplit('@', 1)[-1]}{parts.path}"[:200]


def refused(code: str, message: str) -> SpecError:
    """Return the error of a call that its author has to change."""
    return SpecError.of([Problem(code, message)])


def _url(text: str, base: httpx.URL | None = None) -> httpx.URL:
    """The URL, without user and password: secrets go by name."""
    try:
        url = (base.join(text) if base is not None else httpx.URL(text)).copy_with(username=None, password=None)
    except (httpx.InvalidURL, ValueError):
        raise refused("invalid_url", f"{shown(base) + ' redirects to what' if base else 'the URL'} is no URL") from None
    return url.copy_with(fragment=None)


def _check(url: httpx.URL, domains: Domains | None) -> None:
    if url.scheme not in ("http", "https") or not url.host:
        raise refused("scheme_refused", f"{shown(url)}: only http and https URLs are fetched")
    if not 0 < _port(url) < 65536:
        raise refused("invalid_url", f"{shown(url)}: there is no such port")
    if domains is not None and not domains.allow(url.host, _port(url)):
        raise refused("domain_refused", f"{shown(url)}: {url.host!r} is not among allowed_domains")


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, _port(url)


def _request(call: Call, url: httpx.URL, method: str, content: Any, *, elsewhere: bool) -> httpx.Request:
    """One request of the call; where a redirect leads elsewhere it has neither credentials nor headers of its own."""
    headers = {"user-agent": _AGENT, "accept": "*/*", "accept-encoding": "gzip, deflate"}
    headers |= {
        name.lower(): value for name, value in call.headers.items() if not elsewhere or name.lower() in _KEPT_ELSEWHERE
    }
    for credential in () if elsewhere else call.credentials:
        if credential.place == "query":
            url = url.copy_set_param(credential.name, credential.value)
        else:
            headers[credential.name.lower()] = credential.value
    for name, value in headers.items():
        # The HTTP library would quote the value in its error.
        if not value.isprintable() or not value.isascii():
            raise refused("header_invalid", f"the header {name!r} holds characters that HTTP does not allow")
    return httpx.Request(method, url, headers=headers, json=content)


async def _read(response: httpx.Response, max_bytes: int, url: httpx.URL) -> bytes:
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "deflate", ""):
        # Encodings in layers, or with dictionaries, make gigabytes out of one packet.
        raise refused("encoding_refused", f"{shown(url)} answers in an encoding that was not asked for")
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > max_bytes:
            raise refused("too_large", f"{shown(url)} is larger than {max_bytes} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The seconds of `Retry-After`; a date is not understood."""
    text = headers.get("retry-after", "").strip()
    return float(text) if text.isascii() and text.isdigit() else None


def _why(error: Exception) -> str:
    """A reason without the request's own data, which the library quotes for what it cannot send."""
    if isinstance(error, httpcore.ProtocolError):
        return "it does not speak HTTP as it should"
    return str(error) or type(error).__name__
