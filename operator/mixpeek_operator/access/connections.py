"""Connections of an organization to databases of its own, which `sql_lookup` reads.

A password is kept as a secret of the organization; the record holds that secret's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from mixpeek_operator.access.moments import stamp
from mixpeek_operator.core import ids
from mixpeek_operator.core.clock import Clock, SystemClock
from mixpeek_operator.core.errors import (
    AlreadyExistsError,
    ConflictError,
    MixpeekError,
    NotFoundError,
    Problem,
    SpecError,
)
from mixpeek_operator.core.filters import Filter, all_of, equals
from mixpeek_operator.core.sql import Statement
from mixpeek_operator.core.sql import parse as parse_sql
from mixpeek_operator.ports.metadata import MetadataStore
from mixpeek_operator.ports.secrets import SecretStore
from mixpeek_operator.ports.sql import Rows, SqlDriver, SqlServer, SqlSession, SslMode
from mixpeek_operator.retrieval.each import each

TABLE: Final = "connections"
HIDDEN: Final = "********"
_AT_ONCE: Final = 4
_TEST_TIMEOUT_S: Final = 10.0


class _Config(BaseModel):
    # What syncing needs of such a configuration is kept as it is given.
    model_config = ConfigDict(extra="allow")


class Credentials(BaseModel):
    """User and password; the password itself, or the secret that holds it."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["username_password"] = "username_password"
    username: str = Field(min_length=1, description="User of the database; one that may only read is best.")
    password: SecretStr | None = Field(default=None, description="Kept as a secret; never given back.")
    secret_ref: str | None = Field(default=None, min_length=1, description="Secret that holds the password, instead.")


class _Server(_Config):
    host: str = Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._:\-]+$")
    database: str = Field(min_length=1, max_length=200)
    credentials: Credentials
    ssl_mode: SslMode = "prefer"


class PostgresConfig(_Server):
    """A PostgreSQL database."""

    provider_type: Literal["postgresql"] = "postgresql"
    port: int = Field(default=5432, ge=1, le=65535)
    schema_: str | None = Field(default="public", alias="schema", max_length=200)


class MysqlConfig(_Server):
    """A MySQL or MariaDB database."""

    provider_type: Literal["mysql"] = "mysql"
    port: int = Field(default=3306, ge=1, le=65535)


class SqliteConfig(_Config):
    """A SQLite file in the folder that MIXPEEK_SQLITE_PATH names."""

    provider_type: Literal["sqlite"] = "sqlite"
    database: str = Field(min_length=1, max_length=1000, description="Path below that folder.")


_CONFIG: TypeAdapter[PostgresConfig | MysqlConfig | SqliteConfig] = TypeAdapter(
    Annotated[PostgresConfig | MysqlConfig | SqliteConfig, Field(discriminator="provider_type")]
)
PROVIDERS: Final = {"postgres": "postgresql", "postgresql": "postgresql", "mysql": "mysql", "sqlite": "sqlite"}


class ConnectionNames:
    """Which connections an organization has, for who opens none of them."""

    def __init__(self, store: MetadataStore) -> None:
        self._store = store

    async def names(self, organization: str) -> list[str]:
        """Return the name and the id of every connection."""
        found = await self._store.find(TABLE, organization)
        return [name for record in found for name in (str(record.body["name"]), record.id)]


class Connections(ConnectionNames):
    """Keeps connections and reads through them; the `Databases` port."""

    def __init__(
        self, store: MetadataStore, secrets: SecretStore, driver: SqlDriver, *, clock: Clock | None = None
    ) -> None:
        super().__init__(store)
        self._secrets = secrets
        self._driver = driver
        self._clock = clock or SystemClock()

    async def create(self, organization: str, request: Mapping[str, Any], *, created_by: str | None) -> dict[str, Any]:
        """Add a connection, opened once before unless `test_before_save` is false.

        Raises AlreadyExistsError when the name is taken, SpecError when the configuration is wrong, and what opening
        it raises.
        """
        now, id = stamp(self._clock.now()), ids.random("conn", 15)
        config = _checked(str(request["provider_type"]), request["provider_config"])
        await self._free(organization, str(request["name"]))
        if request.get("test_before_save", True):
            await self._try(await self._server(organization, config))
        body = {
            "connection_id": id,
            "internal_id": organization,
            "name": request["name"],
            "description": request.get("description"),
            "provider_type": config.provider_type,
            "provider_config": await self._kept(organization, id, config),
            "status": "ACTIVE",
            "is_active": True,
            "last_used_at": None,
            "last_error": None,
            "consecutive_failures": 0,
            "created_at": now,
            "updated_at": now,
            "created_by_user_id": created_by or "",
            "metadata": request.get("metadata") or {},
        }
        await self._store.put(TABLE, organization, id, body, if_version=0)
        return _shown(body)

    async def get(self, organization: str, identifier: str) -> dict[str, Any]:
        """Return a connection by id or name, without its password. NotFoundError when there is none."""
        return _shown(await self._body(organization, identifier))

    async def find(
        self, organization: str, *, provider_type: str | None, status: str | None, is_active: bool | None
    ) -> list[dict[str, Any]]:
        """Return the connections, oldest first."""
        wanted: Filter | None = all_of(
            equals("provider_type", PROVIDERS.get(provider_type, provider_type)) if provider_type else None,
            equals("status", status) if status else None,
            equals("is_active", is_active) if is_active is not None else None,
        )
        return [_shown(record.body) for record in await self._store.find(TABLE, organization, filter=wanted)]

    async def update(self, organization: str, identifier: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change name, description, metadata, status or the whole configuration."""
        body = await self._body(organization, identifier)
        changed = {**body, **changes, "updated_at": stamp(self._clock.now())}
        if changed["name"] != body["name"]:
            await self._free(organization, str(changed["name"]))
        if "provider_config" in changes:
            config = _checked(str(body["provider_type"]), changes["provider_config"])
            changed["provider_config"] = await self._kept(organization, str(body["connection_id"]), config)
        if "is_active" in changes and "status" not in changes:
            changed["status"] = "ACTIVE" if changes["is_active"] else "SUSPENDED"
        changed["is_active"] = changed["status"] == "ACTIVE"
        await self._store.put(TABLE, organization, str(body["connection_id"]), changed)
        return _shown(changed)

    async def delete(self, organization: str, identifier: str) -> None:
        """Remove a connection and the secret that was made for it."""
        body = await self._body(organization, identifier)
        await self._store.delete(TABLE, organization, str(body["connection_id"]))
        own = _secret_name(str(body["connection_id"]))
        if own in await self._secrets.names(organization):
            await self._secrets.delete(organization, own)

    async def test(self, organization: str, identifier: str) -> dict[str, Any]:
        """Open a connection and say how it went."""
        body = await self._body(organization, identifier)
        try:
            await self._try(await self._server(organization, _checked(body["provider_type"], body["provider_config"])))
        except MixpeekError as error:
            return {"success": False, "message": error.message, "details": {"code": error.code}}
        return {"success": True, "message": "Connection test succeeded", "details": None}

    async def query(
        self,
        organization: str,
        connection: str,
        statement: Statement,
        values: Sequence[Mapping[str, Any]],
        *,
        timeout_s: float,
        most: int,
    ) -> list[tuple[Rows, bool] | MixpeekError]:
        body = await self._body(organization, connection)
        if not body["is_active"]:
            raise ConflictError(f"the connection {body['name']!r} is {str(body['status']).lower()}; activate it first")
        server = await self._server(organization, _checked(body["provider_type"], body["provider_config"]))
        waiting = iter(enumerate(values))
        answers: dict[int, tuple[Rows, bool] | MixpeekError] = {}

        async def work() -> None:
            async with self._driver.session(server, timeout_s=timeout_s) as session:
                for position, given in waiting:
                    answers[position] = await _answer(session, statement, given, most)

        await each(range(min(_AT_ONCE, len(values))), lambda _: work())
        return [answers[position] for position in range(len(values))]

    async def _try(self, server: SqlServer) -> None:
        async with self._driver.session(server, timeout_s=_TEST_TIMEOUT_S) as session:
            await session.rows(parse_sql("SELECT 1 AS one", ()), {}, most=1)

    async def _body(self, organization: str, identifier: str) -> Mapping[str, Any]:
        record = await self._store.get(TABLE, organization, identifier)
        if record is not None:
            return record.body
        found = await self._store.find(TABLE, organization, filter=equals("name", identifier), limit=1)
        if not found:
            raise NotFoundError(
                f"there is no connection {identifier!r}; create it with POST /v1/organizations/connections",
                code="connection_not_found",
            )
        return found[0].body

    async def _free(self, organization: str, name: str) -> None:
        if await self._store.find(TABLE, organization, filter=equals("name", name), limit=1):
            raise AlreadyExistsError(f"there is a connection named {name!r}", code="connection_name_taken")

    async def _server(self, organization: str, config: PostgresConfig | MysqlConfig | SqliteConfig) -> SqlServer:
        if isinstance(config, SqliteConfig):
            return SqlServer("sqlite", config.database)
        given = config.credentials
        password = given.password.get_secret_value() if given.password else ""
        if given.secret_ref is not None:
            password = await self._secrets.value(organization, given.secret_ref)
        return SqlServer(
            config.provider_type,
            config.database,
            config.host,
            config.port,
            given.username,
            password,
            config.schema_ if isinstance(config, PostgresConfig) else None,
            config.ssl_mode,
        )

    async def _kept(
        self, organization: str, id: str, config: PostgresConfig | MysqlConfig | SqliteConfig
    ) -> dict[str, Any]:
        """The configuration for the record; a password goes among the secrets."""
        body = config.model_dump(mode="json", by_alias=True)
        if isinstance(config, SqliteConfig) or config.credentials.password is None:
            return body
        name, value = _secret_name(id), config.credentials.password.get_secret_value()
        if name in await self._secrets.names(organization):
            await self._secrets.update(organization, name, value)
        else:
            await self._secrets.create(organization, name, value)
        body["credentials"] = {**body["credentials"], "password": None, "secret_ref": name}
        return body


async def _answer(
    session: SqlSession, statement: Statement, values: Mapping[str, Any], most: int
) -> tuple[Rows, bool] | MixpeekError:
    try:
        return await session.rows(statement, values, most=most)
    except MixpeekError as error:
        return error


def _checked(provider_type: str, config: Mapping[str, Any]) -> PostgresConfig | MysqlConfig | SqliteConfig:
    provider = PROVIDERS.get(provider_type)
    if provider is None:
        there = ", ".join(sorted(set(PROVIDERS.values())))
        message = f"connections to {provider_type!r} are not kept here; there are {there}"
        raise SpecError.of([Problem("provider_unknown", message, location=("body", "provider_type"))])
    try:
        made = _CONFIG.validate_python({**config, "provider_type": provider})
    except ValidationError as error:
        # What is wrong is said without the input, which may hold a password.
        problems = [
            Problem("provider_config_invalid", item["msg"], location=("body", "provider_config", *item["loc"][1:]))
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise SpecError.of(problems) from None
    if not isinstance(made, SqliteConfig) and made.credentials.password and made.credentials.secret_ref:
        message = "give password or secret_ref, not both"
        raise SpecError.of([Problem("provider_config_invalid", message, location=("body", "provider_config"))])
    return made


def _secret_name(id: str) -> str:
    return f"connection.{id}"


def _shown(body: Mapping[str, Any]) -> dict[str, Any]:
    """The record for an answer: of a password, only that there is one."""
    config = dict(body["provider_config"])
    if "credentials" in config:
        credentials = dict(config["credentials"])
        own = credentials.get("secret_ref") == _secret_name(str(body["connection_id"]))
        if own:
            credentials.pop("secret_ref")
        config["credentials"] = {**credentials, "password": HIDDEN}
    return {**body, "provider_config": config}
