"""Judged collections in the format of SMART, as CISI, CRAN, MED and others come: NAME.ALL, NAME.QRY, NAME.REL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Judged:
    """Texts and queries by number, and which texts are relevant to which query."""

    name: str
    texts: dict[str, str]
    queries: dict[str, str]
    """Those with at least one relevant text."""
    relevant: dict[str, set[str]]


def read(folder: Path) -> Judged:
    """Return the set in `folder`. Raises FileNotFoundError unless it holds one file of each kind."""
    texts = dict(_records(_file(folder, "ALL")))
    queries = dict(_records(_file(folder, "QRY")))
    relevant: dict[str, set[str]] = {}
    for line in _file(folder, "REL").read_text(errors="replace").splitlines():
        query, text = line.split()[:2]
        relevant.setdefault(query, set()).add(text)
    judged = {id: text for id, text in queries.items() if relevant.get(id)}
    return Judged(_file(folder, "ALL").stem, texts, judged, relevant)


def _file(folder: Path, kind: str) -> Path:
    found = [path for path in folder.iterdir() if path.suffix.upper() == f".{kind}"]
    if len(found) != 1:
        raise FileNotFoundError(f"{folder} must hold one *.{kind} file, and holds {len(found)}")
    return found[0]


def _records(path: Path) -> Iterator[tuple[str, str]]:
    """Number and text of each record: its title (.T) and its body (.W)."""
    number, field, parts = "", "", list[str]()
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith(".I "):
            if number:
                yield number, " ".join(parts)
            number, field, parts = line[3:].strip(), "", []
        elif line[:1] == "." and line[1:].strip() in ("T", "A", "B", "W", "X", "N", "K", "C"):
            field = line[1:].strip()
        elif field in ("T", "W") and line.strip():
            parts.append(line.strip())
    if number:
        yield number, " ".join(parts)
