"""The `Sandbox` port: a process of its own for each run, that can compute and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import orjson

from mixpeek_operator.core.errors import MixpeekError, NotEnabledError, SpecError, UnavailableError
from mixpeek_operator.ports.sandbox import Limits, Made, Program, Ran

_CHILD: Final = str(Path(__file__).with_name("_sandbox_child.py"))
_START_S: Final = 30.0
"""Seconds for the process to start, load the modules and become harmless."""
_MOST_TIMEOUTS: Final = 3
"""Items that may run into their time before the run is given up."""
_MOST_S: Final = 120.0
"""Seconds one run may take, whatever its items may."""
_MOST_PRINTED: Final = 10_000


class ProcessSandbox:
    """Starts at most `at_once` processes at a time; `packages` are the distributions that code may import."""

    def __init__(self, *, packages: Sequence[str] = (), at_once: int | None = None) -> None:
        self._packages = frozenset(_normal(name) for name in packages)
        self._turn = asyncio.Semaphore(at_once or max(2, os.cpu_count() or 1))

    async def run(self, program: Program, items: Sequence[Any], limits: Limits) -> Ran:
        """Run the program over JSON values; after one that runs into its time, a new process does the others."""
        if sys.platform != "linux":
            raise NotEnabledError(f"code cannot be isolated on {sys.platform}: it needs Linux and its seccomp")
        paths = self._paths(program)
        made: list[Made] = []
        layers: tuple[str, ...] = ()
        printed = ""
        async with self._turn:
            try:
                async with asyncio.timeout(_MOST_S):
                    while len(made) < len(items):
                        async with _started(program, limits, paths) as process:
                            layers = process.layers
                            async for one, text in process.answers(items[len(made) :]):
                                made.append(one)
                                printed = (printed + text)[:_MOST_PRINTED]
                        _give_up(made, limits)
            except TimeoutError:
                raise SpecError(f"the code took more than {_MOST_S:g} seconds", code="code_timeout") from None
        return Ran(made, printed, layers)

    def _paths(self, program: Program) -> list[str]:
        """Folders that hold the packages; none for a program of the standard library."""
        unknown = sorted({_normal(name) for name in program.packages} - self._packages)
        if unknown:
            offered = ", ".join(sorted(self._packages)) or "none"
            raise SpecError(
                f"the server offers code no package {', '.join(unknown)}; it offers {offered}: its administrator "
                "installs it and names it in MIXPEEK_CODE_PACKAGES",
                code="package_unknown",
            )
        known = metadata.packages_distributions() if program.packages else {}
        for module in program.modules:
            top = module.partition(".")[0]
            wanted = {_normal(name) for name in known.get(top, ())}
            if top not in sys.stdlib_module_names and not wanted & {_normal(name) for name in program.packages}:
                raise SpecError(f"the code imports {module!r}; name its package in `packages`", code="package_unknown")
        return [path for path in sys.path if path.endswith("-packages")] if program.packages else []


class _Process:
    """A process that has become harmless and waits for items."""

    def __init__(self, process: asyncio.subprocess.Process, limits: Limits, layers: tuple[str, ...]) -> None:
        self.layers = layers
        self._process = process
        self._limits = limits

    async def answers(self, items: Sequence[Any]) -> AsyncIterator[tuple[Made, str]]:
        """Yield what becomes of each item, and what it printed; nothing more after one that ran into its time."""
        assert self._process.stdin is not None
        feeding = asyncio.create_task(_feed(self._process.stdin, items))
        try:
            for _ in items:
                try:
                    async with asyncio.timeout(self._limits.item_s):
                        answer = await _line(self._process)
                except TimeoutError:
                    yield Made("timeout", message=f"TimeoutError: more than {self._limits.item_s:g} seconds"), ""
                    return
                text = str(answer.get("printed") or "")
                if "value" in answer:
                    yield Made("value", answer["value"]), text
                else:
                    yield Made("error", message=str(answer.get("error"))), text
        finally:
            feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await feeding


@contextlib.asynccontextmanager
async def _started(program: Program, limits: Limits, paths: Sequence[str]) -> AsyncIterator[_Process]:
    head = {
        "code": program.code,
        "names": program.names,
        "argument": program.argument,
        "function": program.function,
        "result": program.result,
        "modules": program.modules,
        "paths": paths,
        "memory_bytes": limits.memory_bytes,
        "output_bytes": limits.output_bytes,
        "cpu_s": math.ceil(_MOST_S),
    }
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-B", "-X", "utf8", _CHILD,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={},
            cwd="/",
            limit=2 * limits.output_bytes + 64 * 1024,
        )  # fmt: skip
    except OSError as error:
        raise UnavailableError(f"the process for the code cannot be started: {error.strerror}") from error
    assert process.stdin is not None
    try:
        late: MixpeekError = UnavailableError("the process for the code does not start; try again later")
        ready = await _within(_START_S, process, late, [head])
        if "refused" in ready:
            raise NotEnabledError(f"code cannot be isolated on this server: {ready['refused']}")
        late = SpecError(f"the code takes more than {limits.item_s:g} seconds to load", code="code_timeout")
        loaded = ready if "invalid" in ready else await _within(limits.item_s, process, late)
        if "invalid" in loaded:
            raise SpecError(f"the code does not load: {loaded['invalid']}", code="code_invalid")
        yield _Process(process, limits, tuple(ready["ready"]))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.stdin.close()
        await process.wait()


async def _within(
    seconds: float, process: asyncio.subprocess.Process, late: MixpeekError, items: Sequence[Any] = ()
) -> Mapping[str, Any]:
    """Send items and return the next answer. Raises `late` when it takes too long."""
    assert process.stdin is not None
    try:
        async with asyncio.timeout(seconds):
            await _feed(process.stdin, items)
            return await _line(process)
    except TimeoutError:
        raise late from None


async def _feed(stdin: asyncio.StreamWriter, items: Sequence[Any]) -> None:
    # A process that has ended is noticed by who reads its answers.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for item in items:
            stdin.write(orjson.dumps(item, default=str, option=orjson.OPT_NON_STR_KEYS) + b"\n")
            await stdin.drain()


async def _line(process: asyncio.subprocess.Process) -> Mapping[str, Any]:
    """The next answer; the code may have written it itself, so nothing in it is trusted. Raises SpecError."""
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
    except ValueError:
        raise SpecError("the code writes more than it may: let it return less", code="code_output") from None
    if not line.endswith(b"\n"):
        status = await process.wait()
        ended = f"by signal {-status}" if status < 0 else f"with status {status}"
        raise SpecError(f"the code ended its process {ended}", code="code_died")
    try:
        answer = orjson.loads(line)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        reason = "it returned a number beyond all doubles, or wrote to its standard output past `print`"
        raise SpecError(f"the answer of the code is no JSON: {reason}", code="code_output")
    if answer.get("memory"):
        raise SpecError("the code needs more memory than it may have; raise `memory`", code="code_memory")
    return answer


def _give_up(made: Sequence[Made], limits: Limits) -> None:
    if sum(one.outcome == "timeout" for one in made) >= _MOST_TIMEOUTS:
        raise SpecError(
            f"the code took more than {limits.item_s:g} seconds for {_MOST_TIMEOUTS} documents; the others were not "
            "tried",
            code="code_timeout",
        )


def _normal(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(".", "-")
