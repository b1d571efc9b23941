"""Organizations: the tenant. The first one, its administrator and its key are made at the first start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from mixpeek_operator.access.keys import PERMISSIONS, Keys, new_token
from mixpeek_operator.access.moments import stamp
from mixpeek_operator.access.users import Users
from mixpeek_operator.core import ids
from mixpeek_operator.core.clock import Clock, SystemClock
from mixpeek_operator.core.errors import AlreadyExistsError, NotFoundError, SpecError
from mixpeek_operator.ports.metadata import MetadataStore, Write

TABLE = "organizations"
ALL = "_organizations"
_FIRST = "_first"
_ADMIN_EMAIL = "admin@localhost"
_KEY_NAME = "bootstrap"
_SHORT_KEY = 20

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What the start found or made."""

    organization: str
    """Internal id of the first organization."""
    created: bool
    key: str | None
    """The generated key, to be shown to the user once; None when it was given or made by an earlier start."""


class Organizations:
    """Organizations by internal id (`int_…`, on Kubernetes a namespace), which all other records are keyed by."""

    def __init__(self, store: MetadataStore, users: Users, keys: Keys, *, clock: Clock | None = None) -> None:
        self._store = store
        self._users = users
        self._keys = keys
        self._clock = clock or SystemClock()

    async def bootstrap(self, api_key: str | None = None, *, id: str | None = None) -> Bootstrap:
        """Make the first organization, its administrator and an all-powerful key, once, all or nothing.

        `id` is its internal id where something outside decides about it: on Kubernetes the name of a namespace.
        Later starts find it again. An `api_key` they have never seen replaces the bootstrap key, which is the
        way back in when that key was lost; one that was revoked stays revoked. SpecError when the given key
        cannot be sent in a header.
        """
        if api_key is not None:
            _check(api_key)
        first = await self._store.get(TABLE, ALL, _FIRST)
        if first is None:
            try:
                return await self._create_first(api_key, id)
            except AlreadyExistsError:
                # Another process of this installation started at the same time and won.
                first = await self._store.get(TABLE, ALL, _FIRST)
        if first is None:
            raise NotFoundError("the first organization vanished while the server started; start it again")
        organization = str(first.body["internal_id"])
        state = "active" if api_key is None else await self._keys.state(api_key)
        if state == "revoked":
            _log.warning("MIXPEEK_API_KEY is a key that was revoked; it stays revoked")
        elif state is None and api_key is not None:
            await self._replace_key(organization, str(first.body["admin"]), api_key)
        return Bootstrap(organization, created=False, key=None)

    async def get(self, organization: str) -> dict[str, Any]:
        """Return the organization record. NotFoundError when there is none."""
        record = await self._store.get(TABLE, ALL, organization)
        if record is None:
            raise NotFoundError(f"no organization {organization}")
        return dict(record.body)

    async def update(self, organization: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change name, logo, contacts or metadata."""
        changed = {**await self.get(organization), **changes, "updated_at": stamp(self._clock.now())}
        await self._store.put(TABLE, ALL, organization, changed)
        return changed

    async def create(
        self, name: str, *, admin_email: str, api_key: str | None = None, id: str | None = None
    ) -> tuple[dict[str, Any], str]:
        """Make an organization with its administrator; returns it and the administrator's key, shown once.

        `id` as for `bootstrap`.
        """
        organization, _, token, writes = self._draft(name, admin_email, api_key, id)
        await self._store.transact(writes)
        return organization, token

    async def _create_first(self, api_key: str | None, id: str | None) -> Bootstrap:
        organization, admin, token, writes = self._draft("default", _ADMIN_EMAIL, api_key, id)
        internal_id = str(organization["internal_id"])
        marker = {"internal_id": internal_id, "admin": admin["email"]}
        await self._store.transact([Write(TABLE, ALL, _FIRST, marker, 0), *writes])
        return Bootstrap(internal_id, created=True, key=None if api_key else token)

    def _draft(
        self, name: str, admin_email: str, api_key: str | None, id: str | None
    ) -> tuple[dict[str, Any], dict[str, Any], str, list[Write]]:
        now = stamp(self._clock.now())
        organization: dict[str, Any] = {
            "internal_id": id or ids.random("int"),
            "organization_id": ids.random("org"),
            "organization_name": name,
            "account_type": "enterprise",
            "logo_url": None,
            "billing_email": None,
            "notifications_email": None,
            "metadata": {},
            "created_at": now,
            "updated_at": now,
        }
        admin, user_write = self._users.draft(
            organization,
            {"email": admin_email, "user_name": "Administrator", "role": "admin"},
            created_by=None,
        )
        token = api_key or new_token()
        _, key_writes = self._keys.draft(admin, _key_request(), created_by=None, token=token)
        writes = [Write(TABLE, ALL, str(organization["internal_id"]), organization, 0), user_write, *key_writes]
        return organization, admin, token, writes

    async def _replace_key(self, organization: str, email: str, api_key: str) -> None:
        admin = await self._users.get(organization, email)
        try:
            await self._keys.revoke(admin, _KEY_NAME, revoked_by=admin["user_id"])
        except NotFoundError:
            _log.info("no bootstrap key to replace", user=email)
        await self._keys.create(admin, _key_request(), created_by=admin["user_id"], token=api_key)
        _log.warning("the given API key replaces the bootstrap key, which no longer works", user=email)


def _key_request() -> dict[str, Any]:
    return {
        "name": _KEY_NAME,
        "description": "Made when the server first started.",
        "permissions": list(PERMISSIONS),
    }


def _check(api_key: str) -> None:
    if not api_key or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise SpecError("MIXPEEK_API_KEY must be printable ASCII without spaces", code="api_key_unusable")
    if len(api_key) < _SHORT_KEY:
        _log.warning("MIXPEEK_API_KEY is short and can be guessed", length=len(api_key), advised=_SHORT_KEY)
