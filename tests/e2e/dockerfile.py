"""Reads a Dockerfile: stages, and the instructions in them. No build of its own, so that what it means is plain."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

_KNOWN = {"FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR", "USER", "ENTRYPOINT", "CMD", "LABEL", "EXPOSE"}


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, joined to one line."""

    word: str
    text: str
    line: int


@dataclass(slots=True)
class Stage:
    """A stage: what it starts from (an image or another stage) and what is done."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)


def read(path: Path) -> dict[str, Stage]:
    """Return the stages by name, in order. Raises ValueError, with the line, for what is not understood."""
    stages: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    for item in _instructions(path.read_text()):
        if item.word == "ARG" and not stages:
            name, _, default = item.text.partition("=")
            arguments[name] = default
        elif item.word == "FROM":
            found = re.fullmatch(r"(\S+)(?:\s+[Aa][Ss]\s+(\S+))?", expand(item.text, arguments))
            if found is None:
                raise ValueError(f"{path}:{item.line}: FROM is not understood: {item.text}")
            name = found[2] or str(len(stages))
            stages[name] = Stage(name, found[1])
        elif not stages:
            raise ValueError(f"{path}:{item.line}: {item.word} before the first FROM")
        else:
            list(stages.values())[-1].instructions.append(item)
    return stages


def expand(text: str, variables: dict[str, str]) -> str:
    """Return the text with `$NAME` and `${NAME}` filled in."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: variables.get(found[1] or found[2], ""), text)


def assignments(text: str) -> dict[str, str]:
    """Return what an ENV or LABEL sets."""
    return dict(part.partition("=")[::2] for part in shlex.split(text))


def words(text: str) -> list[str]:
    """Return an ENTRYPOINT or CMD in its JSON form. Raises ValueError for the shell form, which needs a shell."""
    try:
        found = json.loads(text)
    except ValueError:
        raise ValueError(f"write it as a JSON list: {text}") from None
    return [str(item) for item in found]


def _instructions(text: str) -> list[Instruction]:
    found: list[Instruction] = []
    held, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or (not held and not line.strip()):
            continue
        start = start if held else number
        if line.rstrip().endswith("\\"):
            held += line.rstrip()[:-1] + " "
            continue
        word, _, rest = (held + line).strip().partition(" ")
        held = ""
        if word.upper() not in _KNOWN:
            raise ValueError(f"line {start}: {word} is not understood")
        found.append(
            Instruction(word.upper(), " ".join(rest.split()) if word.upper() != "RUN" else rest.strip(), start)
        )
    return found
