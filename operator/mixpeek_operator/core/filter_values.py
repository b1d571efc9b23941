"""The values a filter condition looks at, and how one value compares with another.

Pure functions over plain JSON values; `core.filters` gives them their place in the grammar.

* Paths: `a.b` walks objects; an array on the way is walked too, so `items.color` sees the colour of every item.
  `items[].color` says the same. Keys that hold a dot cannot be addressed.
* Numbers are compared as double precision, so `1 == 1.0`; booleans are never numbers.
* Instants: a string in ISO 8601 (`2026-01-31`, or with a time, seconds and an offset optional; no offset means UTC)
  is a moment in time when it is compared by order, with microsecond precision.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, TypeGuard

import re2  # type: ignore[import-untyped]

MAX_PATTERN_LENGTH = 1000
"""Characters of a regular expression; RE2 runs in linear time, so this bounds the memory of compiling."""

_EARTH_RADIUS_M = 6371008.8
_INSTANT = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})"
    r"(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?(Z|[+-]\d{2}:\d{2})?)?\Z",
    re.ASCII,
)
_WORD = re.compile(r"[^\W_]+")


@lru_cache(maxsize=4096)
def segments(path: str) -> tuple[str, ...]:
    """Return the keys of a dotted path; `[]` after a key is accepted and means nothing more than the key."""
    return tuple(part.removesuffix("[]") for part in path.split("."))


def nodes(document: Any, path: str) -> list[Any]:
    """Return what stands at `path`: usually one value, several below an array, none when it is missing."""
    found: list[Any] = [document]
    for key in segments(path):
        following: list[Any] = []
        for node in found:
            if isinstance(node, Mapping):
                if key in node:
                    following.append(node[key])
            elif isinstance(node, list | tuple):
                following.extend(item[key] for item in node if isinstance(item, Mapping) and key in item)
        if not following:
            return following
        found = following
    return found


def elements(found: Iterable[Any]) -> list[Any]:
    """Return the values a condition is tried on: the elements of arrays, everything else as it is."""
    values: list[Any] = []
    for node in found:
        if isinstance(node, list | tuple):
            values.extend(node)
        else:
            values.append(node)
    return values


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a number that can be compared; a boolean is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(left: Any, right: Any, *, fold: bool = False) -> bool:
    """Whether two JSON values are equal; `fold` ignores the case of strings."""
    if isinstance(left, str) and isinstance(right, str):
        return left.casefold() == right.casefold() if fold else left == right
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if is_number(left) and is_number(right):
        return _float(left) == _float(right)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key], fold=fold) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(
            same(one, other, fold=fold) for one, other in zip(left, right, strict=True)
        )
    return left is None and right is None


def compare(left: Any, right: Any) -> int | None:
    """Return the sign of `left - right`, None when they have no common order.

    Numbers by value. Where `right` is an instant, only instants compare with it; other strings by code point.
    """
    if is_number(left) and is_number(right):
        return _sign(_float(left), _float(right))
    if isinstance(right, datetime | date):
        right = right.isoformat()
    if not (isinstance(left, str) and isinstance(right, str)):
        return None
    moment = instant(right)
    if moment is None:
        return _sign(left, right)
    other = instant(left)
    return None if other is None else _sign(other, moment)


@lru_cache(maxsize=4096)
def instant(text: str) -> datetime | None:
    """Return the moment an ISO 8601 string stands for, in UTC, None when it is no instant."""
    match = _INSTANT.match(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    try:
        moment = datetime(
            int(year),
            int(month),
            int(day),
            int(hour or 0),
            int(minute or 0),
            int(second or 0),
            int((fraction or "0")[:6].ljust(6, "0")),
            tzinfo=UTC,
        )
        if offset and offset != "Z":
            moment = datetime.fromisoformat(moment.strftime("%Y-%m-%dT%H:%M:%S.%f").rjust(26, "0") + offset)
            moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment


@lru_cache(maxsize=256)
def pattern(text: str, fold: bool) -> Any:
    """Return the compiled regular expression (RE2 syntax, linear time). Raises ValueError saying what is wrong."""
    if len(text) > MAX_PATTERN_LENGTH:
        raise ValueError(f"a regular expression may have {MAX_PATTERN_LENGTH} characters, this has {len(text)}")
    options = re2.Options()
    options.case_sensitive = not fold
    options.log_errors = False
    try:
        return re2.compile(text, options=options)
    except re2.error as error:
        reason = error.args[0] if error.args else "it does not parse"
        raise ValueError(reason.decode() if isinstance(reason, bytes) else str(reason)) from None


def words(text: str) -> list[str]:
    """Return the words of a text: runs of letters and digits, case folded."""
    return [word.casefold() for word in _WORD.findall(text)]


def has_words(text: str, query: str) -> bool:
    """Whether every word of `query` is a word of `text`; a query without words matches nothing."""
    wanted = words(query)
    return bool(wanted) and set(wanted) <= set(words(text))


def has_any_word(text: str, query: str) -> bool:
    """Whether at least one word of `query` is a word of `text`."""
    return not set(words(query)).isdisjoint(words(text))


def has_phrase(text: str, query: str) -> bool:
    """Whether the words of `query` follow one another in `text`."""
    wanted, have = words(query), words(text)
    size = len(wanted)
    return bool(wanted) and any(have[at : at + size] == wanted for at in range(len(have) - size + 1))


def points(found: Iterable[Any]) -> list[tuple[float, float]]:
    """Return the (longitude, latitude) pairs of `{lat, lon}` objects and `[lon, lat]` arrays, in degrees."""
    result: list[tuple[float, float]] = []
    for node in found:
        one = point(node)
        if one is not None:
            result.append(one)
        elif isinstance(node, list | tuple):
            result.extend(pair for pair in map(point, node) if pair is not None)
    return result


def point(value: Any) -> tuple[float, float] | None:
    """Return (longitude, latitude) of one geographic point, None when `value` is none."""
    if isinstance(value, Mapping):
        lon, lat = value.get("lon", value.get("lng")), value.get("lat")
    elif isinstance(value, list | tuple) and len(value) == 2:
        lon, lat = value
    else:
        return None
    if not (is_number(lon) and is_number(lat)):
        return None
    pair = (_float(lon), _float(lat))
    return pair if -180 <= pair[0] <= 180 and -90 <= pair[1] <= 90 else None


def in_radius(where: tuple[float, float], shape: Mapping[str, Any]) -> bool:
    """Whether a point lies within `{center, radius}` (radius in metres, great-circle distance)."""
    center, radius = point(shape.get("center")), shape.get("radius")
    if center is None or not is_number(radius):
        return False
    lon_a, lat_a, lon_b, lat_b = map(math.radians, (*where, *center))
    half = math.sin((lat_b - lat_a) / 2) ** 2
    half += math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    return 2 * _EARTH_RADIUS_M * math.asin(min(1.0, math.sqrt(half))) <= _float(radius)


def in_box(where: tuple[float, float], shape: Mapping[str, Any]) -> bool:
    """Whether a point lies in `{top_left, bottom_right}`, edges included; the box may cross the antimeridian."""
    top_left, bottom_right = point(shape.get("top_left")), point(shape.get("bottom_right"))
    if top_left is None or bottom_right is None:
        return False
    lon, lat = where
    west, east = top_left[0], bottom_right[0]
    inside = west <= lon <= east if west <= east else lon >= west or lon <= east
    return inside and bottom_right[1] <= lat <= top_left[1]


def in_polygon(where: tuple[float, float], shape: Mapping[str, Any]) -> bool:
    """Whether a point lies in `{exterior, interiors}` (rings of points; interiors are holes) on the flat map."""
    holes = shape.get("interiors") or []
    return _in_ring(where, shape.get("exterior")) and not any(_in_ring(where, hole) for hole in holes)


def shape_problem(kind: str, shape: Any) -> str | None:
    """Return what is wrong with the value of a geo condition, None when nothing is."""
    if not isinstance(shape, Mapping):
        return "takes an object"
    if kind == "geo_radius":
        if point(shape.get("center")) is None or not is_number(shape.get("radius")):
            return "takes {center: {lat, lon}, radius: metres}"
    elif kind == "geo_bounding_box":
        if point(shape.get("top_left")) is None or point(shape.get("bottom_right")) is None:
            return "takes {top_left: {lat, lon}, bottom_right: {lat, lon}}"
    elif len(_ring(shape.get("exterior"))) < 3:
        return "takes {exterior: [{lat, lon}, …]} with at least three points"
    return None


def _ring(ring: Any) -> list[tuple[float, float]]:
    if isinstance(ring, Mapping):
        ring = ring.get("points")
    if not isinstance(ring, Sequence) or isinstance(ring, str):
        return []
    return [pair for pair in map(point, ring) if pair is not None]


def _in_ring(where: tuple[float, float], ring: Any) -> bool:
    corners = _ring(ring)
    lon, lat = where
    inside = False
    for (lon_a, lat_a), (lon_b, lat_b) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (lat_a > lat) != (lat_b > lat) and lon < (lon_b - lon_a) * (lat - lat_a) / (lat_b - lat_a) + lon_a:
            inside = not inside
    return inside


def _sign(left: Any, right: Any) -> int | None:
    if left < right:
        return -1
    if left > right:
        return 1
    return 0 if left == right else None


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
