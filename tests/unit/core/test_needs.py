from __future__ import annotations

from collections.abc import Collection

import pytest

from mixpeek_operator.core.catalog import Need
from mixpeek_operator.core.needs import lacking, there

EXA, CRM = Need("secret", "exa", ("stages", 0)), Need("connection", "crm", ("stages", 1))


class _Names:
    def __init__(self, *names: str) -> None:
        self._names = names
        self.asked: list[str] = []

    async def names(self, organization: str) -> Collection[str]:
        self.asked.append(organization)
        return self._names


@pytest.mark.parametrize(
    ("needs", "secrets", "connections", "expected"),
    [
        ([], 0, 0, []),
        ([EXA, EXA], 1, 0, [EXA, EXA]),
        ([CRM], 0, 1, []),
        ([EXA, CRM], 1, 1, [EXA]),
    ],
    ids=["nothing needed", "secrets", "connections", "both"],
)
async def test_only_what_is_needed_is_read_and_what_is_not_there_is_named(
    needs: list[Need], secrets: int, connections: int, expected: list[Need]
) -> None:
    held, opened = _Names("other"), _Names("crm")
    names = await there(needs, "acme", secrets=held, connections=opened)
    assert (held.asked, opened.asked) == (["acme"] * secrets, ["acme"] * connections)
    assert lacking(needs, names) == expected


async def test_what_cannot_be_known_is_not_lacking() -> None:
    names = await there([EXA, CRM], "acme", secrets=None, connections=None)
    assert lacking([EXA, CRM], names) == []
