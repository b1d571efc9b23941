"""Port: models that turn inputs into features. The same model embeds documents and queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mixpeek_operator.ports.vectors import Vector


class Inference(Protocol):
    """Raises ModelUnavailableError naming the setting to change; nothing ever falls back to another model."""

    async def embed(self, model: str, inputs: Sequence[str], *, purpose: str, namespace_id: str) -> list[Vector]:
        """One vector per input; `purpose` is `document` or `query`; cached by (model, purpose, input)."""
        ...

    async def identity(self, model: str, *, namespace_id: str) -> str:
        """What `embed` computes with: `<name>@<weights>`. Vectors are comparable only under the same identity."""
        ...

    async def health(self) -> None: ...

    async def close(self) -> None: ...
