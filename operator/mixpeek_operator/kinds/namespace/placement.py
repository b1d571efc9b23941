"""Which vector server a namespace's collection is on."""

from __future__ import annotations

from mixpeek_operator.core.errors import NotFoundError, SpecError, UnavailableError
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.placeholders import secret_of
from mixpeek_operator.ports.secrets import Secrets


class VectorPlacement:
    """Answers from the declarations and the organization's secrets; a key is read anew at every call."""

    def __init__(self, index: ResourceIndex, secrets: Secrets) -> None:
        self._index = index
        self._secrets = secrets

    async def __call__(self, collection: str) -> tuple[str, str | None] | None:
        """Return URL and key of the server of a namespace's own, None when it has none.

        Raises UnavailableError for a secret that does not exist, SpecError for a key that is no placeholder.
        """
        namespace = self._index.by_id(collection)
        infrastructure = (namespace.spec.get("infrastructure") or {}) if namespace else {}
        url, written = infrastructure.get("qdrant_url"), infrastructure.get("qdrant_api_key")
        if namespace is None or not url:
            return None
        if not written:
            return str(url), None
        name = secret_of(str(written))
        if name is None:
            raise SpecError("infrastructure.qdrant_api_key must be a placeholder such as ${{ secrets.QDRANT_API_KEY }}")
        try:
            return str(url), await self._secrets.value(namespace.metadata.organization, name)
        except NotFoundError as error:
            raise UnavailableError(
                f"the secret {name!r} of infrastructure.qdrant_api_key does not exist; create it"
            ) from error
