"""A cluster has nothing outside that belongs to it alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixpeek_operator.core.lifecycle import Step, Subject


@dataclass(frozen=True, slots=True)
class Want:
    """A cluster is wanted as it is declared."""


@dataclass(frozen=True, slots=True)
class Have:
    """There is nothing to see outside."""


def want(subject: Subject) -> Want:
    """Return the wish; references and form were checked before."""
    return Want()


def plan(want: Want | None, have: Have) -> Sequence[Step]:
    """Return no step."""
    return []
