"""Bodies of the routes about organizations, users, keys and secrets."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from mixpeek_operator.core.errors import BadRequestError

Permission = Literal["read", "write", "delete", "admin"]
Role = Literal["admin", "member", "viewer"]
UserState = Literal["active", "suspended", "pending"]
_EMAIL = r"^[^@\s/]+@[^@\s/]+$"


class Body(BaseModel):
    """A request body; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")

    def changes(self) -> dict[str, Any]:
        """Return what the caller set. BadRequestError when that is nothing."""
        changes = self.model_dump(mode="json", exclude_unset=True)
        if not changes:
            raise BadRequestError("there is nothing to change: the body sets no field", code="empty_update")
        return changes


class OrganizationUpdate(Body):
    """Changes to the organization."""

    organization_name: str = Field(default="", min_length=1, max_length=200, description="Display name.")
    logo_url: str | None = Field(default=None, description="Address of the logo.")
    billing_email: str | None = Field(default=None, pattern=_EMAIL, description="Contact for billing.")
    notifications_email: str | None = Field(default=None, pattern=_EMAIL, description="Contact for alerts.")
    metadata: dict[str, Any] | None = Field(default=None, description="Replaces the metadata.")


class UserCreate(Body):
    """A new user."""

    email: str = Field(pattern=_EMAIL, max_length=254, description="Unique in the organization.")
    user_name: str = Field(min_length=1, max_length=200, description="Display name.")
    avatar_url: str | None = Field(default=None, description="Address of a picture.")
    role: Role | None = Field(default=None, description="member when left out.")
    status: UserState | None = Field(default=None, description="active when left out.")
    metadata: dict[str, Any] | None = Field(default=None, description="Free-form.")


class UserUpdate(Body):
    """Changes to a user; any status but active revokes the user's keys."""

    user_name: str = Field(default="", min_length=1, max_length=200, description="Display name.")
    avatar_url: str | None = Field(default=None, description="Address of a picture.")
    role: Role = Field(default="member", description="Role in the organization.")
    status: UserState = Field(default="active", description="Whether the user may act.")
    metadata: dict[str, Any] | None = Field(default=None, description="Replaces the metadata.")


class KeyRights(Body):
    """What a key may do, and for how long."""

    description: str | None = Field(default=None, max_length=500, description="What the key is for.")
    scopes: list[dict[str, Any]] | None = Field(default=None, description="Not enforced, so refused.")
    rate_limit_override: int | None = Field(default=None, ge=1, description="Requests per minute.")
    expires_at: datetime | None = Field(default=None, description="When it stops working.")
    allowed_origins: list[str] | None = Field(default=None, description="Browser origins; * is a wildcard.")


class KeyCreate(KeyRights):
    """A new API key."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[^/]+$", description="Unique per user.")
    permissions: list[Permission] | None = Field(default=None, description="read, write and delete when left out.")
    principal_id: str | None = Field(default=None, description="Not enforced, so refused.")


class KeyUpdate(KeyRights):
    """Changes to an API key."""

    name: str = Field(default="", min_length=1, max_length=100, pattern=r"^[^/]+$", description="New name.")
    permissions: list[Permission] = Field(default=[], description="Replaces the permissions.")
    status: Literal["active", "revoked"] = Field(default="active", description="revoked stops it for good.")


class SecretCreate(Body):
    """A new secret."""

    secret_name: str = Field(min_length=1, max_length=100, description="How ${{ secrets.NAME }} names it.")
    secret_value: SecretStr = Field(min_length=1, description="Kept encrypted; never given back.")


class SecretUpdate(Body):
    """A new value for a secret."""

    secret_value: SecretStr = Field(min_length=1, description="Kept encrypted; never given back.")
