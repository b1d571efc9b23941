"""What happened to a resource, as Events of Kubernetes: `kubectl describe` shows them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any

from mixpeek_operator.adapters.kubernetes_api import EVENTS, KubernetesApi, Object
from mixpeek_operator.core.errors import AlreadyExistsError, NotFoundError
from mixpeek_operator.core.resource import API_VERSION, Event, ResourceKey

_KEPT = 100
"""Events that are told of one resource; the API server itself forgets them after an hour."""
_REMEMBERED = 4096
_COMPONENT = "mixpeek-operator"


class Recorder:
    """Writes Events; the same again raises the count of the first."""

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api
        self._counts: OrderedDict[str, int] = OrderedDict()

    async def record(self, event: Event) -> None:
        """Write an event of the object `event.uid`."""
        name = _name(event)
        namespace, at = event.key.organization, _text(event.at)
        if name in self._counts and await self._again(namespace, name, at):
            return
        body = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": event.key.kind,
                "namespace": namespace,
                "name": event.key.name,
                "uid": event.uid,
            },
            "type": event.type,
            "reason": event.reason,
            # Longer ones are refused.
            "message": event.message[:1024],
            "source": {"component": _COMPONENT},
            "reportingComponent": _COMPONENT,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
        try:
            await self._api.create(EVENTS, body, manager=_COMPONENT)
            self._remember(name, 1)
        except AlreadyExistsError:
            # Written before we were started.
            found = await self._api.get(EVENTS, namespace, name)
            self._remember(name, int(found.get("count") or 1))
            await self._again(namespace, name, at)

    async def read(self, key: ResourceKey, limit: int) -> list[Event]:
        """Return the events of a resource, newest first."""
        fields = f"involvedObject.kind={key.kind},involvedObject.name={key.name}"
        page = await self._api.list(EVENTS, key.organization, fields=fields)
        # Warnings are written before what happened before them.
        newest = sorted(
            page.items, key=lambda item: (_at(item), int(item["metadata"]["resourceVersion"])), reverse=True
        )
        return [_event(key, item) for item in newest[: min(limit, _KEPT)]]

    async def _again(self, namespace: str, name: str, at: str) -> bool:
        count = self._counts[name] + 1
        change: dict[str, Any] = {"count": count, "lastTimestamp": at}
        try:
            await self._api.patch(EVENTS, namespace, name, change, manager=_COMPONENT)
        except NotFoundError:
            del self._counts[name]
            return False
        self._remember(name, count)
        return True

    def _remember(self, name: str, count: int) -> None:
        self._counts[name] = count
        self._counts.move_to_end(name)
        while len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)


def _name(event: Event) -> str:
    digest = hashlib.sha256("\x1f".join((event.uid, event.type, event.reason, event.message)).encode()).hexdigest()
    return f"{event.key.name[:230]}.{digest[:16]}"


def _event(key: ResourceKey, item: Object) -> Event:
    return Event(key, item.get("type") or "Normal", item["reason"], item.get("message") or "", _at(item))


def _at(item: Object) -> datetime:
    text = item.get("lastTimestamp") or item.get("eventTime") or item["metadata"]["creationTimestamp"]
    return datetime.fromisoformat(text)


def _text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
