"""Port: what leaves the machine. Every request that a tenant can cause goes through it, and through nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret that goes with a call, to the host of its URL only: never to where a redirect leads."""

    place: Literal["header", "query"]
    name: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rate:
    """How often one host may be called, counted per `Call.tenant` and process."""

    per_minute: int | None = None
    per_hour: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request with its limits."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    """Sent as JSON unless it is None."""
    credentials: tuple[Credential, ...] = ()
    domains: tuple[str, ...] | None = None
    """Hosts it may reach, redirects included: `api.example.com`, `*.example.com`, either with `:port`; None is any."""
    timeout_s: float = 10.0
    """For everything: waiting for its turn, connecting, redirects, retries and the whole body."""
    max_bytes: int = 10 * 1024 * 1024
    """Of the body, decompressed."""
    max_redirects: int = 5
    attempts: int = 1
    """How often it is sent when the host is away or says 429, 502, 503 or 504; `Retry-After` is heeded."""
    rate: Rate | None = None
    tenant: str = ""
    """Whose rate it is."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """By lower-case names."""
    body: bytes
    url: str
    """Where it came from in the end, without query and credentials."""


class Outbound(Protocol):
    """Reaches public addresses, and private ones that the server's administrator allows; nothing else."""

    async def send(self, call: Call) -> Answer:
        """Return the answer, redirects followed.

        Raises SpecError when the URL may not be called (`domain_refused`, `address_refused`, `scheme_refused`,
        `invalid_url`, `unknown_host`, `header_invalid`) or the answer breaks a limit (`too_large`,
        `too_many_redirects`, `encoding_refused`), RateLimitedError when its turn would come too late, and
        UnavailableError otherwise (`fetch_timeout`, `fetch_failed`). No message holds a query, header or credential.
        """
        ...

    async def address(self, host: str, port: int) -> str:
        """Return a checked address to connect to, for protocols other than HTTP.

        Raises SpecError with `unknown_host` or `address_refused`.
        """
        ...
