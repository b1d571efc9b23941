"""`${{ … }}` in a manifest: finding the expressions and replacing them. Must not know what a value means."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from mixpeek_operator.manifest.text import Path

_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_DOTTED = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*\.\s*([A-Za-z_][A-Za-z0-9_-]*)\s*\Z")


def expressions(value: Any, path: Path = ()) -> Iterator[tuple[Path, str, str, str]]:
    """Yield (path, scope, name, text) of every expression; scope is "" for one that cannot be read.

    `${{ secrets.KEY }}` has scope `secrets` and name `KEY`.
    """
    if isinstance(value, str):
        if "${{" in value:
            for match in _EXPRESSION.finditer(value):
                dotted = _DOTTED.match(match.group(1))
                yield path, dotted.group(1) if dotted else "", dotted.group(2) if dotted else "", match.group(0)
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, (str, dict, list)):
                yield from expressions(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, (str, dict, list)):
                yield from expressions(item, (*path, index))


def replaced(value: Any, replace: Callable[[str, str, bool], Any], path: Path = ()) -> Any:
    """Return a copy where `replace(scope, name, whole)` stands for each expression; None keeps it as written.

    `whole` is true when the expression is all there is in the text: its replacement then keeps its type.
    """
    if isinstance(value, str):
        if "${{" not in value:
            return value
        only = _EXPRESSION.fullmatch(value.strip())
        if only and (dotted := _DOTTED.match(only.group(1))):
            found = replace(dotted.group(1), dotted.group(2), True)
            return value if found is None else found
        return _EXPRESSION.sub(lambda match: _inline(match, replace), value)
    if isinstance(value, dict):
        return {key: replaced(item, replace) for key, item in value.items()}
    if isinstance(value, list):
        return [replaced(item, replace) for item in value]
    return value


def _inline(match: re.Match[str], replace: Callable[[str, str, bool], Any]) -> str:
    dotted = _DOTTED.match(match.group(1))
    found = replace(dotted.group(1), dotted.group(2), False) if dotted else None
    if found is None:
        return match.group(0)
    if isinstance(found, bool):
        return "true" if found else "false"
    return str(found)
