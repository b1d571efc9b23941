"""`python -m tests.cluster.values_table`: write the table of values in the chart's README from values.yaml."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml
from tests.servers.helm import CHART

README = CHART / "README.md"
BEGIN, END = "<!-- values: written by `python -m tests.cluster.values_table` -->\n", "<!-- end of values -->\n"


def rows() -> Iterator[tuple[str, str, str]]:
    """Yield (path, default, description) of every value; the comment above a value describes it."""
    text = (CHART / "values.yaml").read_text()
    node = yaml.compose(text)
    assert isinstance(node, yaml.MappingNode)
    yield from _below(node, (), text.splitlines())


def _below(node: yaml.MappingNode, above: tuple[str, ...], lines: list[str]) -> Iterator[tuple[str, str, str]]:
    for key, value in node.value:
        path = (*above, str(key.value))
        comment: list[str] = []
        line = key.start_mark.line - 1
        while line >= 0 and (found := re.fullmatch(r"\s*# (.*)", lines[line])):
            comment.insert(0, found[1])
            line -= 1
        said = " ".join(comment)
        if isinstance(value, yaml.MappingNode) and value.value:
            if said:
                yield ".".join(path), "", said
            yield from _below(value, path, lines)
        else:
            yield ".".join(path), json.dumps(_plain(value)), said


def _plain(node: Any) -> Any:
    return yaml.safe_load(yaml.serialize(node))


def table() -> str:
    """Return the table."""
    body = [f"| `{path}` | {f'`{default}`' if default else ''} | {said} |" for path, default, said in rows()]
    return "\n".join(["| value | default | meaning |", "| --- | --- | --- |", *body]) + "\n"


def written(readme: str) -> str:
    """Return the README with the table of now."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
