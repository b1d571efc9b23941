"""A resource as a custom resource and back: camelCase in the cluster, the canonical form inside."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from mixpeek_operator.adapters.kubernetes_api import Api, Object
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.normal import from_camel, normalise, to_camel
from mixpeek_operator.core.resource import API_GROUP, API_VERSION, Metadata, Resource


class Objects:
    """Translates the custom resources of every kind."""

    def __init__(self, schemas: Mapping[str, KindSchema]) -> None:
        self._schemas = schemas
        version = API_VERSION.partition("/")[2]
        self.apis: dict[str, Api] = {
            name: Api(API_GROUP, version, schema.plural, name) for name, schema in schemas.items()
        }
        """Where the objects of each kind are."""

    def decode(self, raw: Mapping[str, Any], known: Resource | None = None) -> Resource:
        """Return the resource of a custom resource; its spec is that of `known` where that is the same generation.

        A spec that the kind refuses stays as it is written, so that the engine tells its author; a status that nobody
        can read counts as none and is written anew.
        """
        kind, given = str(raw["kind"]), _metadata(raw["metadata"])
        schema = self._schemas[kind]
        if known is not None and (known.metadata.uid, known.metadata.generation) == (given.uid, given.generation):
            spec = known.spec
        else:
            body = {"name": given.name, **(raw.get("spec") or {})}
            spec, problems = from_camel(schema, body)
            spec = body if problems else spec
        try:
            status = schema.status.model_validate(raw.get("status") or {}).model_dump(exclude_unset=True)
        except ValidationError:
            status = {}
        return Resource(kind, given, spec, status)

    def spec(self, resource: Resource, before: Mapping[str, Any] | None = None) -> Object:
        """Return the spec as a custom resource spells it. `before`: the one it replaces, whose omissions it keeps.

        Raises SpecError for a spec that the kind refuses.
        """
        schema = self._schemas[resource.kind]
        try:
            spec = to_camel(schema, resource.spec)
        except ValidationError as error:
            raise SpecError.of(normalise(schema, dict(resource.spec))[1]) from error
        implied = before is not None and "name" not in before
        if implied and spec.get("name") == resource.metadata.name:
            del spec["name"]
        return spec

    def status(self, resource: Resource, status: Mapping[str, Any]) -> Object:
        """Return a status as a custom resource spells it."""
        model = self._schemas[resource.kind].status.model_validate(dict(status))
        return model.model_dump(by_alias=True, exclude_unset=True)

    def encode(self, resource: Resource) -> Object:
        """Return what is declared: names, labels, annotations, finalizers and spec."""
        given = resource.metadata
        metadata: Object = {"name": given.name, "namespace": given.organization}
        for key, value in (("labels", given.labels), ("annotations", given.annotations)):
            if value:
                metadata[key] = dict(value)
        if given.finalizers:
            metadata["finalizers"] = list(given.finalizers)
        return {
            "apiVersion": API_VERSION,
            "kind": resource.kind,
            "metadata": metadata,
            "spec": self.spec(resource),
        }


def _metadata(raw: Mapping[str, Any]) -> Metadata:
    return Metadata(
        name=raw["name"],
        organization=raw["namespace"],
        uid=raw["uid"],
        generation=int(raw.get("generation") or 1),
        resource_version=int(raw["resourceVersion"]),
        labels=dict(raw.get("labels") or {}),
        annotations=dict(raw.get("annotations") or {}),
        finalizers=list(raw.get("finalizers") or ()),
        creation_timestamp=_moment(raw.get("creationTimestamp")),
        deletion_timestamp=_moment(raw.get("deletionTimestamp")),
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
