"""The resource kinds, one folder each; they do not know each other."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType

from mixpeek_operator.core.lifecycle import Kind
from mixpeek_operator.core.registry import discover


def kinds() -> Mapping[str, Kind]:
    """Return every kind by its name, in the order of the folders. Raises InternalError for a folder without KIND."""
    found = discover(sys.modules[__name__], "KIND", Kind, packages_only=True)
    return MappingProxyType({kind.name: kind for kind in found.values()})
