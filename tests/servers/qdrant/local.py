"""Qdrant's local mode: the client's own reading of Qdrant in Python, without a server."""

from __future__ import annotations

import warnings
from typing import Any

from qdrant_client import AsyncQdrantClient, models


class LocalQdrant(AsyncQdrantClient):
    """Local mode in memory. It keeps no payload indexes, so what was asked for is remembered here and shown."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self._indexes: dict[str, dict[str, models.PayloadIndexInfo]] = {}

    async def create_payload_index(  # type: ignore[override]
        self, collection_name: str, field_name: str, field_schema: Any, **options: Any
    ) -> models.UpdateResult:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Payload indexes have no effect in the local Qdrant")
            done = await super().create_payload_index(collection_name, field_name, field_schema, **options)
        kind = field_schema if isinstance(field_schema, str) else field_schema.type
        made = models.PayloadIndexInfo(data_type=models.PayloadSchemaType(kind), points=0)
        self._indexes.setdefault(collection_name, {})[field_name] = made
        return done

    async def delete_payload_index(  # type: ignore[override]
        self, collection_name: str, field_name: str, **options: Any
    ) -> models.UpdateResult:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Payload indexes have no effect in the local Qdrant")
            done = await super().delete_payload_index(collection_name, field_name, **options)
        self._indexes.get(collection_name, {}).pop(field_name, None)
        return done

    async def delete_collection(self, collection_name: str, **options: Any) -> bool:  # type: ignore[override]
        self._indexes.pop(collection_name, None)
        return await super().delete_collection(collection_name, **options)

    async def get_collection(self, collection_name: str, **options: Any) -> models.CollectionInfo:
        info = await super().get_collection(collection_name, **options)
        physical = (info.config.metadata or {}).get("physical", collection_name)
        return info.model_copy(update={"payload_schema": dict(self._indexes.get(physical, {}))})
