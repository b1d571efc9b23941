"""YAML and JSON text as plain values, with the position of every node on request. Must not know what a manifest is.

One pass over libyaml's events builds the values. Positions are worked out only when a problem has to name its
place: a second pass that a valid file never pays for. The types of plain scalars are those of YAML 1.2 (`yes`,
`no`, `12:30` and dates stay text).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from mixpeek_operator.core.errors import Place, Problem, TooLargeError
from mixpeek_operator.manifest.positions import child, collector_paused, compose

MAX_BYTES = 20 * 1024 * 1024
MAX_NODES = 2_000_000
"""Values in one file, those that aliases repeat counted each time."""
MAX_DEPTH = 100

Path = tuple[str | int, ...]

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_RADIX = re.compile(r"0(?:o[0-7]+|x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_LEAST, _MOST = -(2**63), 2**64 - 1
"""Whole numbers that stores and clients can hold; beyond them digits would be lost."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]")
_TAG = "tag:yaml.org,2002:"
_TAGGED = {f"{_TAG}int": int, f"{_TAG}float": float, f"{_TAG}bool": bool, f"{_TAG}null": type(None)}


class _Missing:
    """No key yet, or a merge key: values no document can hold."""


_NO_KEY: Any = _Missing()
_MERGE: Any = _Missing()


def scalar(text: str) -> Any:
    """Return the value of a plain YAML scalar; `infinity`, `.nan` and numbers with leading zeros are text."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789" or _LEADING_ZERO.match(text):
        return text
    if _INT.match(text) or _RADIX.match(text):
        return text if oversized(text) else int(text, 0)
    return float(text) if _FLOAT.match(text) and abs(float(text)) != float("inf") else text


def oversized(text: str) -> bool:
    """Whether a plain scalar is a whole number that does not fit into 64 bits."""
    if _INT.match(text) or _RADIX.match(text):
        return len(text) >= 64 or not _LEAST <= int(text, 0) <= _MOST
    return False


def path_text(path: Sequence[str | int]) -> str:
    """Return `buckets[0].schema.properties` for a path."""
    parts: list[str] = []
    for part in path:
        parts.append(f"[{part}]" if isinstance(part, int) else f".{part}" if parts else part)
    return "".join(parts)


@dataclass
class Source:
    """A text and where its nodes are."""

    text: str
    file: str | None = None
    documents: list[Any] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    _nodes: list[yaml.Node | None] | None = field(default=None, repr=False)

    def place(
        self,
        path: Sequence[str | int],
        *,
        document: int = 0,
        resource: str | None = None,
        through: Sequence[str] = (),
    ) -> Place:
        """Return where `path` of a document is; the nearest parent that exists when it does not.

        `through` names keys that a path may leave out: what is not in a mapping is looked for below them.
        """
        if self._nodes is None:
            self._nodes = compose(self.text)
        node = self._nodes[document] if document < len(self._nodes) else None
        mark = node.start_mark if node is not None else None
        for part in path:
            parent = node
            node, mark = child(parent, part, mark)
            for wrapper in through if node is None else ():
                inner, _ = child(parent, wrapper, mark)
                node, mark = child(inner, part, mark)
                if node is not None:
                    break
            if node is None:
                break
        text = path_text(path) or None
        if mark is None:
            return Place(self.file, None, None, resource, text)
        return Place(self.file, mark.line + 1, mark.column + 1, resource, text)


def read(text: str | bytes, *, file: str | None = None, max_bytes: int = MAX_BYTES) -> Source:
    """Return the documents of a YAML or JSON text with every problem found while reading.

    Raises TooLargeError before anything is parsed. A syntax error ends the reading; all else is reported together.
    """
    size = len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "surrogatepass"))
    if size > max_bytes:
        raise TooLargeError(
            f"the manifest has {size:,} bytes and the limit is {max_bytes:,}; split it into several manifests",
            code="manifest_too_large",
            place=Place(file),
            details={"size_bytes": size, "limit_bytes": max_bytes},
        )
    if isinstance(text, bytes):
        raw = text
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            message = f"not UTF-8 text: byte {error.start} is {raw[error.start]:#04x}"
            place = Place(file, raw.count(b"\n", 0, error.start) + 1)
            return Source("", file, problems=[Problem("not_text", message, place)])
    source = Source(text.removeprefix("\ufeff"), file)
    with collector_paused():
        if source.text.lstrip()[:1] in ("{", "[") and _read_json(source):
            return source
        _read_yaml(source)
    return source


def _read_json(source: Source) -> bool:
    """Whether the text is JSON; a flow-style YAML text begins alike and is left to the YAML reader."""
    duplicates: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            seen: set[str] = set()
            duplicates.extend(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return found

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    def whole(digits: str) -> int:
        if oversized(digits):
            raise ValueError(f"{digits:.30} does not fit into 64 bits")
        return int(digits)

    try:
        value = json.loads(source.text, object_pairs_hook=pairs, parse_constant=constant, parse_int=whole)
        if _SURROGATE.search(source.text):
            json.dumps(value, ensure_ascii=False).encode()  # half a character, which nothing can store
    except (ValueError, RecursionError):
        return False
    if duplicates or _deeper_than(value, MAX_DEPTH):
        return False  # the YAML reader names the place
    source.documents.append(value)
    return True


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit + 1):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True


class _Fatal(Exception):
    def __init__(self, code: str, message: str, mark: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.mark = code, message, mark


def _read_yaml(source: Source) -> None:
    builder = _Builder(source)
    try:
        loader = yaml.CSafeLoader(source.text)
        try:
            builder.run(loader)
        finally:
            loader.dispose()
    except _Fatal as error:
        source.documents.clear()
        source.problems.append(_problem(source, error.code, error.message, error.mark))
    except yaml.reader.ReaderError as error:
        source.documents.clear()
        line = source.text.count("\n", 0, error.position) + 1
        character = error.character if isinstance(error.character, str) else chr(error.character)
        message = f"not YAML: character {character!r} is not allowed"
        source.problems.append(Problem("not_yaml", message, Place(source.file, line)))
    except yaml.MarkedYAMLError as error:
        source.documents.clear()
        mark = error.problem_mark or error.context_mark
        source.problems.append(_problem(source, "not_yaml", _syntax_message(source.text, error, mark), mark))
    except yaml.YAMLError as error:
        source.documents.clear()
        source.problems.append(Problem("not_yaml", f"not YAML: {error}", Place(source.file)))


def _syntax_message(text: str, error: yaml.MarkedYAMLError, mark: Any) -> str:
    line = ""
    if mark is not None:
        lines = text.splitlines()
        line = lines[mark.line] if mark.line < len(lines) else ""
    indent = line[: len(line) - len(line.lstrip())]
    if "\t" in indent or (mark is not None and line[mark.column : mark.column + 1] == "\t"):
        return "not YAML: a tab cannot indent; use spaces"
    context = f" ({error.context})" if error.context else ""
    return f"not YAML: {error.problem or 'cannot be read'}{context}"


def _problem(source: Source, code: str, message: str, mark: Any, path: Path = ()) -> Problem:
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (None, None)
    return Problem(code, message, Place(source.file, line, column, None, path_text(path) or None), location=path)


class _Builder:
    """Builds plain values from events; aliases share the value they name and are counted as if copied."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.stack: list[tuple[Any, Any, str | None, int]] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.open: set[str] = set()
        self.merges: dict[int, list[Any]] = {}
        self.count = 0

    def run(self, loader: Any) -> None:
        """Read every event. The loop is one function because it runs once per node of the file."""
        get = loader.get_event
        memo: dict[str, Any] = {}
        container: Any = None
        key: Any = _NO_KEY
        documents = self.source.documents
        while True:
            event = get()
            kind = type(event)
            if kind is yaml.ScalarEvent:
                value: Any = event.value
                if event.tag is not None:
                    value = self._tagged(event, container, key)
                elif event.implicit[0]:
                    if value in memo:
                        value = memo[value]
                    else:
                        memo[value] = value = scalar(value)
                        if value.__class__ is str and value[0] in "+-0123456789" and oversized(value):
                            message = f"the whole number {value:.30} does not fit into 64 bits; put it in quotes"
                            self.report("number_too_large", message, event.start_mark, container, key)
                self.count += 1
                if event.anchor is not None:
                    self.anchors[event.anchor] = (value, 1)
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                self._start(event, container, key)
                self.stack.append((container, key, event.anchor, self.count))
                container = {} if kind is yaml.MappingStartEvent else []
                key = _NO_KEY
                continue
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                value = container
                if self.merges and id(value) in self.merges:
                    self._merge(value)
                container, key, anchor, before = self.stack.pop()
                if anchor is not None:
                    self.open.discard(anchor)
                    self.anchors[anchor] = (value, self.count - before)
            elif kind is yaml.AliasEvent:
                value = self._alias(event)
            elif kind is yaml.DocumentStartEvent:
                self.anchors.clear()
                container, key = documents, _NO_KEY
                continue
            elif kind is yaml.StreamEndEvent:
                return
            else:
                continue
            if type(container) is list:
                container.append(value)
            elif key is _NO_KEY:
                key = self._key(event, value, container)
            elif key is _MERGE:
                self.merges.setdefault(id(container), []).append((event.start_mark, value))
                key = _NO_KEY
            else:
                container[key] = value
                key = _NO_KEY
            if self.count > MAX_NODES:
                self._too_many(event)

    def _key(self, event: Any, value: Any, container: dict[str, Any]) -> Any:
        if value.__class__ is not str:
            shown = event.value if isinstance(event, yaml.ScalarEvent) else type(value).__name__
            message = f"keys are text and this one is not: {shown!r}; put it in quotes"
            self.report("key_not_text", message, event.start_mark, container, _NO_KEY)
            return str(shown)
        if value == "<<" and getattr(event, "implicit", (False,))[0]:
            return _MERGE
        if value in container:
            path = self.path(container, value)
            first = self.source.place(path[1:], document=int(path[0]))
            at = f" (first at line {first.line})" if first.line else ""
            self.report("duplicate_key", f"duplicate key {value!r}{at}; keep one", event.start_mark, container, value)
        return value

    def _start(self, event: Any, container: Any, key: Any) -> None:
        if type(container) is dict and key is _NO_KEY:
            raise _Fatal("key_not_text", "a key must be text, not a mapping or a list", event.start_mark)
        if event.tag is not None and event.tag not in (f"{_TAG}map", f"{_TAG}seq"):
            self.report("tag_not_allowed", _tag_message(event.tag), event.start_mark, container, key)
        self.count += 1
        if len(self.stack) >= MAX_DEPTH:
            raise _Fatal("too_deep", f"nested deeper than {MAX_DEPTH} levels", event.start_mark)
        if event.anchor is not None:
            self.open.add(event.anchor)

    def _alias(self, event: Any) -> Any:
        if event.anchor in self.open:
            raise _Fatal("recursive_alias", f"alias *{event.anchor} contains itself", event.start_mark)
        if event.anchor not in self.anchors:
            raise _Fatal("not_yaml", f"not YAML: alias *{event.anchor} has no anchor before it", event.start_mark)
        value, size = self.anchors[event.anchor]
        self.count += size
        if self.count > MAX_NODES:
            self._too_many(event)
        return value

    def _too_many(self, event: Any) -> None:
        message = f"the file expands to more than {MAX_NODES:,} values; aliases that repeat aliases are refused"
        raise _Fatal("too_many_values", message, event.start_mark)

    def _tagged(self, event: Any, container: Any, key: Any) -> Any:
        if event.tag in (f"{_TAG}str", "!"):
            return event.value
        wanted = _TAGGED.get(event.tag)
        if wanted is None:
            self.report("tag_not_allowed", _tag_message(event.tag), event.start_mark, container, key)
            return event.value
        value = scalar(event.value)
        if wanted is float and type(value) is int:
            return float(value)
        if type(value) is not wanted:
            message = f"{event.value!r} is not a value of tag !!{event.tag.removeprefix(_TAG)}"
            self.report("wrong_type", message, event.start_mark, container, key)
        return value

    def _merge(self, target: dict[str, Any]) -> None:
        for mark, value in self.merges.pop(id(target)):
            for item in value if isinstance(value, list) else [value]:
                if not isinstance(item, dict):
                    raise _Fatal("not_yaml", "a merge key (<<) takes a mapping or a list of mappings", mark)
                for name, content in item.items():
                    target.setdefault(name, content)

    def path(self, container: Any, key: Any) -> Path:
        """Path of the next value, the document's index first."""
        parts: list[str | int] = []
        for parent, name, _, _ in self.stack:
            parts.append(len(parent) if isinstance(parent, list) else name if isinstance(name, str) else "<<")
        if isinstance(container, list):
            parts.append(len(container))
        elif isinstance(key, str):
            parts.append(key)
        return tuple(parts)

    def report(self, code: str, message: str, mark: Any, container: Any, key: Any) -> None:
        self.source.problems.append(_problem(self.source, code, message, mark, self.path(container, key)[1:]))


def _tag_message(tag: str) -> str:
    return f"tag {tag.replace(_TAG, '!!')!r} is not allowed; a manifest holds plain values only"
