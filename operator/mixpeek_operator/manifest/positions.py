"""Where the nodes of a YAML text are: a second pass that only a file with a problem pays for."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

_TEXT = "tag:yaml.org,2002:str"


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the cyclic garbage collector from running meanwhile."""
    # Thousands of live containers make each collection longer than the work between two of them, and nothing
    # built here is cyclic.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _PositionLoader(yaml.CSafeLoader):
    """Composes nodes without deciding their types, which only positions are read from."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        return _TEXT

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:
        return None

    def ascend_resolver(self) -> None:
        return None


def compose(text: str) -> list[yaml.Node | None]:
    """Return the nodes of every document. The text was read before, so that its depth is known to be bounded."""
    try:
        with collector_paused():
            return list(yaml.compose_all(text, Loader=_PositionLoader))
    except yaml.YAMLError:
        return []  # JSON that YAML cannot read (tabs between tokens): problems are placed by path alone


def child(node: yaml.Node | None, part: str | int, mark: Any) -> tuple[yaml.Node | None, Any]:
    """Return the node of a part of a path and where it is; (None, `mark`) when there is none."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return value, key.start_mark
        for key, value in node.value:
            if key.value == "<<":
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    found, where = child(merged, part, mark)
                    if found is not None:
                        return found, where
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part].start_mark
    return None, mark
