"""Fetching a file that a client names by URL, without becoming a way into the server's own network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mixpeek_operator.core.errors import Problem, SpecError, UnavailableError
from mixpeek_operator.ports.outbound import Call, Outbound


@dataclass(frozen=True, slots=True)
class Fetched:
    """A fetched file."""

    data: bytes
    content_type: str | None
    url: str
    """Where it came from in the end, redirects followed, without query and credentials."""


class Fetch(Protocol):
    """Reads a URL; SpecError says why one is refused or cannot be read."""

    async def fetch(self, url: str) -> Fetched: ...


class GuardedFetch:
    """Reads http and https URLs within limits of address, redirects, size and time."""

    def __init__(self, outbound: Outbound, *, max_bytes: int = 512 * 1024 * 1024, timeout_s: float = 60.0) -> None:
        self._outbound = outbound
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def fetch(self, url: str) -> Fetched:
        """Return the file at `url`. Raises SpecError saying which limit, status or failure stopped it."""
        try:
            answer = await self._outbound.send(Call(url, timeout_s=self._timeout_s, max_bytes=self._max_bytes))
        except UnavailableError as error:
            raise _refused(error.code, error.message) from error
        if answer.status >= 300:
            raise _refused("fetch_failed", f"{answer.url} answered {answer.status}")
        return Fetched(answer.body, answer.headers.get("content-type"), answer.url)


def _refused(code: str, message: str) -> SpecError:
    return SpecError.of([Problem(code, message)])
