"""Users of an organization; each owns API keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixpeek_operator.access.keys import Keys
from mixpeek_operator.access.moments import stamp
from mixpeek_operator.core import ids
from mixpeek_operator.core.clock import Clock, SystemClock
from mixpeek_operator.core.errors import AlreadyExistsError, ConflictError, NotFoundError
from mixpeek_operator.core.filters import Filter, all_of, equals
from mixpeek_operator.ports.metadata import MetadataStore, Write

TABLE = "users"


class Users:
    """Users by email; an organization always keeps one active administrator."""

    def __init__(self, store: MetadataStore, keys: Keys, *, clock: Clock | None = None) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock or SystemClock()

    def draft(
        self, organization: Mapping[str, Any], request: Mapping[str, Any], *, created_by: str | None
    ) -> tuple[dict[str, Any], Write]:
        """Return a new user record and the write that makes it."""
        now = stamp(self._clock.now())
        record = {
            "user_id": ids.random("usr"),
            "internal_id": organization["internal_id"],
            "organization_id": organization["organization_id"],
            "email": str(request["email"]).strip().lower(),
            "user_name": request["user_name"],
            "avatar_url": request.get("avatar_url"),
            "role": request.get("role") or "member",
            "status": request.get("status") or "active",
            "metadata": request.get("metadata") or {},
            "created_by": created_by,
            "created_at": now,
            "updated_at": now,
        }
        return record, Write(TABLE, str(organization["internal_id"]), str(record["email"]), record, 0)

    async def create(
        self, organization: Mapping[str, Any], request: Mapping[str, Any], *, created_by: str | None
    ) -> dict[str, Any]:
        """Add a user. AlreadyExistsError when the email is taken."""
        record, write = self.draft(organization, request, created_by=created_by)
        try:
            await self._store.transact([write])
        except AlreadyExistsError as error:
            raise AlreadyExistsError(
                f"the organization already has a user {record['email']}", code="user_email_taken"
            ) from error
        return record

    async def get(self, organization: str, identifier: str) -> dict[str, Any]:
        """Return a user by email or `usr_` id. NotFoundError when there is none."""
        record = await self._store.get(TABLE, organization, identifier.strip().lower())
        if record is not None:
            return dict(record.body)
        if identifier.startswith("usr_"):
            found = await self._store.find(TABLE, organization, filter=equals("user_id", identifier), limit=1)
            if found:
                return dict(found[0].body)
        raise NotFoundError(f"the organization has no user {identifier!r}")

    async def find(
        self, organization: str, *, skip: int, limit: int, role: str | None = None, status: str | None = None
    ) -> tuple[list[dict[str, Any]], int]:
        """Return a page of users, oldest first, and how many there are in all."""
        wanted: Filter | None = all_of(
            equals("role", role) if role else None, equals("status", status) if status else None
        )
        records = await self._store.find(TABLE, organization, filter=wanted, limit=limit, offset=skip)
        return [dict(record.body) for record in records], await self._store.count(TABLE, organization, wanted)

    async def update(
        self, organization: str, identifier: str, changes: Mapping[str, Any], *, changed_by: str | None
    ) -> dict[str, Any]:
        """Change a user; any status but active revokes the user's API keys."""
        user = await self.get(organization, identifier)
        changed = {**user, **changes, "updated_at": stamp(self._clock.now())}
        if changed["metadata"] is None:
            changed["metadata"] = {}
        if changed["role"] != "admin" or changed["status"] != "active":
            await self._keep_an_admin(organization, user)
        await self._store.put(TABLE, organization, user["email"], changed)
        if changed["status"] != "active":
            await self._keys.revoke_all(user, revoked_by=changed_by)
        return changed

    async def delete(self, organization: str, identifier: str, *, deleted_by: str | None) -> None:
        """Remove a user and revoke every key of theirs."""
        user = await self.get(organization, identifier)
        await self._keep_an_admin(organization, user)
        await self._keys.revoke_all(user, revoked_by=deleted_by)
        await self._store.delete(TABLE, organization, user["email"])

    async def _keep_an_admin(self, organization: str, user: Mapping[str, Any]) -> None:
        if user["role"] != "admin" or user["status"] != "active":
            return
        admins = all_of(equals("role", "admin"), equals("status", "active"))
        if await self._store.count(TABLE, organization, admins) < 2:
            raise ConflictError(
                f"{user['email']} is the last active administrator; give another user the role admin first",
                code="last_admin",
            )
