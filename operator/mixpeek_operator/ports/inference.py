"""Port: models that turn inputs into features, or say how relevant a text is. The same model embeds documents and
queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from mixpeek_operator.ports.vectors import Vector


@dataclass(frozen=True, slots=True)
class Scores:
    """How relevant each of some texts is to a query; comparable with each other, and only with those of `model`."""

    values: Sequence[float]
    model: str
    """Identity of what scored: `<name>@<weights>`."""
    method: Literal["cross_encoder", "bi_encoder"]
    """cross_encoder: query and text were read together; bi_encoder: the cosine of their vectors."""


class Inference(Protocol):
    """Raises ModelUnavailableError naming the setting to change; nothing ever falls back to another model."""

    async def embed(self, model: str, inputs: Sequence[str], *, purpose: str, namespace_id: str) -> list[Vector]:
        """One vector per input; `purpose` is `document` or `query`; cached by (model, purpose, input)."""
        ...

    async def score(self, model: str, query: str, texts: Sequence[str], *, namespace_id: str) -> Scores:
        """One score per text, by a cross-encoder, or by a dense embedding model when `model` is one; cached."""
        ...

    async def identity(self, model: str, *, namespace_id: str) -> str:
        """What `embed` computes with: `<name>@<weights>`. Vectors are comparable only under the same identity."""
        ...

    async def health(self) -> None: ...

    async def close(self) -> None: ...
