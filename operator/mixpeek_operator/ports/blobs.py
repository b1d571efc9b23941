"""Port: files of objects. Keys are `<namespace id>/<bucket id>/<object or upload id>/<name>`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """What is stored under a key; `sha256` is hexadecimal."""

    key: str
    size: int
    sha256: str | None
    content_type: str | None


class BlobStore(Protocol):
    """Every adapter passes `tests/contract/blobs`. Raises NotFoundError for an unknown key."""

    @property
    def upload_headers(self) -> Mapping[str, str]:
        """What a PUT to an `upload_url` has to carry besides its content type."""
        ...

    async def put(self, key: str, data: bytes | AsyncIterator[bytes], *, content_type: str | None = None) -> BlobInfo:
        """Write the file whole; nothing is visible before it is complete."""
        ...

    async def get(self, key: str) -> bytes: ...

    def stream(self, key: str) -> AsyncIterator[bytes]: ...

    async def head(self, key: str) -> BlobInfo | None: ...

    async def delete(self, key: str) -> None: ...

    async def delete_prefix(self, prefix: str) -> int: ...

    async def upload_url(self, key: str, *, content_type: str | None, expires_s: int) -> str:
        """A URL that takes one PUT of the bytes without credentials until it expires."""
        ...

    async def download_url(self, key: str, *, expires_s: int) -> str: ...

    async def health(self) -> None: ...

    async def close(self) -> None: ...
