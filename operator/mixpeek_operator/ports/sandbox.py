"""Port: running code that a tenant wrote. Never in this process, and nowhere that it could reach anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class Program:
    """Python code and what it sees."""

    code: str
    names: Mapping[str, Any]
    """Global variables; JSON values."""
    argument: str
    """Global variable that holds the item."""
    function: str | None
    """Function that is called with each item; None runs all of the code for each."""
    result: str = "result"
    """Without a function: the variable that holds what was made of the item."""
    modules: tuple[str, ...] = ()
    """Modules that it imports: the code can load no other."""
    packages: tuple[str, ...] = ()
    """Distributions beyond the standard library that these modules may come from."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use."""

    item_s: float
    """Seconds for one item."""
    memory_bytes: int
    """Beyond what the interpreter needs itself."""
    output_bytes: int
    """Of what is made of one item, as JSON."""


@dataclass(frozen=True, slots=True)
class Made:
    """What became of one item."""

    outcome: Literal["value", "error", "timeout"]
    value: Any = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run tells."""

    made: Sequence[Made]
    """One per item, in order."""
    printed: str
    """What the code printed, cut after some thousand characters."""
    isolation: tuple[str, ...] = field(default=())
    """What kept it apart: `seccomp` always, `user` and `namespaces` where the kernel gave them."""


class Sandbox(Protocol):
    """Runs code without network, files, environment and other processes, within limits."""

    async def run(self, program: Program, items: Sequence[Any], limits: Limits) -> Ran:
        """Run the program over JSON values.

        Raises NotEnabledError with the reason where the code cannot be isolated, and SpecError when the code does not
        load (`code_invalid`), takes too much memory (`code_memory`), says too much (`code_output`), ends its process
        (`code_died`) or runs into its time again and again (`code_timeout`), or names a package that the server does
        not offer (`package_unknown`).
        """
        ...
