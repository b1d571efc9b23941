"""Where the Ray cluster of a namespace is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

EXTRACTOR, VERSION = "text_extractor", "v1"
"""The application that holds the platform's text models."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """URLs of one cluster, without a slash at the end."""

    dashboard_url: str
    """Ray's dashboard, which takes jobs."""
    serve_url: str | None = None
    """Ray Serve's proxy; None when nothing is served there."""
    token: str | None = field(default=None, repr=False)
    """Ray's token, where its token authentication is on."""


FindEndpoints = Callable[[str], Endpoints | None]
"""Namespace id → the namespace's own cluster, None when it uses the shared one."""


def shared_only(namespace_id: str) -> Endpoints | None:
    """No namespace has a cluster of its own."""
    return None


def route_prefix(namespace_id: str | None, extractor: str, version: str) -> str:
    """Where Ray Serve's proxy has an extractor: below its namespace's id, or `shared` on the shared cluster."""
    return f"/{namespace_id or 'shared'}/{extractor}_{version.replace('.', '_')}"
