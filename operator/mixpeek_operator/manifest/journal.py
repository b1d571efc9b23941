"""What an apply is about to do, on disk before it does it: so that a killed apply is finished or undone.

One record per running apply in table `applies`; a finished apply leaves none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mixpeek_operator.core.resource import ResourceKey
from mixpeek_operator.ports.metadata import MetadataStore

TABLE = "applies"
WRITING, SETTLING, UNDOING = "writing", "settling", "undoing"
STATES = (WRITING, SETTLING, UNDOING)


@dataclass(frozen=True, slots=True)
class Image:
    """What of a resource an apply changes."""

    spec: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        return {"spec": dict(self.spec), "labels": dict(self.labels), "annotations": dict(self.annotations)}


@dataclass(frozen=True, slots=True)
class Update:
    """A resource that exists, before and after."""

    key: ResourceKey
    before: Image
    after: Image


@dataclass(frozen=True, slots=True)
class Intent:
    """Everything an apply writes, in the order of its plan."""

    id: str
    organization: str
    created: tuple[ResourceKey, ...] = ()
    updated: tuple[Update, ...] = ()
    wait_s: float = 0.0
    """Seconds to wait for readiness after the writes."""

    @property
    def keys(self) -> list[ResourceKey]:
        return [*self.created, *(update.key for update in self.updated)]

    def body(self, state: str) -> dict[str, Any]:
        """Return the record."""
        return {
            "state": state,
            "wait_s": self.wait_s,
            "created": [[key.kind, key.name] for key in self.created],
            "updated": [
                {
                    "kind": update.key.kind,
                    "name": update.key.name,
                    "before": update.before.body(),
                    "after": update.after.body(),
                }
                for update in self.updated
            ],
        }

    @classmethod
    def read(cls, organization: str, id: str, body: Mapping[str, Any]) -> Intent:
        """Return the intent of a record."""
        return cls(
            id,
            organization,
            tuple(ResourceKey(kind, organization, name) for kind, name in body["created"]),
            tuple(
                Update(
                    ResourceKey(item["kind"], organization, item["name"]),
                    Image(**item["before"]),
                    Image(**item["after"]),
                )
                for item in body["updated"]
            ),
            float(body.get("wait_s") or 0.0),
        )


class Journal:
    """Records of running applies, durable before each call returns."""

    def __init__(self, metadata: MetadataStore) -> None:
        self._metadata = metadata

    async def write(self, intent: Intent, state: str) -> None:
        """Note how far the apply is."""
        await self._metadata.put(TABLE, intent.organization, intent.id, intent.body(state))

    async def close(self, intent: Intent) -> None:
        """Forget an apply that is finished or undone."""
        await self._metadata.delete(TABLE, intent.organization, intent.id)

    async def take(self, *, owner: str, lease_s: float, now: float) -> tuple[Intent, str] | None:
        """Return an apply that its process did not finish, and its state; None when there is none."""
        claimed = await self._metadata.claim(TABLE, states=STATES, owner=owner, lease_s=lease_s, now=now)
        if claimed is None:
            return None
        organization, record = claimed
        return Intent.read(organization, record.id, record.body), str(record.body["state"])
