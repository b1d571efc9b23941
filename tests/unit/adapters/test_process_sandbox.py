"""Code that tries to get out of its process, or to take more than its share; each attempt fails, and is told."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mixpeek_operator.adapters import process_sandbox
from mixpeek_operator.adapters.process_sandbox import ProcessSandbox
from mixpeek_operator.core.errors import NotEnabledError, SpecError, UnavailableError
from mixpeek_operator.ports.sandbox import Limits, Program, Ran

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: seccomp isolates the code")

LIMITS = Limits(item_s=20.0, memory_bytes=64 * 1024 * 1024, output_bytes=100_000)
SHORT = Limits(item_s=1.5, memory_bytes=64 * 1024 * 1024, output_bytes=100_000)


async def run(code: str, items: Sequence[Any] = (None,), limits: Limits = LIMITS, **changes: Any) -> Ran:
    parts = {"names": {}, "argument": "doc", "function": "transform", **changes}
    return await ProcessSandbox().run(Program(code, **parts), items, limits)


async def body(*lines: str, limits: Limits = LIMITS, **changes: Any) -> Any:
    """What a function of these lines returns, or why it returned nothing."""
    [made] = (await run("\n    ".join(["def transform(doc):", *lines]), limits=limits, **changes)).made
    return made.value if made.outcome == "value" else made.message


async def test_code_computes() -> None:
    ran = await run(
        "import json\ndef transform(doc):\n    print(doc)\n    return doc * FACTOR", [1, 2], names={"FACTOR": 3}
    )
    assert [made.value for made in ran.made] == [3, 6]
    assert ran.printed == "1\n2\n"
    assert "seccomp" in ran.isolation
    whole = await run("result = [len(doc) for doc in docs]", [["a", "bb"]], function=None, argument="docs")
    assert whole.made[0].value == [1, 2]


SYS = "import sys; os, socket = sys.modules['os'], sys.modules['socket']"
ESCAPES = {
    "a file": "return open('/etc/passwd').read()",
    "a file that it may write": "return open('/tmp/left-behind', 'w').write('x')",
    "a file by number": "return os.read(3, 10)",
    "a folder": "return os.listdir('/')",
    "its own environment": "return open('/proc/self/environ').read()",
    "memory of processes": "return open(f'/proc/{os.getpid()}/mem', 'rb').read(1)",
    "links in proc": "return os.readlink('/proc/self/exe')",
    "a socket": "return socket.socket().connect(('127.0.0.1', PORT))",
    "a unix socket": "return socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')",
    "a name to look up": "return socket.create_connection(('localhost', PORT))",
    "a process": "return os.fork()",
    "another program": "return os.execv('/bin/sh', ['sh'])",
    "a shell": "return __import__('posix').posix_spawn('/bin/sh', ['sh'], {})",
    "to send signals": "return os.kill(os.getpid(), 0)",
    "to become root": "return os.setuid(0)",
    "a folder of its own": "return os.mkdir('/tmp/x')",
    "to look elsewhere": "return os.chdir('/tmp')",
    "memory that others see": "return os.memfd_create('x')",
    "to raise its limits": "import sys; r = sys.modules['resource']; return r.setrlimit(r.RLIMIT_AS, (-1, -1))",
    "a module from the disk": "import sqlite3; return 1",
    "a thread": "import _thread; return _thread.start_new_thread(print, ())",
    "the filter lifted": (
        "c = sys.modules['ctypes']; libc = c.CDLL(None, use_errno=True); "
        "n = libc.prctl(22, 2, 0, 0, 0); e = c.get_errno(); "
        "raise PermissionError(e, 'refused') if n < 0 else SystemError('lifted')"
    ),
    "a system call by number": (
        "c = sys.modules['ctypes']; libc = c.CDLL(None, use_errno=True); "
        "n = libc.syscall(257, -100, b'/etc/passwd', 0); e = c.get_errno(); "
        "raise PermissionError(e, 'refused') if n < 0 else SystemError('opened')"
    ),
    "a system call of another convention": (
        "c = sys.modules['ctypes']; libc = c.CDLL(None, use_errno=True); "
        "n = libc.syscall(0x40000000 + 2, b'/etc/passwd', 0); e = c.get_errno(); "
        "raise PermissionError(e, 'refused') if n < 0 else SystemError('opened')"
    ),
}


REFUSALS = ("PermissionError", "OSError", "gaierror", "RuntimeError", "ModuleNotFoundError", "ValueError")


@pytest.mark.parametrize("what", ESCAPES)
async def test_code_reaches_nothing(what: str) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        said = await body(SYS, ESCAPES[what], names={"PORT": listening.getsockname()[1]})
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert isinstance(said, str)
    refusals = (
        "PermissionError",
        "OSError",
        "gaierror",
        "RuntimeError",
        "ModuleNotFoundError",
        "ValueError",
        "ImportError",
    )
    assert said.startswith(refusals), said
    assert "lifted" not in said
    assert "opened" not in said


async def test_code_has_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXPEEK_API_KEY", "sk_of_the_server")
    assert await body(SYS, "return dict(os.environ)") == {}
    assert await body(SYS, "return [sys.argv[1:], os.getppid.__name__]") == [[], "getppid"]


async def test_code_takes_no_more_memory_than_it_may() -> None:
    endless = ["doc = []", "while True:", "    doc.append(' ' * 100_000)"]
    for lines in (["return len('x' * 10**9)"], ["return [0] * 10**9"], endless):
        with pytest.raises(SpecError) as caught:
            await body(*lines)
        assert caught.value.code == "code_memory"


async def test_code_that_does_not_end_is_ended() -> None:
    before = _children()
    loop = ["    while doc == 1:", "        try: pass", "        except BaseException: pass"]
    ran = await run("\n".join(["def transform(doc):", *loop, "    return doc"]), [0, 1, 2, 1, 3], SHORT)
    assert [made.outcome for made in ran.made] == ["value", "timeout", "value", "timeout", "value"]
    with pytest.raises(SpecError) as caught:
        await run("def transform(doc):\n    while True: pass", [1, 2, 3, 4], SHORT)
    assert caught.value.code == "code_timeout"
    with pytest.raises(SpecError, match="to load"):
        await run("while True: pass\ndef transform(doc): ...", [1], SHORT)
    assert _children() == before


async def test_who_gives_up_leaves_nothing_behind() -> None:
    before = _children()
    task = asyncio.create_task(run("def transform(doc):\n    while True: pass"))
    while _children() == before:  # noqa: ASYNC110 - nothing tells of a process that starts
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _children() == before


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([SYS, "os._exit(0)"], "code_died"),
        ([SYS, "sys.modules['ctypes'].string_at(0)"], "code_died"),
        (["return 10**400"], "code_output"),
        ([SYS, "os.write(1, b'not json\\n')"], "code_output"),
        ([SYS, "os.write(1, b'[1]\\n')"], "code_output"),
        ([SYS, "while True: os.write(1, b'x' * 65536)"], "code_output"),
    ],
)
async def test_code_that_breaks_its_process_fails(lines: list[str], code: str) -> None:
    with pytest.raises(SpecError) as caught:
        await body(*lines)
    assert caught.value.code == code


async def test_what_fails_is_told() -> None:
    assert await body("return 1 / 0") == "ZeroDivisionError in line 2: division by zero"
    assert "100000 are allowed" in await body("return 'x' * 200_000")
    assert "not JSON serializable" in await body("return {1, 2}")
    assert "Out of range float" in await body("return float('nan')")
    assert "surrogates not allowed" in await body("return '\\ud800'")
    assert await body("print('\\ud800')", "return 'é' * 40_000 + chr(0x1F600)") == "é" * 40_000 + "\U0001f600"
    assert await body("return 10**20") == 1e20
    assert "RecursionError" in await body("return transform(doc)")
    for code, says in {
        "def transform(doc:": "line 1",
        "raise KeyError('gone')\ndef transform(doc): ...": "KeyError in line 1",
    }.items():
        with pytest.raises(SpecError, match=says):
            await run(code)
    assert (await run("def other(doc): ...")).made[0].message == "KeyError: 'transform'"


async def test_packages() -> None:
    sandbox = ProcessSandbox(packages=["PyYAML"])
    code = "import yaml\ndef transform(doc):\n    return yaml.safe_load(doc)"
    parts: dict[str, Any] = {"names": {}, "argument": "doc", "function": "transform", "modules": ("yaml",)}
    ran = await sandbox.run(Program(code, packages=("pyyaml",), **parts), ["a: 1"], LIMITS)
    assert ran.made[0].value == {"a": 1}
    for packages, says in ((("httpx",), "MIXPEEK_CODE_PACKAGES"), ((), "name its package")):
        with pytest.raises(SpecError, match=says):
            await sandbox.run(Program(code, packages=packages, **parts), ["a: 1"], LIMITS)


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        ("libc.syscall(seccomp,", "libc.syscall(999_999,", "seccomp"),
        ("_ERRNO | errno.EPERM", "_ALLOW", "could still open files"),
        ("_MACHINES = {", "_MACHINES = {} and {", "no filter of system calls for"),
    ],
)
def test_without_isolation_nothing_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, good: str, bad: str, says: str
) -> None:
    child = Path(process_sandbox._CHILD).read_text()
    assert good in child
    (tmp_path / "child.py").write_text(child.replace(good, bad))
    monkeypatch.setattr(process_sandbox, "_CHILD", str(tmp_path / "child.py"))
    with pytest.raises(NotEnabledError, match=says):
        asyncio.run(run("def transform(doc): return 1"))


async def test_a_process_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(UnavailableError, match="No such file"):
        await run("def transform(doc): return 1")


async def test_elsewhere_than_on_linux_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(NotEnabledError, match="darwin"):
        await run("def transform(doc): return 1")


def _children() -> set[int]:
    """Processes of ours that run or wait to be reaped."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == os.getpid():
                found.add(int(entry.name))
    return found
