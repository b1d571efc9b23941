"""What documents hold: which fields, of which types, with which values most often. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_COMMON = 5
_DISTINCT = 1000
"""Values of one field that are counted; further new ones are left out, so that memory stays bounded."""
_LONGEST = 80
_TYPES: Mapping[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


@dataclass(slots=True)
class FieldStatistics:
    """Fields of the documents that were added."""

    types: dict[str, Counter[str]] = field(default_factory=dict)
    values: dict[str, Counter[Any]] = field(default_factory=dict)

    def add(self, document: Mapping[str, Any]) -> None:
        """Count the fields of one document; of a list each item counts as a value."""
        for name, value in document.items():
            if value is None:
                continue
            self.types.setdefault(name, Counter())[_TYPES.get(type(value), "object")] += 1
            counted = self.values.setdefault(name, Counter())
            for item in value if isinstance(value, list) else (value,):
                # True and 1 are one key of a mapping, but not one value.
                key = (type(item).__name__, item)
                short = isinstance(item, bool | int | float) or (isinstance(item, str) and len(item) <= _LONGEST)
                if short and (key in counted or len(counted) < _DISTINCT):
                    counted[key] += 1

    def answer(self) -> dict[str, Any]:
        """Return `types` and `common_values` of each field; values that occur once say nothing and are left out."""
        return {
            name: {
                "types": sorted(self.types[name]),
                "common_values": [
                    {"value": key[1], "count": count}
                    for key, count in sorted(self.values[name].items(), key=lambda item: (-item[1], str(item[0])))
                    if count > 1
                ][:_COMMON],
            }
            for name in sorted(self.types)
        }
