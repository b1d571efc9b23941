"""Ids: derived where identity must survive a restore, random where each call makes a new thing."""

from __future__ import annotations

import hashlib
import itertools
import secrets
import uuid
from functools import lru_cache

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_PAIRS = tuple(low + high for high, low in itertools.product(_ALPHABET, repeat=2))
_LETTERS = bytes(ord(_ALPHABET[byte % 36]) for byte in range(256))
"""A letter for every byte, four of them for one byte more than the others."""
_POINT_SPACE = uuid.UUID("6f3f0d4e-2f0b-5d55-9a53-0c7f6c0a5b11")


def derived(prefix: str, *parts: str, length: int = 10) -> str:
    """Return `<prefix>_<length alphanumerics>`, the same for the same parts."""
    digest = int.from_bytes(hashlib.sha256("\x1f".join(parts).encode()).digest(), "big")
    return f"{prefix}_{_base36(digest, length)}"


def random(prefix: str, length: int = 16) -> str:
    """Return `<prefix>_<length alphanumerics>` that nobody can guess."""
    # Eight bits more than the digits need, so that the remainder favours no digit by more than 1 in 256.
    return f"{prefix}_{_base36(int.from_bytes(secrets.token_bytes(length * 6 // 8 + 1), 'big'), length)}"


class Stream:
    """Ids as `random` makes them, for what comes with every request.

    The machine gives one secret, which is then counted and hashed: to ask the machine lets other threads have the
    interpreter, and to get it back takes longer than much that a request does. `length` is 32 at most.
    """

    def __init__(self, prefix: str, length: int = 16) -> None:
        self._prefix = prefix
        self._length = length
        self._secret = secrets.token_bytes(16)
        self._count = itertools.count()

    def next(self) -> str:
        """Return the next id."""
        digest = hashlib.sha256(self._secret + next(self._count).to_bytes(8, "big")).digest()
        return f"{self._prefix}_{digest[: self._length].translate(_LETTERS).decode('ascii')}"


@lru_cache(maxsize=8192)
def document_id(collection_id: str, source_id: str, segment: int | str) -> str:
    """Return the id of the document that a collection makes of one segment of one source (`doc_` + 24)."""
    return derived("doc", collection_id, source_id, str(segment), length=24)


@lru_cache(maxsize=8192)
def point_id(namespace_id: str, document_id: str) -> str:
    """Return the Qdrant point id (a UUID) of a document."""
    return str(uuid.uuid5(_POINT_SPACE, f"{namespace_id}/{document_id}"))


def _base36(number: int, length: int) -> str:
    """The lowest `length` digits, lowest first; two at a time, as a batch derives thousands of ids."""
    digits: list[str] = []
    for _ in range((length + 1) // 2):
        number, remainder = divmod(number, 1296)
        digits.append(_PAIRS[remainder])
    return "".join(digits)[:length]
