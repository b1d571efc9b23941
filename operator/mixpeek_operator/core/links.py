"""Download links of the files that objects hold and documents were made of: signed, for a while, no credentials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mixpeek_operator.ports.blobs import BlobStore


class Links:
    """Signs links to files of one namespace at a time; a key of another namespace is never signed."""

    def __init__(self, blobs: BlobStore, *, expires_s: int) -> None:
        """`expires_s` is the life of a link in seconds."""
        self._blobs = blobs
        self.expires_s = expires_s

    async def of_blobs(self, namespace_id: str, blobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return an object's blobs, those that are files with `presigned_url` beside and inside `properties`."""
        shown = []
        for blob in blobs:
            url = await self._url(namespace_id, blob["properties"].get("key"))
            if url is None:
                shown.append(dict(blob))
            else:
                properties = {**blob["properties"], "presigned_url": url}
                shown.append({**blob, "properties": properties, "presigned_url": url})
        return shown

    async def of_documents(
        self,
        namespace_id: str,
        documents: Sequence[Mapping[str, Any]],
        internals: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> list[dict[str, Any]]:
        """Return documents with `document_blobs`, one entry per file of the object each was made of.

        What a document was made of stands in its `_internal`; for a document that a stage took it from, `internals`
        gives it by document id.
        """
        urls: dict[Any, str | None] = {}
        shown = []
        for document in documents:
            internal = document.get("_internal") or (internals or {}).get(str(document.get("document_id"))) or {}
            entries = []
            for blob in internal.get("source_blobs") or ():
                key = blob.get("key")
                if key not in urls:
                    urls[key] = await self._url(namespace_id, key)
                url = urls[key]
                if url is not None:
                    entries.append(_entry(blob, url))
            shown.append({**document, "document_blobs": entries})
        return shown

    async def _url(self, namespace_id: str, key: Any) -> str | None:
        if not isinstance(key, str) or not key.startswith(f"{namespace_id}/"):
            return None
        return await self._blobs.download_url(key, expires_s=self.expires_s)


def _entry(blob: Mapping[str, Any], url: str) -> dict[str, Any]:
    digest = blob.get("hash")
    return {
        "field": blob.get("blob_property"),
        "role": "source",
        "type": blob.get("blob_type"),
        "url": blob.get("source_url") or blob["key"],
        "filename": blob.get("filename"),
        "size_bytes": blob.get("size_bytes"),
        "content_type": blob.get("mime_type"),
        "checksum": f"sha256:{digest}" if digest else None,
        "source_blob_id": blob.get("blob_id"),
        "presigned_url": url,
    }
