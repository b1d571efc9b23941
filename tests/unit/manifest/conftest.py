"""A small world for manifests: a catalog of two extractors, embedded stores, and an engine that only says Ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict

from mixpeek_operator.adapters.sqlite_metadata import SqliteMetadata
from mixpeek_operator.adapters.sqlite_resources import SqliteResources
from mixpeek_operator.core.catalog import ExtractorInfo, Need, StageInfo, VectorIndex
from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.errors import NotFoundError, Place, Problem
from mixpeek_operator.core.ids import derived
from mixpeek_operator.core.resource import FINALIZER, ID_ANNOTATION, Metadata, Resource, metadata_name
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.manifest.apply import Applier
from mixpeek_operator.manifest.generate import Generator
from mixpeek_operator.manifest.journal import Journal
from mixpeek_operator.manifest.registry import schemas
from mixpeek_operator.manifest.service import ManifestService

ORGANIZATION = "int_test"

MANIFEST = """\
version: "1.0"
metadata:
  name: shop
namespaces:
  - name: shop
    description: All of the shop
    feature_extractors:
      - {name: text_extractor, version: v1}
buckets:
  - name: products
    namespace: shop
    description: What we sell
    schema:
      properties:
        title: {type: text, required: true}
        price: {type: number}
collections:
  - name: titles
    namespace: shop
    description: Titles, embedded
    source: {type: bucket, bucket_ids: [products]}
    feature_extractor:
      feature_extractor_name: text_extractor
      version: v1
      input_mappings: {text: title}
retrievers:
  - name: search
    namespace: shop
    description: Finds products
    collection_identifiers: [titles]
    input_schema:
      query: {type: text, required: true}
    stages:
      - stage_name: find
        stage_id: feature_search
        parameters:
          searches:
            - feature_uri: mixpeek://text_extractor@v1/text_embedding
              query: {input_mode: text, value: "{{INPUT.query}}"}
              top_k: 20
    cache_config: {enabled: true, ttl_seconds: 60}
"""


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    split_by: str = "sentences"


class _StageParameters(BaseModel):
    limit: int = 10


def _extractor(name: str) -> ExtractorInfo:
    index = VectorIndex(f"{name}_v1_embedding", "text_embedding", "Embedding of the text", "dense", 384)
    return ExtractorInfo(
        name=name,
        version="v1",
        description="Makes features",
        icon="text",
        source="builtin",
        input_schema={"properties": {"text": {"type": "string"}}},
        output_schema={"properties": {}},
        parameters=_Parameters,
        supported_input_types=("text",),
        vector_indexes=(index,),
    )


_NEEDS: dict[str, Literal["secret", "connection"]] = {"secret_ref": "secret", "connection_id": "connection"}


class FakeCatalog:
    """Knows text_extractor and passthrough_extractor, and four stages."""

    def __init__(self) -> None:
        self._extractors = {(name, "v1"): _extractor(name) for name in ("text_extractor", "passthrough_extractor")}
        ids = ("feature_search", "attribute_filter", "limit", "llm_filter", "document_enrich")
        self._stages = {id: StageInfo(id, "filter", "A stage", "icon", _StageParameters) for id in ids}

    def stages(self) -> Mapping[str, StageInfo]:
        return self._stages

    def extractors(self) -> Mapping[tuple[str, str], ExtractorInfo]:
        return self._extractors

    def vector_indexes(self, name: str, version: str, parameters: Mapping[str, Any]) -> tuple[VectorIndex, ...]:
        return self._extractors[name, version].vector_indexes

    def output_schema(self, name: str, version: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        return {}

    def check_stages(self, stages: list[Any], input_schema: Mapping[str, Any]) -> list[Any]:
        return [
            Problem(
                "unknown_stage",
                f"unknown stage {stage['stage_id']!r}",
                Place(path=f"stages[{index}].stage_id"),
                location=("stages", index, "stage_id"),
            )
            for index, stage in enumerate(stages)
            if stage.get("stage_id") not in self._stages
        ]

    def stage_needs(self, stages: list[Any]) -> list[Need]:
        return [
            Need(kind, stage["parameters"][name], ("stages", index, "parameters", name))
            for index, stage in enumerate(stages)
            for name, kind in _NEEDS.items()
            if name in stage.get("parameters", {})
        ]


class FakeSecrets:
    """Names without values: nothing in a manifest may need one."""

    def __init__(self, *names: str) -> None:
        self._names = list(names)

    async def value(self, organization: str, name: str) -> str:
        raise NotFoundError(name)

    async def names(self, organization: str) -> list[str]:
        return self._names


class FakeDatabases:
    """Connections that nobody opens."""

    def __init__(self, *names: str) -> None:
        self._names = list(names)

    async def names(self, organization: str) -> list[str]:
        return self._names

    async def query(self, *args: Any, **options: Any) -> Any:
        raise NotFoundError("crm")


class Declared:
    """Declares resources straight into a store."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def prepare(
        self,
        scope: Scope,
        kind: str,
        body: Mapping[str, Any],
        *,
        id: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Resource:
        namespace, name = body.get("namespace"), str(body["name"])
        minted = derived(schemas()[kind].id_prefix, scope.organization, kind, namespace or "", name)
        metadata = Metadata(
            metadata_name(namespace, name),
            scope.organization,
            labels=dict(labels or {}),
            annotations={ID_ANNOTATION: id or minted, **(annotations or {})},
            finalizers=[FINALIZER],
        )
        return Resource(kind, metadata, dict(body))

    async def commit(self, create: Any, update: Any, delete: Any) -> list[Resource]:
        found: list[Resource] = await self._store.apply_batch(create, update, delete)
        return found


class World:
    """Embedded stores with a settler in place of the engine; `broken` maps resource names to why they stall."""

    def __init__(self, folder: Path) -> None:
        self.store = SqliteResources(folder / "resources.sqlite", SystemClock())
        self.metadata = SqliteMetadata(folder / "metadata.sqlite")
        self.broken: dict[str, str] = {}
        self.slow: set[str] = set()
        self.secrets = FakeSecrets("API_KEY")
        self.catalog = FakeCatalog()
        self._task: asyncio.Task[None] | None = None

    def applier(self, store: Any = None, metadata: Any = None) -> Applier:
        journal = Journal(metadata or self.metadata)
        chosen = store or self.store
        return Applier(store=chosen, journal=journal, resources=Declared(chosen), clock=SystemClock(), settle_s=5.0)

    def service(self, *, store: Any = None, metadata: Any = None, **extra: Any) -> ManifestService:
        chosen = store or self.store
        generator = Generator(language=None, schemas=schemas(), catalog=self.catalog)
        options: dict[str, Any] = {"wait_s": 5.0, "generator": generator, **extra}
        return ManifestService(
            store=chosen,
            secrets=self.secrets,
            databases=FakeDatabases("crm"),
            schemas=schemas(),
            catalog=self.catalog,
            applier=self.applier(chosen, metadata),
            clock=SystemClock(),
            **options,
        )

    async def all(self) -> dict[str, Resource]:
        return {str(item.key): item for item in await self.store.find(ORGANIZATION)}

    async def specs(self) -> dict[str, Any]:
        return {key: item.spec for key, item in (await self.all()).items()}

    def start(self) -> None:
        self._task = asyncio.create_task(self._settle())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def close(self) -> None:
        await self.stop()
        await self.store.close()
        await self.metadata.close()

    async def _settle(self) -> None:
        async for change in self.store.watch():
            resource = await self.store.get(change.resource.key)
            if resource is None or change.type == "DELETED":
                continue
            if resource.deleting:
                resource.metadata.finalizers = []
                await self.store.update(resource)
                continue
            if resource.name in self.slow:
                continue
            why = self.broken.get(resource.name)
            conditions = [
                {"type": "Ready", "status": "False" if why else "True", "reason": "Any", "message": why or ""}
            ]
            if why:
                conditions.append({"type": "Stalled", "status": "True", "reason": "SpecInvalid", "message": why})
            status = {"observed_generation": resource.metadata.generation, "conditions": conditions}
            await self.store.update_status(resource.key, status)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    made.start()
    yield made
    await made.close()


@pytest.fixture
def manifest() -> str:
    return MANIFEST


@pytest.fixture
def organization() -> str:
    return ORGANIZATION


@pytest.fixture
def catalog() -> FakeCatalog:
    return FakeCatalog()
