"""API keys: made once, shown once, stored as a hash, looked up by it, gone the moment they are revoked."""

from __future__ import annotations

import hashlib
import secrets as entropy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mixpeek_operator.access.moments import stamp
from mixpeek_operator.core import ids
from mixpeek_operator.core.clock import Clock, SystemClock
from mixpeek_operator.core.errors import (
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    Problem,
    RateLimitedError,
    SpecError,
    UnauthorizedError,
)
from mixpeek_operator.core.filters import all_of, equals
from mixpeek_operator.ports.metadata import MetadataStore, Write

PERMISSIONS = ("read", "write", "delete", "admin")
DEFAULT_PERMISSIONS = ("read", "write", "delete")
TABLE = "keys"
BY_HASH_TABLE = "key_hashes"
BY_HASH = "_keys"
"""Where a hash leads to its organization and key: the one lookup made before the organization is known."""
_NAMES_TABLE = "key_names"
_CACHED_KEYS = 10_000
_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a key speaks for, and what it may do."""

    organization: str
    """Internal id (`int_…`)."""
    organization_id: str
    key_id: str
    key_name: str
    user_id: str
    user_email: str
    permissions: frozenset[str]
    expires_at: str | None
    expires_unix: float | None
    allowed_origins: tuple[str, ...]
    rate_limit: int | None
    """Requests per minute; None for no limit."""

    def may(self, permission: str) -> bool:
        """Whether the key holds `permission`; `admin` holds every other."""
        return permission in self.permissions or "admin" in self.permissions


def new_token() -> str:
    """Return a key nobody can guess (258 bits)."""
    return f"sk_{entropy.token_urlsafe(32).replace('-', 'x').replace('_', 'y')}"


def digest(token: str) -> str:
    """Return the SHA-256 of a key in hexadecimal, under which it is stored."""
    return hashlib.sha256(token.encode()).hexdigest()


class Keys:
    """API keys of every organization.

    A looked-up key is remembered for `cache_s` seconds; revoking, rotating and changing it through this
    object forgets it at once, so a server that is the only writer of its store revokes immediately.
    """

    def __init__(self, store: MetadataStore, *, clock: Clock | None = None, cache_s: float = 60.0) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        self._cache_s = cache_s
        self._cache: dict[str, tuple[Principal, float]] = {}
        self._epoch = 0
        self._windows: dict[str, tuple[float, int]] = {}

    async def authenticate(self, token: str) -> Principal:
        """Return whom a key speaks for. UnauthorizedError when it is unknown, revoked or expired."""
        hashed = digest(token)
        now = time.monotonic()
        cached = self._cache.get(hashed)
        if cached is not None and cached[1] > now:
            principal = cached[0]
        else:
            epoch = self._epoch
            principal = await self._load(hashed)
            if len(self._cache) >= _CACHED_KEYS:
                self._cache.clear()
            # A key that was revoked while it was being read must not enter the cache behind the revocation.
            if epoch == self._epoch:
                self._cache[hashed] = (principal, now + self._cache_s)
        if principal.expires_unix is not None and principal.expires_unix <= self._clock.now().timestamp():
            raise UnauthorizedError("the API key has expired; create or rotate one", code="api_key_expired")
        return principal

    def spend(self, principal: Principal) -> None:
        """Count one request of a rate-limited key. RateLimitedError once the minute's share is used."""
        if principal.rate_limit is None:
            return
        now = self._clock.monotonic()
        started, used = self._windows.get(principal.key_id, (now, 0))
        if now - started >= _WINDOW_S:
            started, used = now, 0
        if used >= principal.rate_limit:
            wait = max(1, round(_WINDOW_S - (now - started)))
            raise RateLimitedError(
                f"the API key {principal.key_name!r} allows {principal.rate_limit} requests per minute",
                details={"retry_after_seconds": wait},
            )
        self._windows[principal.key_id] = (started, used + 1)

    async def create(
        self,
        user: Mapping[str, Any],
        request: Mapping[str, Any],
        *,
        created_by: str | None,
        token: str | None = None,
    ) -> dict[str, Any]:
        """Make a key for a user record; the answer holds the key itself (`key`), the only time it is shown.

        AlreadyExistsError when the user has an active key of that name, ConflictError when the user may not act.
        """
        if user["status"] != "active":
            raise ConflictError(
                f"the user {user['email']} is {user['status']}; make the user active first", code="user_not_active"
            )
        record, writes = self.draft(user, request, created_by=created_by, token=token or new_token())
        try:
            await self._store.transact(writes)
        except AlreadyExistsError as error:
            raise AlreadyExistsError(
                f"the user {user['email']} already has an API key named {request['name']!r}; "
                "choose another name, or rotate or delete that key",
                code="api_key_name_taken",
            ) from error
        return record

    def draft(
        self, user: Mapping[str, Any], request: Mapping[str, Any], *, created_by: str | None, token: str
    ) -> tuple[dict[str, Any], list[Write]]:
        """Return the answer for a new key and the writes that make it, to be made in one transaction."""
        organization = str(user["internal_id"])
        hashed = digest(token)
        now = stamp(self._clock.now())
        record: dict[str, Any] = {
            "key_id": ids.random("key"),
            "key_hash": hashed,
            "key_prefix": token[:10] if len(token) >= 20 else token[:3],
            "key_type": "standard",
            "internal_id": organization,
            "organization_id": user["organization_id"],
            "user_id": user["user_id"],
            "user_email": user["email"],
            "name": request["name"],
            "description": request.get("description") or "",
            "permissions": _permissions(request.get("permissions")),
            "scopes": [],
            "rate_limit_override": request.get("rate_limit_override"),
            "allowed_origins": request.get("allowed_origins") or None,
            "status": "active",
            "expires_at": _moment(request.get("expires_at")),
            "last_used_at": None,
            "created_at": now,
            "created_by": created_by,
            "revoked_at": None,
            "revoked_by": None,
        }
        _refuse_unsupported(request)
        writes = [
            _claim(record),
            Write(TABLE, organization, record["key_id"], record, 0),
            _pointer(record),
        ]
        return {**record, "key": token}, writes

    async def list_of(self, user: Mapping[str, Any], *, include_revoked: bool = False) -> list[dict[str, Any]]:
        """Return the user's keys, oldest first, without the keys themselves."""
        mine = equals("user_id", user["user_id"])
        wanted = mine if include_revoked else all_of(mine, equals("status", "active"))
        records = await self._store.find(TABLE, str(user["internal_id"]), filter=wanted)
        return [self._shown(record.body) for record in records]

    async def get(self, user: Mapping[str, Any], name: str) -> dict[str, Any]:
        """Return the user's active key of that name (or `key_id`). NotFoundError otherwise."""
        return self._shown(await self._active(user, name))

    async def update(
        self, user: Mapping[str, Any], name: str, changes: Mapping[str, Any], *, changed_by: str | None
    ) -> dict[str, Any]:
        """Change name, description, permissions, expiry, origins or rate of a key, or revoke it by status."""
        _refuse_unsupported(changes)
        if changes.get("status") == "revoked":
            return await self.revoke(user, name, revoked_by=changed_by)
        record = await self._active(user, name)
        changed = dict(record)
        for field in ("name", "description", "rate_limit_override"):
            if field in changes:
                changed[field] = changes[field]
        if "permissions" in changes:
            changed["permissions"] = _permissions(changes["permissions"])
        if "expires_at" in changes:
            changed["expires_at"] = _moment(changes["expires_at"])
        if "allowed_origins" in changes:
            changed["allowed_origins"] = changes["allowed_origins"] or None
        writes = [Write(TABLE, record["internal_id"], record["key_id"], changed)]
        if changed["name"] != record["name"]:
            writes = [_claim(changed), _release(record), *writes]
        try:
            await self._store.transact(writes)
        except AlreadyExistsError as error:
            raise AlreadyExistsError(
                f"the user {user['email']} already has an API key named {changed['name']!r}",
                code="api_key_name_taken",
            ) from error
        self._forget(record["key_hash"])
        return self._shown(changed)

    async def rotate(self, user: Mapping[str, Any], name: str, *, rotated_by: str | None) -> dict[str, Any]:
        """Replace the key by a new one with the same name and rights; the old one stops at once."""
        record = await self._active(user, name)
        token = new_token()
        changed = {**record, "key_hash": digest(token), "key_prefix": token[:10], "created_by": rotated_by}
        await self._store.transact(
            [
                _tombstone(record),
                Write(TABLE, record["internal_id"], record["key_id"], changed),
                _pointer(changed),
            ]
        )
        self._forget(record["key_hash"])
        return {**self._shown(changed), "key": token}

    async def revoke(self, user: Mapping[str, Any], name: str, *, revoked_by: str | None) -> dict[str, Any]:
        """Revoke a key; the next request with it is refused."""
        return await self._revoke(await self._active(user, name), revoked_by)

    async def revoke_all(self, user: Mapping[str, Any], *, revoked_by: str | None) -> int:
        """Revoke every active key of a user; returns how many there were."""
        active = await self._records(user, equals("status", "active"))
        for record in active:
            await self._revoke(record, revoked_by)
        return len(active)

    async def state(self, token: str) -> str | None:
        """Return `active`, `revoked` (also when rotated away), or None for a key that never existed."""
        pointer = await self._store.get(BY_HASH_TABLE, BY_HASH, digest(token))
        if pointer is None:
            return None
        return "revoked" if pointer.body.get("revoked") else "active"

    async def _revoke(self, record: Mapping[str, Any], revoked_by: str | None) -> dict[str, Any]:
        changed = {
            **record,
            "status": "revoked",
            "revoked_at": stamp(self._clock.now()),
            "revoked_by": revoked_by,
        }
        await self._store.transact(
            [
                _tombstone(record),
                Write(TABLE, record["internal_id"], record["key_id"], changed),
                _release(record),
            ]
        )
        self._forget(record["key_hash"])
        return self._shown(changed)

    async def _load(self, hashed: str) -> Principal:
        pointer = await self._store.get(BY_HASH_TABLE, BY_HASH, hashed)
        record = None
        if pointer is not None and not pointer.body.get("revoked"):
            record = await self._store.get(TABLE, pointer.body["internal_id"], pointer.body["key_id"])
        if record is None or record.body["status"] != "active":
            raise UnauthorizedError("the API key is unknown or was revoked", code="api_key_invalid")
        body = record.body
        expires = body["expires_at"]
        return Principal(
            organization=body["internal_id"],
            organization_id=body["organization_id"],
            key_id=body["key_id"],
            key_name=body["name"],
            user_id=body["user_id"],
            user_email=body["user_email"],
            permissions=frozenset(body["permissions"]),
            expires_at=expires,
            expires_unix=datetime.fromisoformat(expires).timestamp() if expires else None,
            allowed_origins=tuple(body["allowed_origins"] or ()),
            rate_limit=body["rate_limit_override"],
        )

    async def _active(self, user: Mapping[str, Any], name: str) -> dict[str, Any]:
        field = "key_id" if name.startswith("key_") else "name"
        found = await self._records(user, all_of(equals(field, name), equals("status", "active")))
        if not found and field == "key_id":
            found = await self._records(user, all_of(equals("name", name), equals("status", "active")))
        if not found:
            raise NotFoundError(f"the user {user['email']} has no active API key named {name!r}")
        return found[0]

    async def _records(self, user: Mapping[str, Any], wanted: Any) -> list[dict[str, Any]]:
        both = all_of(equals("user_id", user["user_id"]), wanted)
        return [dict(item.body) for item in await self._store.find(TABLE, str(user["internal_id"]), filter=both)]

    def _forget(self, hashed: str) -> None:
        self._epoch += 1
        self._cache.pop(hashed, None)

    def _shown(self, body: Mapping[str, Any]) -> dict[str, Any]:
        shown = dict(body)
        expires = shown.get("expires_at")
        if shown["status"] == "active" and expires and expires <= stamp(self._clock.now()):
            shown["status"] = "expired"
        return shown


def _pointer(record: Mapping[str, Any]) -> Write:
    body = {"internal_id": record["internal_id"], "key_id": record["key_id"]}
    return Write(BY_HASH_TABLE, BY_HASH, record["key_hash"], body, 0)


def _tombstone(record: Mapping[str, Any]) -> Write:
    """A key that was revoked stays known, so that nothing (a start with the old setting) brings it back."""
    body = {"internal_id": record["internal_id"], "key_id": record["key_id"], "revoked": True}
    return Write(BY_HASH_TABLE, BY_HASH, record["key_hash"], body)


def _claim(record: Mapping[str, Any]) -> Write:
    """Hold the name among the user's active keys; fails when it is held."""
    return Write(_NAMES_TABLE, record["internal_id"], _name_id(record), {"key_id": record["key_id"]}, 0)


def _release(record: Mapping[str, Any]) -> Write:
    return Write(_NAMES_TABLE, record["internal_id"], _name_id(record), None)


def _name_id(record: Mapping[str, Any]) -> str:
    return f"{record['user_id']}/{record['name']}"


def _permissions(given: Sequence[str] | None) -> list[str]:
    wanted = DEFAULT_PERMISSIONS if given is None else given
    return [permission for permission in PERMISSIONS if permission in wanted]


def _moment(value: Any) -> str | None:
    if value is None:
        return None
    return stamp(value if isinstance(value, datetime) else datetime.fromisoformat(str(value)))


def _refuse_unsupported(request: Mapping[str, Any]) -> None:
    """Restrictions this server does not enforce are refused: a key must never look narrower than it is."""
    problems = [
        Problem(
            "unsupported",
            f"{field} is not enforced by this server, so a key cannot have it; leave it out",
            location=("body", field),
        )
        for field in ("scopes", "principal_id")
        if request.get(field)
    ]
    if problems:
        raise SpecError.of(problems)
