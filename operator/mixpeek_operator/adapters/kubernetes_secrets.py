"""Secrets of an organization in one Secret of its Kubernetes namespace: `mixpeek-secrets`, a key for each.

One object by a name that is known beforehand, so that a role can be confined to it (`resourceNames`), and what people
sync into a namespace with External Secrets or seal for Git. Values are read when they are used and never kept: a
rotated one counts from then on.
"""

from __future__ import annotations

import base64

from mixpeek_operator.access.secrets import check_name
from mixpeek_operator.adapters.kubernetes_api import SECRETS, KubernetesApi, Object
from mixpeek_operator.core.errors import AlreadyExistsError, ConflictError, NotFoundError, RefusedError

SECRET = "mixpeek-secrets"  # noqa: S105 - a name
_MANAGER = "mixpeek-api"
_ATTEMPTS = 5


class KubernetesSecrets:
    """The `SecretStore` port on Kubernetes; an organization is a Kubernetes namespace."""

    def __init__(self, api: KubernetesApi, name: str = SECRET) -> None:
        self._api = api
        self._name = name

    async def value(self, organization: str, name: str) -> str:
        """Return the value, to be used and not kept.

        NotFoundError when there is none, RefusedError when it is no text.
        """
        held = (await self._held(organization) or {}).get("data") or {}
        if name not in held:
            raise self._missing(organization, name)
        try:
            return base64.b64decode(held[name]).decode()
        except ValueError as error:
            raise RefusedError(
                f"key {name!r} of Secret {organization}/{self._name} is not text", code="secret_unreadable"
            ) from error

    async def names(self, organization: str) -> list[str]:
        """Return the names of all secrets, sorted."""
        return sorted((await self._held(organization) or {}).get("data") or {})

    async def create(self, organization: str, name: str, value: str) -> None:
        """Store a new secret. AlreadyExistsError when the name is taken, SpecError when it cannot be used."""
        check_name(name)
        for _ in range(_ATTEMPTS):
            held = await self._held(organization)
            try:
                if held is None:
                    await self._api.create(SECRETS, self._body(organization, name, value), manager=_MANAGER)
                    return
                if name in (held.get("data") or {}):
                    raise AlreadyExistsError(
                        f"there is a secret named {name!r}; replace it with PUT /v1/organizations/secrets/{name}",
                        code="secret_name_taken",
                    )
                await self._change(organization, held, name, value)
                return
            except AlreadyExistsError as error:
                if error.code == "secret_name_taken":
                    raise
            except ConflictError:
                continue
        raise ConflictError(f"Secret {organization}/{self._name} is being changed by others; try again")

    async def update(self, organization: str, name: str, value: str) -> None:
        """Replace the value; the old one is gone. NotFoundError when there is no such secret."""
        await self._existing(organization, name, value)

    async def delete(self, organization: str, name: str) -> None:
        """Remove a secret. NotFoundError when there is none."""
        await self._existing(organization, name, None)

    async def _existing(self, organization: str, name: str, value: str | None) -> None:
        for _ in range(_ATTEMPTS):
            held = await self._held(organization)
            if held is None or name not in (held.get("data") or {}):
                raise self._missing(organization, name)
            try:
                await self._change(organization, held, name, value)
                return
            except ConflictError:
                continue
        raise ConflictError(f"Secret {organization}/{self._name} is being changed by others; try again")

    async def _held(self, organization: str) -> Object | None:
        try:
            return await self._api.get(SECRETS, organization, self._name)
        except NotFoundError:
            return None

    async def _change(self, organization: str, held: Object, name: str, value: str | None) -> None:
        data = None if value is None else _encoded(value)
        patch = {"metadata": {"resourceVersion": held["metadata"]["resourceVersion"]}, "data": {name: data}}
        await self._api.patch(SECRETS, organization, self._name, patch, manager=_MANAGER)

    def _body(self, organization: str, name: str, value: str) -> Object:
        return {
            "apiVersion": SECRETS.api_version,
            "kind": SECRETS.kind,
            "metadata": {"name": self._name, "namespace": organization},
            "type": "Opaque",
            "data": {name: _encoded(value)},
        }

    def _missing(self, organization: str, name: str) -> NotFoundError:
        return NotFoundError(
            f"there is no secret named {name!r}; add the key to Secret {organization}/{self._name}, "
            "or create it with POST /v1/organizations/secrets",
            code="secret_not_found",
            details={"secret_name": name},
        )


def _encoded(value: str) -> str:
    return base64.b64encode(value.encode()).decode()
