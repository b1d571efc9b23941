"""Finding plugins: a stage, an extractor or a kind is one module, and its name is its id."""

from __future__ import annotations

import importlib
import pkgutil
from types import MappingProxyType, ModuleType
from typing import TypeVar

from mixpeek_operator.core.errors import InternalError

T = TypeVar("T")


def discover(
    package: ModuleType, attribute: str, expected: type[T], *, packages_only: bool = False
) -> MappingProxyType[str, T]:
    """Return `module name → its <attribute>` for every module of `package`, in name order.

    Modules whose name starts with `_` are not plugins, nor single modules where plugins are folders
    (`packages_only`). Raises InternalError when a module lacks the
    attribute or holds another type; an import error is not swallowed.
    """
    found: dict[str, T] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda item: item.name):
        if info.name.startswith("_") or (packages_only and not info.ispkg):
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        plugin = getattr(module, attribute, None)
        if not isinstance(plugin, expected):
            raise InternalError(f"{module.__name__} must define {attribute} of type {expected.__name__}")
        found[info.name] = plugin
    return MappingProxyType(found)
