"""The server as a process: what it says at start, the signals that end it, the files it follows."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import structlog
import uvicorn
from watchfiles import Change, awatch

from mixpeek_operator import __version__
from mixpeek_operator.cli import output
from mixpeek_operator.cli.process import event_loop, settings_of, signals
from mixpeek_operator.core import logging
from mixpeek_operator.core.errors import (
    MixpeekError,
    ModelUnavailableError,
    SpecError,
    UnavailableError,
)
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.main import System, system
from mixpeek_operator.manifest.files import is_manifest, manifest_files
from mixpeek_operator.stores import base_url, lock

_log = structlog.get_logger(__name__)
_GRACE_S = 5
"""Seconds that running requests get to end."""
_IDLE_S = 75
"""Seconds that an idle connection is kept: longer than clients (5 s) and load balancers (60 s) keep theirs, or one of
them sends its next request into a connection that is just being closed."""


def run(
    *,
    data: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    engine: str | None = None,
    watch: Sequence[Path] = (),
) -> None:
    """Serve until a signal; with `watch`, apply those files now and whenever they change.

    Raises BadRequestError for a wrong setting, ConflictError when the data directory is in use and
    UnavailableError when the port is.
    """
    settings = settings_of(data=data, host=host, port=port, engine=engine)
    # Who watches files reads what became of them; a line per request between would hide it. Asked for, it comes.
    quiet = bool(watch) and sys.stdout.isatty() and "log_level" not in settings.model_fields_set
    logging.configure("warning" if quiet else settings.log_level, settings.log_format)
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        runner.run(_serve(settings, watch))
        if any(thread.daemon for thread in threading.enumerate()):
            # A model is still being loaded, which nobody can break off, and a batch may wait for it in a thread.
            # Everything else is closed and on disk.
            sys.stdout.flush()
            os._exit(0)


class _Server(uvicorn.Server):
    """Leaves signals to `signals`: uvicorn would raise them again, and the stores would never be closed."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(settings: Settings, watch: Sequence[Path]) -> None:
    stop = signals()
    # Whoever starts a server twice reads that its data is in use, which says more than that its port is.
    with lock(settings):
        listening = _listen(settings)
    port = int(listening.getsockname()[1])
    try:
        async with system(settings) as running:
            if running.local_blobs is not None:
                running.local_blobs.base_url = base_url(settings, port)
            _greet(settings, port, running.bootstrap.key)
            server = _Server(
                uvicorn.Config(
                    running.app,
                    log_config=None,
                    log_level="warning",
                    access_log=False,
                    server_header=False,
                    proxy_headers=False,
                    timeout_graceful_shutdown=_GRACE_S,
                    timeout_keep_alive=_IDLE_S,
                    lifespan="off",
                )
            )
            # What is loaded now stays: walking over it again would stop every request for a moment.
            gc.freeze()
            async with asyncio.TaskGroup() as tasks:
                serving = tasks.create_task(server.serve(sockets=[listening]))
                beside = []
                if settings.preload_model:
                    beside.append(tasks.create_task(_preload(running, server)))
                if watch:
                    beside.append(tasks.create_task(_follow(running, watch)))
                stopping = asyncio.create_task(stop.wait())
                await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
                output.say("stopping: requests under way end, the rest is on disk")
                server.should_exit = True
                for task in (stopping, *beside):
                    task.cancel()
    finally:
        listening.close()


def _greet(settings: Settings, port: int, key: str | None) -> None:
    output.say(f"mixpeek-operator {__version__} at {base_url(settings, port)}, data in {settings.data}")
    if key is not None:
        output.say(f"API key, shown only now: {key}", colour="green")


async def _preload(running: System, server: _Server) -> None:
    """Load the embedding model as soon as the server answers, so that the first search need not wait for it."""
    await server.ready.wait()
    try:
        await running.inference.warm()
        gc.freeze()
    except ModelUnavailableError as error:
        # Everything but embedding works without it; health and whoever embeds say the same.
        _log.warning("the embedding model was not loaded", error=str(error))
    except UnavailableError as error:
        _log.debug("loading the embedding model was broken off", error=str(error))
    except Exception:
        _log.exception("loading the embedding model failed")


async def _follow(running: System, paths: Sequence[Path]) -> None:
    """Apply the files, and apply them again on each change; a wrong file is reported and waited out."""
    changed = asyncio.Event()
    changed.set()
    async with asyncio.TaskGroup() as tasks:
        for path in paths:
            # Editors replace a file by a new one, so the folder is watched and not the file that was there first.
            root, only = (path, None) if path.is_dir() else (path.parent, path.resolve())
            tasks.create_task(_watch(root, only, changed))
        while await changed.wait():
            changed.clear()
            await _apply(running, paths)


async def _watch(root: Path, only: Path | None, changed: asyncio.Event) -> None:
    """Set `changed` whenever a manifest below `root`, or `only` this file in it, was written, replaced or removed."""

    def concerns(_: Change, name: str) -> bool:
        return is_manifest(Path(name), root=root) if only is None else Path(name).resolve() == only

    async for _ in awatch(root, watch_filter=concerns, recursive=only is None, debounce=400, rust_timeout=1000):
        changed.set()


async def _apply(running: System, paths: Sequence[Path]) -> None:
    now = datetime.now().astimezone().strftime("%H:%M:%S")
    try:
        files = [(str(path), path.read_bytes()) for path in manifest_files(paths)]
        answer = await running.services.manifest.apply(running.bootstrap.organization, files)
    except SpecError as error:
        output.fail(f"{now} not applied, waiting for the next change:")
        for problem in error.problems or (error,):
            output.fail(f"  {problem}")
    except MixpeekError as error:
        output.fail(f"{now} not applied, waiting for the next change: {error}")
    except OSError as error:
        output.fail(f"{now} not applied, waiting for the next change: {error.filename}: {error.strerror}")
    except Exception:
        _log.exception("applying the files failed")
    else:
        if answer["success"]:
            words = ("created", "updated", "skipped")
            told = ", ".join(f"{answer.get(f'{word}_count') or 0} {word}" for word in words)
            output.say(f"{now} applied: {told}", colour="green")
        else:
            output.fail(f"{now} not applied, waiting for the next change:")
        for line in answer.get("errors") or []:
            output.fail(f"  {line}")


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With the protocol said, asyncio turns Nagle's algorithm off; without, a kept connection waits 40 ms an answer.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        # Early clients wait in the queue; and of two that start at once, one learns of it here.
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise UnavailableError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); choose another --port or --host"
        ) from error
    return listening
