"""The product in this process, without HTTP, on the data that a server has left."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers.mixpeek import KEY

Execute = Callable[[str, Mapping[str, Any]], dict[str, Any]]
"""Name of a retriever and a request → the answer."""


@contextmanager
def inside(data: Path, namespace: str) -> Iterator[Execute]:
    """Open a copy of the data until the block ends; no server may have it open."""
    from mixpeek_operator.core.scope import Scope
    from mixpeek_operator.core.settings import Settings
    from mixpeek_operator.main import system

    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        copy = Path(folder) / "data"
        shutil.copytree(data, copy, ignore=shutil.ignore_patterns("lock", "*.log"))
        # Runner.run itself costs a good part of a millisecond: it sets up what an interrupt does.
        wait = runner.get_loop().run_until_complete
        running = system(Settings(data=copy, api_key=KEY, log_level="error"))
        parts = wait(running.__aenter__())
        scope = Scope(parts.bootstrap.organization, namespace, namespace)
        retrieval = parts.services.retrieval
        try:
            yield lambda name, request: wait(retrieval.execute(scope, name, request))
        finally:
            wait(running.__aexit__(None, None, None))
