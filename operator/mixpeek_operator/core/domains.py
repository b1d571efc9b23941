"""Which hosts a declaration allows: `api.example.com`, `*.example.com` (subdomains), either with `:port`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mixpeek_operator.core.errors import Problem, SpecError

_PATTERN = re.compile(
    r"(?P<wild>\*\.)?(?P<host>\[[0-9a-f:.]+\]|[^\s*/?#@:\[\]]+)(?::(?P<port>\d{1,5}))?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class _Allowed:
    host: str
    port: int | None
    wild: bool


class Domains:
    """A list of allowed hosts."""

    __slots__ = ("_allowed",)

    def __init__(self, patterns: Iterable[str]) -> None:
        """Raises SpecError naming the first pattern that allows everything or cannot be read."""
        self._allowed = tuple(_parse(pattern) for pattern in patterns)

    def allow(self, host: str, port: int) -> bool:
        """Whether a host, as a URL names it, may be reached at this port."""
        name = _plain(host)
        return any(
            (name.endswith("." + item.host) if item.wild else name == item.host) and item.port in (None, port)
            for item in self._allowed
        )


def _parse(pattern: str) -> _Allowed:
    found = _PATTERN.fullmatch(pattern.strip())
    if found is None or (found["wild"] and "." not in found["host"].strip(".")):
        message = (
            f"allowed_domains: {pattern!r} is no domain; write a host like api.example.com, or *.example.com for its "
            "subdomains, without scheme and path"
        )
        raise SpecError.of([Problem("domain_invalid", message)])
    port = found["port"]
    return _Allowed(_plain(found["host"]), int(port) if port else None, bool(found["wild"]))


def _plain(host: str) -> str:
    """One spelling: lower case, IDNA, no brackets, no final dot."""
    name = host.strip("[]").rstrip(".").lower()
    if not name.isascii():
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            return name
    return name
