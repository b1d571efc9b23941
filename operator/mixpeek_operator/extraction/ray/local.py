"""The Ray cluster that a process on one machine starts for itself, or joins."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator

import structlog

from mixpeek_operator.core.errors import NotEnabledError, UnavailableError

_log = structlog.get_logger(__name__)

RAY_NAMESPACE = "mixpeek"
_ATTEMPTS = 3
"""Ray gives its own node 30 seconds to come up, too few on a machine that is busy."""
_REACH_S = 5.0
_OBJECT_STORE_BYTES = 256 * 1024 * 1024
"""Pieces are small and leave when they are answered."""


@contextlib.asynccontextmanager
async def connected(address: str | None) -> AsyncIterator[None]:
    """Be part of the cluster at `address`, or of one that is started now and ends with the block.

    Raises NotEnabledError without Ray, UnavailableError when it does not start or cannot be reached.
    """
    # In a thread: it takes seconds, and Ray takes over the signals of a main thread.
    await asyncio.to_thread(_connect, address)
    try:
        yield
    finally:
        import ray

        await asyncio.to_thread(ray.shutdown)


def _connect(address: str | None) -> None:
    if importlib.util.find_spec("ray") is None:
        raise NotEnabledError("this engine needs Ray; install mixpeek-operator[ray]")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        # Whoever else is on this machine must not be able to run code in our name.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    else:
        _reach(address)
    import ray

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    own = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES} if address is None else {}
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            ray.init(
                address=address or "local",
                namespace=RAY_NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **own,
            )
            return
        except Exception as error:  # Ray raises plain exceptions here
            if address is None and attempt < _ATTEMPTS:
                _log.warning("starting Ray failed, trying again", error=str(error))
                ray.shutdown()
                continue
            where = f"the Ray cluster at {address} cannot be reached" if address else "Ray did not start"
            raise UnavailableError(f"{where}: {str(error).strip()[:300] or type(error).__name__}") from error


def _reach(address: str) -> None:
    """Raise UnavailableError for a `host:port` that nobody listens on; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in address:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except OSError as error:
        raise UnavailableError(f"the Ray cluster at {address} cannot be reached: {error.strerror or error}") from error
