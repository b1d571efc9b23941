"""The first start, keys at rest, secrets at rest, times."""

from __future__ import annotations

import asyncio
import base64
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from mixpeek_operator.access.keys import Keys, digest
from mixpeek_operator.access.moments import stamp
from mixpeek_operator.access.organizations import Organizations
from mixpeek_operator.access.secrets import KEY_FILE, StoredSecrets, encryption_key
from mixpeek_operator.access.users import Users
from mixpeek_operator.adapters.sqlite_metadata import SqliteMetadata
from mixpeek_operator.core.errors import (
    AlreadyExistsError,
    NotFoundError,
    RefusedError,
    SpecError,
    UnauthorizedError,
)

_ORG = "int_1"


@dataclass
class Access:
    store: SqliteMetadata
    keys: Keys
    users: Users
    organizations: Organizations


def _access(store: SqliteMetadata) -> Access:
    keys = Keys(store)
    users = Users(store, keys)
    return Access(store, keys, users, Organizations(store, users, keys))


def _every_byte(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteMetadata]:
    opened = SqliteMetadata(tmp_path / "metadata.db")
    yield opened
    await opened.close()


async def test_the_first_start_makes_one_key_and_the_second_none(store: SqliteMetadata) -> None:
    first = await _access(store).organizations.bootstrap()
    second = await _access(store).organizations.bootstrap()
    assert first.created
    assert first.key is not None
    assert (second.created, second.key, second.organization) == (False, None, first.organization)
    principal = await _access(store).keys.authenticate(first.key)
    assert principal.organization == first.organization
    assert principal.may("admin")


async def test_two_servers_that_start_together_make_one_organization(store: SqliteMetadata) -> None:
    made = await asyncio.gather(*(_access(store).organizations.bootstrap() for _ in range(5)))
    assert len({item.organization for item in made}) == 1
    assert [item.created for item in made].count(True) == 1


async def test_a_given_key_is_used_and_never_repeated(store: SqliteMetadata) -> None:
    access = _access(store)
    first = await access.organizations.bootstrap("sk_given_by_the_user")
    assert first.key is None
    assert (await access.keys.authenticate("sk_given_by_the_user")).key_name == "bootstrap"
    again = await access.organizations.bootstrap("sk_given_by_the_user")
    assert not again.created


async def test_a_new_given_key_replaces_the_lost_one(store: SqliteMetadata) -> None:
    access = _access(store)
    lost = (await access.organizations.bootstrap()).key
    assert lost is not None
    await access.organizations.bootstrap("sk_the_way_back_in_again")
    assert (await access.keys.authenticate("sk_the_way_back_in_again")).may("admin")
    with pytest.raises(UnauthorizedError):
        await access.keys.authenticate(lost)


@pytest.mark.parametrize("how", ["revoke", "rotate"])
async def test_a_start_never_revives_a_key_that_was_taken_away(store: SqliteMetadata, how: str) -> None:
    access = _access(store)
    given = "sk_taken_away_later_on"
    first = await access.organizations.bootstrap(given)
    admin = await access.users.get(first.organization, "admin@localhost")
    if how == "revoke":
        await access.keys.revoke(admin, "bootstrap", revoked_by=None)
    else:
        new = await access.keys.rotate(admin, "bootstrap", rotated_by=None)
    restarted = _access(store)
    await restarted.organizations.bootstrap(given)
    with pytest.raises(UnauthorizedError):
        await restarted.keys.authenticate(given)
    if how == "rotate":
        assert (await restarted.keys.authenticate(new["key"])).may("admin")


@pytest.mark.parametrize("key", ["", "two words", "nön-ascii-key-here", "tab\there"])
async def test_a_key_no_header_can_carry_is_refused(store: SqliteMetadata, key: str) -> None:
    with pytest.raises(SpecError):
        await _access(store).organizations.bootstrap(key)


async def test_no_key_is_at_rest(store: SqliteMetadata, tmp_path: Path) -> None:
    key = (await _access(store).organizations.bootstrap()).key
    assert key is not None
    await store.close()
    written = _every_byte(tmp_path)
    assert digest(key).encode() in written
    assert key.encode() not in written


async def test_a_revocation_during_a_lookup_is_not_cached_over(store: SqliteMetadata) -> None:
    access = _access(store)
    key = (await access.organizations.bootstrap()).key
    assert key is not None
    admin = await access.users.get((await access.organizations.bootstrap()).organization, "admin@localhost")
    await asyncio.gather(
        access.keys.authenticate(key), access.keys.revoke(admin, "bootstrap", revoked_by=None), return_exceptions=True
    )
    with pytest.raises(UnauthorizedError):
        await access.keys.authenticate(key)


async def test_a_looked_up_key_is_remembered(store: SqliteMetadata) -> None:
    access = _access(store)
    key = (await access.organizations.bootstrap()).key
    assert key is not None
    assert await access.keys.authenticate(key) is await access.keys.authenticate(key)


async def test_a_secret_is_encrypted_at_rest_and_bound_to_its_place(store: SqliteMetadata, tmp_path: Path) -> None:
    secrets = StoredSecrets(store, encryption_key("a passphrase", tmp_path))
    await secrets.create(_ORG, "one", "planted-7f3a")
    assert await secrets.value(_ORG, "one") == "planted-7f3a"
    record = await store.get("secrets", _ORG, "one")
    assert record is not None
    assert b"planted" not in base64.b64decode(record.body["sealed"])
    await store.put("secrets", "int_2", "one", record.body)
    with pytest.raises(RefusedError, match="damaged"):
        await secrets.value("int_2", "one")
    again = StoredSecrets(store, encryption_key("a passphrase", tmp_path))
    assert await again.value(_ORG, "one") == "planted-7f3a"
    other = StoredSecrets(store, encryption_key("another passphrase", tmp_path))
    with pytest.raises(RefusedError, match="MIXPEEK_ENCRYPTION_KEY"):
        await other.value(_ORG, "one")


async def test_secrets_are_listed_changed_and_removed_by_name(store: SqliteMetadata, tmp_path: Path) -> None:
    secrets = StoredSecrets(store, encryption_key(None, tmp_path))
    await secrets.create(_ORG, "b", "1")
    await secrets.create(_ORG, "a", "2")
    with pytest.raises(AlreadyExistsError):
        await secrets.create(_ORG, "a", "3")
    assert await secrets.names(_ORG) == ["a", "b"]
    assert await secrets.names("int_2") == []
    await secrets.update(_ORG, "a", "new")
    assert await secrets.value(_ORG, "a") == "new"
    await secrets.delete(_ORG, "a")
    for call in (secrets.value(_ORG, "a"), secrets.update(_ORG, "a", "x"), secrets.delete(_ORG, "a")):
        with pytest.raises(NotFoundError, match="POST /v1/organizations/secrets"):
            await call


@pytest.mark.parametrize("name", ["", "9a", "a b", "a/b", "é", "a" * 101, "a}}"])
async def test_a_name_that_no_placeholder_could_hold_is_refused(
    store: SqliteMetadata, tmp_path: Path, name: str
) -> None:
    with pytest.raises(SpecError):
        await StoredSecrets(store, encryption_key(None, tmp_path)).create(_ORG, name, "x")


def test_the_encryption_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    data = tmp_path / "new"
    key = encryption_key(None, data)
    assert len(key) == 32
    assert encryption_key(None, data) == key
    assert stat.S_IMODE((data / KEY_FILE).stat().st_mode) == 0o600


def test_a_given_encryption_key_is_used_as_it_is_or_derived(tmp_path: Path) -> None:
    raw = bytes(range(32))
    assert encryption_key(base64.b64encode(raw).decode(), tmp_path) == raw
    assert len(encryption_key("short", tmp_path)) == 32
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "not base64!", base64.b64encode(b"short").decode()])
def test_a_damaged_key_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / KEY_FILE
    path.touch(mode=0o600)
    path.write_text(content)
    with pytest.raises(SpecError, match=KEY_FILE):
        encryption_key(None, tmp_path)


def test_times_sort_as_text() -> None:
    early = datetime(2026, 11, 21, 10, 0, 0, 5, tzinfo=UTC)
    assert stamp(early) == "2026-11-21T10:00:00.000005Z"
    assert stamp(early.astimezone(timezone(timedelta(hours=5)))) == stamp(early)
    assert stamp(early) < stamp(early + timedelta(microseconds=1))
