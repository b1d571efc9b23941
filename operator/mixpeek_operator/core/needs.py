"""What stages need of an organization beyond what is declared: which of it is there, and which is lacking."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from mixpeek_operator.core.catalog import Need
from mixpeek_operator.ports.names import Names


async def there(
    needs: Iterable[Need], organization: str, *, secrets: Names | None, connections: Names | None
) -> dict[str, Collection[str]]:
    """Return the names there are of each kind that is needed; of what is None nothing is known."""
    asked = {need.kind for need in needs}
    sources = {"secret": secrets, "connection": connections}
    return {
        kind: await source.names(organization)
        for kind, source in sources.items()
        if kind in asked and source is not None
    }


def lacking(needs: Iterable[Need], there: Mapping[str, Collection[str]]) -> list[Need]:
    """Return the needs that nothing satisfies; one of a kind that `there` does not hold may well be satisfied."""
    return [need for need in needs if need.kind in there and need.name not in there[need.kind]]
