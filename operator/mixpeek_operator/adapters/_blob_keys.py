"""Which keys a blob store takes, and where it keeps what it knows of a file beside it."""

from __future__ import annotations

from mixpeek_operator.core.errors import BadRequestError

CHUNK = 1024 * 1024
"""Bytes read at a time."""
FACTS = ".facts/"
"""Prefix of the small records (sha256, content type) that a store has no place for."""


def check(key: str) -> None:
    """Raise BadRequestError for a key that could leave the store or meet what is the store's own."""
    parts = key.rstrip("/").split("/")
    # Names that begin with a dot at the top are the store's own.
    hidden = key.startswith((".", "/")) or "\\" in key or any(ord(letter) < 32 for letter in key)
    if not key or hidden or any(part in ("", ".", "..") for part in parts):
        raise BadRequestError(f"the storage key {key!r} is not allowed")
