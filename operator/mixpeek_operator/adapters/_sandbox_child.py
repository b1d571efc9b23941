"""The program of a sandbox's process: gives up everything but computing, then runs the code it is sent.

Standard library only: it runs as a script, alone. Lines of JSON come in on standard input and go out on standard
output: first the program, then one item each; first `ready` and `loaded`, or why not, then what became of each item.

What keeps the code inside is the kernel's filter of system calls, which lets through memory, time, and reading and
writing what is open already: the two pipes. That which the interpreter itself forbids, or does not offer, is no fence.
"""

import contextlib
import ctypes
import errno
import importlib
import io
import json
import os
import platform
import resource
import socket
import sys
import traceback
from types import CodeType
from typing import Any

# read write mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn mremap madvise nanosleep getpid exit
# gettimeofday sigaltstack gettid futex restart_syscall clock_gettime clock_getres clock_nanosleep exit_group getrandom
# sched_yield
_X86_64 = (0, 1, 9, 10, 11, 12, 13, 14, 15, 25, 28, 35, 39, 60, 96, 131, 186, 202, 219, 228, 229, 230, 231, 318, 24)
_AARCH64 = (
    63, 64, 222, 226, 215, 214, 134, 135, 139, 216, 233, 101, 172, 93, 169, 132, 178, 98, 128, 113, 114, 115, 94, 278,
    124,
)  # fmt: skip
# Machine: its mark in the kernel's audit, the number of `seccomp`, and the numbers of what is let through.
_MACHINES = {"x86_64": (0xC000003E, 317, _X86_64), "aarch64": (0xC00000B7, 277, _AARCH64)}

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NO_NEW_PRIVILEGES, _SET_FILTER, _ALL_THREADS = 38, 1, 1
_NEW_NAMESPACES = 0x10000000 | 0x40000000 | 0x00020000 | 0x08000000 | 0x04000000
"""User, network, mount, IPC and host name."""
_NOBODY = 65534
_PRINTED = 10_000

# What parts of the standard library load only when they are used; files cannot be opened by then.
_EARLY = ("_strptime", "encodings.ascii", "encodings.latin_1", "encodings.utf_16", "encodings.idna", "linecache")


class _Filter(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]


class _Filters(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filters", ctypes.POINTER(_Filter))]


class Refused(Exception):
    """The code cannot be kept apart here."""


def isolate(memory_bytes: int, cpu_s: int) -> list[str]:
    """Give up everything but computing; return by what. Raises Refused with the reason."""
    machine = platform.machine()
    if machine not in _MACHINES:
        raise Refused(f"there is no filter of system calls for {machine}")
    size = resource.getpagesize() * int(_first_line("/proc/self/statm").split()[0])
    layers = ["seccomp"]
    os.closerange(3, 65536)
    os.chdir("/")
    os.environ.clear()
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
            layers.append("user")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NAMESPACES) == 0:
        layers.append("namespaces")
    for what, limit in (
        (resource.RLIMIT_AS, size + memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        allowed = resource.getrlimit(what)[1]
        most = limit if allowed == resource.RLIM_INFINITY else min(limit, allowed)
        resource.setrlimit(what, (most, most))
    _forbid(libc, *_MACHINES[machine])
    _check()
    return layers


def _forbid(libc: ctypes.CDLL, mark: int, seccomp: int, allowed: tuple[int, ...]) -> None:
    count = len(allowed)
    lines = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, mark), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    # Numbers from 2^30 on are those of another calling convention of the same machine.
    lines += [(_AT_LEAST, count, 0, 0x40000000)]
    lines += [(_EQUAL, count - position, 0, number) for position, number in enumerate(allowed)]
    lines += [(_RETURN, 0, 0, _ERRNO | errno.EPERM), (_RETURN, 0, 0, _ALLOW)]
    filters = (_Filter * len(lines))(*(_Filter(*line) for line in lines))
    program = _Filters(len(lines), filters)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        raise Refused(f"the kernel refuses to take privileges away: {os.strerror(ctypes.get_errno())}")
    if libc.syscall(seccomp, _SET_FILTER, _ALL_THREADS, ctypes.byref(program)) != 0:
        raise Refused(f"the kernel does not filter system calls (seccomp): {os.strerror(ctypes.get_errno())}")


def _check() -> None:
    """Try what must not work."""
    attempts = {
        "open files": lambda: os.open("/", os.O_RDONLY),
        "open sockets": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "start processes": os.fork,
    }
    for what, attempt in attempts.items():
        try:
            attempt()
        except PermissionError:
            continue
        raise Refused(f"the filter of system calls has no effect: it could still {what}")


def _first_line(path: str) -> str:
    with open(path, encoding="ascii") as file:  # noqa: PTH123 - pathlib is slow to import
        return file.readline()


def _say(answer: object) -> None:
    data = json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    while data:
        data = data[os.write(1, data) :]


def _reason(error: BaseException) -> str:
    """Type, message, and the line of the code."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<code>"]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    where = f" in line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}{where}: {error}"[:500]


def _answer(program: dict[str, Any], names: dict[str, Any], compiled: CodeType, item: object) -> dict[str, Any]:
    try:
        names[program["argument"]] = item
        if program["function"] is None:
            exec(compiled, names)  # noqa: S102 - what this process is for
            value = names.get(program["result"])
        else:
            value = names[program["function"]](item)
        size = len(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())
    except MemoryError:
        return {"memory": True}
    except BaseException as error:
        return {"error": _reason(error)}
    if size > program["output_bytes"]:
        return {"error": f"the result has {size} bytes of JSON; {program['output_bytes']} are allowed"}
    return {"value": value}


def main() -> None:
    """Read the program, become harmless, run it over the items."""
    lines = sys.stdin.buffer
    program = json.loads(lines.readline())
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(__file__)] + program["paths"]  # noqa: PTH120
    for module in (*_EARLY, *program["modules"]):
        try:
            importlib.import_module(module)
        except Exception as error:
            _say({"invalid": f"the module {module!r} cannot be loaded: {type(error).__name__}: {error}"})
            return
    try:
        layers = isolate(program["memory_bytes"], program["cpu_s"])
    except (Refused, OSError, ValueError) as error:
        _say({"refused": str(error)})
        return
    _say({"ready": layers})
    sys.stdin, printed = io.StringIO(), io.StringIO()
    sys.stdout = sys.stderr = printed
    names: dict[str, Any] = {"__name__": "code", **program["names"]}
    try:
        compiled = compile(program["code"], "<code>", "exec", dont_inherit=True)
        if program["function"] is not None:
            exec(compiled, names)  # noqa: S102 - what this process is for
    except MemoryError:
        _say({"memory": True})
        return
    except BaseException as error:
        _say({"invalid": _reason(error)})
        return
    _say({"loaded": True})
    for line in lines:
        answer = _answer(program, names, compiled, json.loads(line))
        text = printed.getvalue()
        printed.seek(0)
        printed.truncate()
        if text:
            answer["printed"] = text[:_PRINTED]
        _say(answer)


if __name__ == "__main__":
    main()
