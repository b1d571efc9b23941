"""Fetching a file that a client names by URL, without becoming a way into the server's own network.

The host is resolved once, every address is checked, and the connection goes to a checked address, so that a
name cannot change its meaning between check and use. Redirects go through the same checks.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urljoin, urlsplit

import httpx

from mixpeek_operator.core.errors import Problem, SpecError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A fetched file."""

    data: bytes
    content_type: str | None
    url: str
    """Where it came from in the end, redirects followed."""


class Fetch(Protocol):
    """Reads a URL; SpecError says why one is refused or cannot be read."""

    async def fetch(self, url: str) -> Fetched: ...


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host name; raises OSError when it has none."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


def networks(text: str) -> tuple[Network, ...]:
    """Return the networks of a comma-separated setting. Raises SpecError naming the one that is wrong."""
    found: list[Network] = []
    for part in filter(None, (item.strip() for item in text.split(","))):
        try:
            found.append(ipaddress.ip_network(part, strict=False))
        except ValueError as error:
            raise SpecError(f"MIXPEEK_OUTBOUND_ALLOW_CIDRS: {part!r} is not a network ({error})") from error
    return tuple(found)


class GuardedFetch:
    """Reads http and https URLs within limits of address, redirects, size and time."""

    def __init__(
        self,
        *,
        allow_cidrs: str = "",
        max_bytes: int = 512 * 1024 * 1024,
        timeout_s: float = 60.0,
        max_redirects: int = 5,
        resolve: Resolve = resolve_host,
    ) -> None:
        self._allowed = networks(allow_cidrs)
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._max_redirects = max_redirects
        self._resolve = resolve
        self._tls: ssl.SSLContext | None = None

    async def fetch(self, url: str) -> Fetched:
        """Return the file at `url`. Raises SpecError saying which limit, status or failure stopped it."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(url)
        except TimeoutError as error:
            raise _refused("fetch_timeout", f"{_shown(url)} took longer than {self._timeout_s:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            reason = str(error) or type(error).__name__
            raise _refused("fetch_failed", f"{_shown(url)} cannot be fetched: {reason}") from error

    async def _follow(self, url: str) -> Fetched:
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        async with httpx.AsyncClient(trust_env=False, verify=self._tls, timeout=self._timeout_s) as client:
            for _ in range(self._max_redirects + 1):
                request = await self._request(client, url)
                response = await client.send(request, stream=True)
                try:
                    if response.is_redirect and "location" in response.headers:
                        url = urljoin(url, response.headers["location"])
                        continue
                    return await self._read(response, url)
                finally:
                    await response.aclose()
        raise _refused("too_many_redirects", f"{_shown(url)}: more than {self._max_redirects} redirects")

    async def _request(self, client: httpx.AsyncClient, url: str) -> httpx.Request:
        parts = urlsplit(url)
        if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
            raise _refused("scheme_refused", f"{_shown(url)}: only http and https URLs are fetched")
        try:
            port = parts.port or (443 if parts.scheme.lower() == "https" else 80)
        except ValueError as error:
            raise _refused("invalid_url", f"{_shown(url)}: the port is not a number") from error
        host = parts.hostname
        address = await self._checked(host, port, url)
        target = httpx.URL(url, username=None, password=None).copy_with(host=address)
        named = f"[{host}]" if ":" in host else host
        default = 443 if parts.scheme.lower() == "https" else 80
        headers = {"Host": named if port == default else f"{named}:{port}", "User-Agent": "mixpeek-operator"}
        return client.build_request("GET", target, headers=headers, extensions={"sni_hostname": host})

    async def _checked(self, host: str, port: int, url: str) -> str:
        try:
            addresses = await self._resolve(host, port)
        except OSError as error:
            raise _refused("unknown_host", f"{_shown(url)}: the host {host!r} has no address") from error
        for address in addresses:
            if not self._reachable(ipaddress.ip_address(address.split("%")[0])):
                raise _refused(
                    "address_refused",
                    f"{_shown(url)}: {host!r} is a private, loopback or reserved address ({address}); "
                    "an administrator can allow its network with MIXPEEK_OUTBOUND_ALLOW_CIDRS",
                )
        if not addresses:
            raise _refused("unknown_host", f"{_shown(url)}: the host {host!r} has no address")
        return addresses[0]

    def _reachable(self, address: Address) -> bool:
        mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
        address = mapped or address
        if any(address.version == network.version and address in network for network in self._allowed):
            return True
        return address.is_global and not address.is_multicast

    async def _read(self, response: httpx.Response, url: str) -> Fetched:
        if response.status_code >= 300:
            raise _refused("fetch_failed", f"{_shown(url)} answered {response.status_code}")
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if size > self._max_bytes:
                raise _refused("too_large", f"{_shown(url)} is larger than {self._max_bytes} bytes")
            chunks.append(chunk)
        return Fetched(b"".join(chunks), response.headers.get("content-type"), url)


def _shown(url: str) -> str:
    """A URL for a message: without query and credentials, which may hold a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rsplit('@', 1)[-1]}{parts.path}"[:200]


def _refused(code: str, message: str) -> SpecError:
    return SpecError.of([Problem(code, message)])
