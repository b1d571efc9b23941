"""Secrets of an organization, encrypted at rest with AES-256-GCM and given out only to be used."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from pathlib import Path

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mixpeek_operator.access.moments import stamp
from mixpeek_operator.core.clock import Clock, SystemClock
from mixpeek_operator.core.errors import (
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    Place,
    Problem,
    RefusedError,
    SpecError,
)
from mixpeek_operator.ports.metadata import MetadataStore

TABLE = "secrets"
KEY_FILE = "encryption.key"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,99}")
_SALT = b"mixpeek-operator secrets v1"

_log = structlog.get_logger(__name__)


def encryption_key(given: str | None, data: Path) -> bytes:
    """Return the 32 bytes that encrypt secrets: from the setting, else from `data/encryption.key`.

    The file is made on the first start, readable by its owner only. SpecError when it is damaged.
    """
    if given:
        return _derive(given)
    path = data / KEY_FILE
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        text = _generate(path)
    if path.stat().st_mode & 0o077:
        _log.warning("the encryption key can be read by other users; run: chmod 600", path=str(path))
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise SpecError(
            f"{KEY_FILE} is damaged; restore it from a backup, or set MIXPEEK_ENCRYPTION_KEY and store every "
            "secret again",
            place=Place(file=str(path)),
        )
    return key


class StoredSecrets:
    """The `Secrets` port on records of the metadata store."""

    def __init__(self, store: MetadataStore, key: bytes, *, clock: Clock | None = None) -> None:
        self._store = store
        self._cipher = AESGCM(key)
        self._key_id = hashlib.sha256(b"id" + key).hexdigest()[:12]
        self._clock = clock or SystemClock()

    async def value(self, organization: str, name: str) -> str:
        """Return the value, to be used and not kept.

        NotFoundError when there is none, RefusedError when the key it was stored with is not the server's.
        """
        record = await self._store.get(TABLE, organization, name)
        if record is None:
            raise self._missing(name)
        sealed = base64.b64decode(record.body["sealed"])
        try:
            opened = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _binding(organization, name))
        except InvalidTag as error:
            other = record.body["key_id"] != self._key_id
            why = "was encrypted with another key" if other else "is damaged"
            raise RefusedError(
                f"the secret {name!r} {why}; set MIXPEEK_ENCRYPTION_KEY to the key it was stored with, "
                f"or store it again with PUT /v1/organizations/secrets/{name}",
                code="secret_unreadable",
            ) from error
        return opened.decode()

    async def names(self, organization: str) -> list[str]:
        """Return the names of all secrets, sorted."""
        return sorted(record.id for record in await self._store.find(TABLE, organization))

    async def create(self, organization: str, name: str, value: str) -> None:
        """Store a new secret. AlreadyExistsError when the name is taken, SpecError when it cannot be used."""
        check_name(name)
        now = stamp(self._clock.now())
        body = {**self._seal(organization, name, value), "created_at": now, "updated_at": now}
        try:
            await self._store.put(TABLE, organization, name, body, if_version=0)
        except (AlreadyExistsError, ConflictError) as error:
            raise AlreadyExistsError(
                f"there is a secret named {name!r}; replace it with PUT /v1/organizations/secrets/{name}",
                code="secret_name_taken",
            ) from error

    async def update(self, organization: str, name: str, value: str) -> None:
        """Replace the value; the old one is gone. NotFoundError when there is no such secret."""
        record = await self._store.get(TABLE, organization, name)
        if record is None:
            raise self._missing(name)
        body = {
            **self._seal(organization, name, value),
            "created_at": record.body["created_at"],
            "updated_at": stamp(self._clock.now()),
        }
        await self._store.put(TABLE, organization, name, body)

    async def delete(self, organization: str, name: str) -> None:
        """Remove a secret. NotFoundError when there is none."""
        if not await self._store.delete(TABLE, organization, name):
            raise self._missing(name)

    def _seal(self, organization: str, name: str, value: str) -> dict[str, str]:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, value.encode(), _binding(organization, name))
        return {"sealed": base64.b64encode(sealed).decode(), "key_id": self._key_id}

    def _missing(self, name: str) -> NotFoundError:
        return NotFoundError(
            f"there is no secret named {name!r}; create it with POST /v1/organizations/secrets",
            code="secret_not_found",
            details={"secret_name": name},
        )


def _binding(organization: str, name: str) -> bytes:
    """Bind a value to its place, so that one copied to another name or tenant does not open there."""
    return f"{organization}/{name}".encode()


def check_name(name: str) -> None:
    """Raise SpecError when a placeholder could not name such a secret."""
    if not _NAME.fullmatch(name):
        message = (
            "a secret's name starts with a letter or _ and holds letters, digits, _, - and . (at most 100), "
            "so that ${{ secrets.NAME }} can name it"
        )
        raise SpecError.of([Problem("secret_name_invalid", message, location=("body", "secret_name"))])


def _derive(given: str) -> bytes:
    try:
        decoded = base64.b64decode(given, validate=True)
    except ValueError:
        decoded = b""
    if len(decoded) == _KEY_BYTES:
        return decoded
    # Anything else is a passphrase; scrypt makes guessing it expensive, once per start.
    return hashlib.scrypt(given.encode(), salt=_SALT, n=2**14, r=8, p=1, dklen=_KEY_BYTES)


def _generate(path: Path) -> str:
    text = base64.b64encode(os.urandom(_KEY_BYTES)).decode()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii")
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    return text
