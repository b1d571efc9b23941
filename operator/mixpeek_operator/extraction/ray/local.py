"""The Ray cluster that a process on one machine starts for itself, or joins."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import secrets
from collections.abc import AsyncIterator

from mixpeek_operator.core.errors import NotEnabledError, UnavailableError

RAY_NAMESPACE = "mixpeek"
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
    import ray

    own = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES} if address is None else {}
    try:
        ray.init(
            address=address or "local",
            namespace=RAY_NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **own,
        )
    except Exception as error:  # Ray raises plain exceptions here
        where = f"the Ray cluster at {address} cannot be reached" if address else "Ray did not start"
        raise UnavailableError(f"{where}: {str(error).strip()[:300] or type(error).__name__}") from error
    logging.getLogger("ray.data").setLevel(logging.WARNING)
