"""Processing of objects as soon as they are there, for the calls that ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mixpeek_operator.api.services import Services
from mixpeek_operator.core.scope import Scope


async def process(services: Services, where: Scope, bucket: str, object_ids: Sequence[str]) -> dict[str, Any] | None:
    """Put objects into a batch, submit it and return its task; None when no enabled collection reads the bucket."""
    namespace_id = str(where.namespace_id)
    info = await services.directory.bucket(namespace_id, bucket)
    readers = await services.directory.collections(namespace_id)
    if not object_ids or not any(item.enabled and info.id in item.source_ids for item in readers):
        return None
    return await services.batches.process(where, info.id, object_ids)
