"""Records as MongoDB documents, filters as its queries, and what a list of writes comes to.

A body is stored as it is, to be queried and read by people. The few fields that BSON or a query language over paths
cannot hold (names with a dot, arrays within arrays, huge numbers…) stand as JSON text under `encoded`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from mixpeek_operator.core.errors import AlreadyExistsError, ConflictError
from mixpeek_operator.core.filters import And, Compare, Filter, Not, Operator, Or
from mixpeek_operator.ports.metadata import Record, Write

Document = dict[str, Any]
_DEPTH = 50
_PLAIN_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_EXACT = 2**53
"""Numbers below compare as double precision as they do exactly, so MongoDB and `core.filters` agree on them."""
_NOTHING: Document = {"_id": {"$in": []}}
_ORDER = {Operator.GT: "$gt", Operator.GTE: "$gte", Operator.LT: "$lt", Operator.LTE: "$lte"}


def key_of(namespace_id: str, id: str) -> str:
    """Return the `_id` of a record: no two records share one, whatever their ids hold."""
    return f"{namespace_id.replace('%', '%25').replace('/', '%2F')}/{id}"


def contents(body: Mapping[str, Any]) -> Document:
    """Return the parts of a document that hold a body: `body`, and `encoded` where it is needed."""
    plain: Document = {}
    odd: list[Document] = []
    for name, value in orjson.loads(orjson.dumps(body)).items():
        if _is_plain_name(name) and _is_plain(value, 0):
            plain[name] = value
        else:
            odd.append({"name": name, "json": orjson.dumps(value).decode()})
    return {"body": plain, "encoded": odd} if odd else {"body": plain}


def replacement(body: Mapping[str, Any]) -> Document:
    """Return the update operators that replace the body of a document."""
    held = contents(body)
    return {"$set": held} if "encoded" in held else {"$set": held, "$unset": {"encoded": ""}}


def body_of(document: Mapping[str, Any]) -> Document:
    """Return the body that a document holds."""
    body: Document = dict(document.get("body") or {})
    for entry in document.get("encoded") or ():
        body[entry["name"]] = orjson.loads(entry["json"])
    return body


def record_of(document: Mapping[str, Any]) -> Record:
    """Return the record that a document is."""
    return Record(document["id"], int(document["version"]), body_of(document))


@dataclass(frozen=True, slots=True)
class Query:
    """A query; not `exact` when it lets more documents through than the filter does."""

    body: Document
    exact: bool


_ALL = Query({}, False)


def query_of(filter: Filter | None) -> Query:
    """Return the query for `filter` over documents without `encoded` fields that it looks at."""
    match filter:
        case None:
            return Query({}, True)
        case And(parts):
            made = [query_of(part) for part in parts]
            return Query({"$and": [part.body for part in made]} if made else {}, all(part.exact for part in made))
        case Or(parts):
            made = [query_of(part) for part in parts]
            return Query({"$or": [part.body for part in made]} if made else _NOTHING, all(part.exact for part in made))
        case Not(parts):
            made = [query_of(part) for part in parts]
            if not all(part.exact for part in made):
                return _ALL
            return Query({"$nor": [part.body for part in made]} if made else {}, True)
        case Compare():
            return _compare(filter)


def is_plain_path(field: str) -> bool:
    """Whether a query may name this field."""
    return _PLAIN_PATH.fullmatch(field) is not None


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one document: `old` and `new` are versions, 0 for none."""

    write: Write
    key: str
    old: int
    new: int


def fold(writes: Sequence[Write], versions: Mapping[tuple[str, str], int]) -> tuple[list[Change], list[Record | None]]:
    """Return the changes that writes in order come to, at most one per document, and the answer to each write.

    `versions` are those of the documents that exist, by table and key. Raises ConflictError, AlreadyExistsError.
    """
    now = dict(versions)
    changes: dict[tuple[str, str], Change] = {}
    answers: list[Record | None] = []
    for write in writes:
        place = (write.table, key_of(write.namespace_id, write.id))
        found = now.get(place, 0)
        if write.if_version is not None and write.if_version != found:
            raise refusal(write, found)
        new = 0 if write.body is None else found + 1
        now[place] = new
        answers.append(None if write.body is None else Record(write.id, new, dict(write.body)))
        changes[place] = Change(write, place[1], versions.get(place, 0), new)
    return [change for change in changes.values() if change.old or change.new], answers


def refusal(write: Write, found: int) -> ConflictError | AlreadyExistsError:
    """Return why a write is refused by the version that is there."""
    if write.if_version == 0 and write.body is not None:
        return AlreadyExistsError(f"{write.table} {write.id!r} exists already")
    return ConflictError(
        f"{write.table} {write.id!r} is at version {found}, not {write.if_version}; read it again and retry"
    )


def _is_plain_name(name: str) -> bool:
    return bool(name) and not name.startswith("$") and "." not in name and "\0" not in name


def _is_plain(value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        return depth < _DEPTH and all(
            _is_plain_name(name) and _is_plain(part, depth + 1) for name, part in value.items()
        )
    if isinstance(value, list):
        return depth < _DEPTH and all(not isinstance(part, list) and _is_plain(part, depth + 1) for part in value)
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _compare(condition: Compare) -> Query:
    if condition.case_insensitive or not is_plain_path(condition.field):
        return _ALL
    path, operator, value = f"body.{condition.field}", condition.operator, condition.value
    if operator in _ORDER:
        return Query({path: {_ORDER[operator]: value}}, True) if _is_number(value) else _ALL
    if operator in (Operator.EQ, Operator.NE):
        if not _is_scalar(value):
            return _ALL
        return Query({path: value if operator is Operator.EQ else {"$ne": value}}, True)
    if operator in (Operator.IN, Operator.NIN) and isinstance(value, list | tuple) and all(map(_is_scalar, value)):
        return Query({path: {"$in" if operator is Operator.IN else "$nin": list(value)}}, True)
    return _ALL


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _EXACT


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | bool) or _is_number(value)
