"""Executing retrievers: declared ones, ad hoc ones, explained ones; and the history of executions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from mixpeek_operator.core import ids
from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.directory import CollectionInfo, Directory, NamespaceInfo, RetrieverInfo, TaxonomyInfo
from mixpeek_operator.core.errors import BadRequestError, MixpeekError, NotFoundError, SpecError
from mixpeek_operator.core.filters import Filter, parse
from mixpeek_operator.core.links import Links
from mixpeek_operator.core.listing import ListPage, ListQuery
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.extraction.embedders import Embedders
from mixpeek_operator.ports.cache import Cache
from mixpeek_operator.ports.inference import Inference
from mixpeek_operator.ports.language import LanguageModels
from mixpeek_operator.ports.metadata import MetadataStore
from mixpeek_operator.ports.outbound import Outbound
from mixpeek_operator.ports.sandbox import Sandbox
from mixpeek_operator.ports.secrets import Secrets
from mixpeek_operator.ports.vectors import SparseVector, VectorStore, not_provisioned
from mixpeek_operator.retrieval import pagination, search
from mixpeek_operator.retrieval.compile import Mark, Pipeline, compile_pipeline, mark_of
from mixpeek_operator.retrieval.execute import Execution
from mixpeek_operator.retrieval.explain import plan_of
from mixpeek_operator.retrieval.feedback import Feedback
from mixpeek_operator.retrieval.history import History
from mixpeek_operator.retrieval.inputs import fields_of
from mixpeek_operator.retrieval.registry import StageRegistry
from mixpeek_operator.retrieval.stage import Context, Documents

MAX_NESTING: Final = 3
"""Retrievers inside retrievers, through `document_enrich`."""
_MAX_PIPELINES: Final = 1000
_MAX_INPUTS: Final = 4096
"""Bytes of inputs, as JSON, that the history keeps."""


class Retrieval:
    """Executes retrievers. Every call stays in the namespace of its scope."""

    def __init__(
        self,
        directory: Directory,
        vectors: VectorStore,
        inference: Inference,
        metadata: MetadataStore,
        cache: Cache,
        clock: Clock,
        links: Links,
        *,
        outbound: Outbound,
        secrets: Secrets,
        sandbox: Sandbox,
        registry: StageRegistry | None = None,
        language: LanguageModels | None = None,
    ) -> None:
        self._directory = directory
        self._vectors = vectors
        self._inference = inference
        self._cache = cache
        self._clock = clock
        self._links = links
        self._outbound = outbound
        self._secrets = secrets
        self._sandbox = sandbox
        self._registry = registry or StageRegistry()
        self._language = language
        self.history = History(metadata)
        self.feedback = Feedback(metadata, clock)
        self._embedders = Embedders(metadata, vectors, clock)
        self._pipelines: dict[tuple[str, str], tuple[tuple[Any, ...], Pipeline]] = {}

    def stages(self, category: str | None = None) -> list[dict[str, Any]]:
        """The stage catalogue in wire shape."""
        return self._registry.catalog(category)

    async def execute(
        self, scope: Scope, identifier: str, request: Mapping[str, Any], *, recorded: bool = True
    ) -> dict[str, Any]:
        """Run a retriever, by id or name; the answer is in wire shape. `recorded` False keeps it out of the history.

        Raises NotFoundError, SpecError with every problem of the inputs, BadRequestError for a foreign page token,
        and whatever a stage raises that is not to be skipped.
        """
        namespace = await self._namespace(scope)
        pipeline = await self._pipeline(namespace, await self._directory.retriever(namespace.id, identifier))
        return await self._answer(scope, pipeline, request, recorded=recorded)

    async def execute_adhoc(self, scope: Scope, body: Mapping[str, Any]) -> dict[str, Any]:
        """Run the stages of a request body that names collections, stages and inputs; nothing is stored but history."""
        namespace = await self._namespace(scope)
        pipeline = await self._compile(namespace, _adhoc(namespace, body))
        return await self._answer(scope, pipeline, body)

    async def explain(self, scope: Scope, identifier: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """The plan of a retriever with estimates; runs nothing, only counts the collections' documents."""
        namespace = await self._namespace(scope)
        pipeline = await self._pipeline(namespace, await self._directory.retriever(namespace.id, identifier))
        inputs = request.get("inputs")
        if inputs:
            pipeline.inputs.check(inputs)
        documents = 0
        if pipeline.collections:
            inside = search.in_collections([collection.id for collection in pipeline.collections])
            if await self._vectors.describe(namespace.vector_collection) is not None:
                documents = await self._vectors.count(namespace.vector_collection, inside)
        return plan_of(pipeline, documents)

    async def executions(self, scope: Scope, identifier: str | None, query: ListQuery) -> ListPage:
        """Summaries of a retriever's executions, newest first; of all, ad hoc ones too, without an identifier."""
        namespace = await self._namespace(scope)
        retriever_id = None
        if identifier is not None:
            retriever_id = (await self._directory.retriever(namespace.id, identifier)).id
        return await self.history.find(namespace.id, retriever_id, query)

    async def execution(self, scope: Scope, execution_id: str, identifier: str | None = None) -> dict[str, Any]:
        """One execution with its statistics; its documents are not kept.

        Raises NotFoundError, also when it is not of the retriever `identifier` (id or name).
        """
        namespace_id = (await self._namespace(scope)).id
        found = await self.history.get(namespace_id, execution_id)
        if identifier is not None:
            retriever = await self._directory.retriever(namespace_id, identifier)
            if found["retriever_id"] != retriever.id:
                raise NotFoundError(f"retriever {retriever.name!r} has no execution {execution_id!r}")
        return found

    async def flush(self) -> None:
        """Return when the history of every answered execution is written."""
        await self.history.flush()

    async def close(self) -> None:
        await self.feedback.close()
        await self.history.close()

    # -- one execution

    async def _answer(
        self, scope: Scope, pipeline: Pipeline, request: Mapping[str, Any], *, recorded: bool = True
    ) -> dict[str, Any]:
        page = pagination.read(request)
        filter = parse(request.get("filters"))
        inputs = pipeline.inputs.check(request.get("inputs"))
        pager = pagination.Pager(
            self._cache, pipeline.namespace.id, page, lambda: _query(pipeline, inputs, request.get("filters"))
        )
        execution = self._begin(scope, pipeline, inputs, filter, depth=0)
        execution.recorded = recorded
        execution.asked = _asked(request, inputs)
        execution.context.user_id = execution.asked.get("user_id")
        try:
            resumed = await pager.resume()
            if resumed is None:
                documents, info = await pager.cut(await execution.run(), execution.order)
            else:
                documents, info = resumed
            if request.get("return_vectors"):
                documents = await self._with_vectors(pipeline, documents)
            if request.get("return_presigned_urls") or request.get("return_urls"):
                documents = await self._with_links(pipeline, documents)
        except asyncio.CancelledError:
            raise
        except Exception as failure:
            error = await self._explained(failure, pipeline.namespace)
            self._record(
                execution, "failed", inputs, 0, str(error) if isinstance(error, MixpeekError) else "internal error"
            )
            if error is failure:
                raise
            raise error from failure
        self._record(execution, execution.status, inputs, len(documents), None)
        return self._wire(execution, documents, info)

    async def _explained(self, failure: Exception, namespace: NamespaceInfo) -> Exception:
        """The failure, or what is behind it: a namespace that is declared and not yet provisioned."""
        if (
            not isinstance(failure, NotFoundError)
            or await self._vectors.describe(namespace.vector_collection) is not None
        ):
            return failure
        return not_provisioned(namespace.name)

    def _begin(
        self, scope: Scope, pipeline: Pipeline, inputs: dict[str, Any], filter: Filter | None, *, depth: int
    ) -> Execution:
        namespace = pipeline.namespace

        async def find_collection(identifier: str) -> CollectionInfo:
            return await self._directory.collection(namespace.id, identifier)

        async def find_taxonomy(identifier: str) -> TaxonomyInfo:
            return await self._directory.taxonomy(namespace.id, identifier)

        async def nested(
            retriever: str | Mapping[str, Any], inputs: Mapping[str, Any], *, filter: Filter | None, limit: int
        ) -> Documents:
            if depth >= MAX_NESTING:
                raise SpecError(f"retrievers may be nested {MAX_NESTING} deep", code="nesting_too_deep")
            if isinstance(retriever, str):
                inner = await self._pipeline(namespace, await self._directory.retriever(namespace.id, retriever))
            else:
                inner = await self._compile(namespace, _adhoc(namespace, retriever))
            given = {key: value for key, value in inputs.items() if value is not None}
            run = self._begin(scope, inner, inner.inputs.check(given), filter, depth=depth + 1)
            return (await run.run())[:limit]

        context = Context(
            scope=scope,
            namespace=namespace,
            collections=pipeline.collections,
            vectors=self._vectors,
            inference=self._inference,
            embedders=self._embedders,
            feedback=self.feedback,
            outbound=self._outbound,
            secrets=self._secrets,
            sandbox=self._sandbox,
            clock=self._clock,
            find_collection=find_collection,
            find_taxonomy=find_taxonomy,
            nested=nested,
            names={"INPUT": inputs},
            language=self._language,
        )
        return Execution(ids.random("exec"), pipeline, context, filter)

    def _wire(self, execution: Execution, documents: Documents, info: dict[str, Any]) -> dict[str, Any]:
        elapsed_ms = round(execution.elapsed_ms(), 3)
        pipeline, context = execution.pipeline, execution.context
        answer: dict[str, Any] = {
            "execution_id": execution.id,
            "retriever_id": pipeline.retriever.id,
            "status": execution.status,
            "documents": documents,
            "pagination": info,
            **_account(execution, elapsed_ms),
            "cached_at": None,
        }
        if execution.degraded:
            answer["degraded"] = execution.degraded
        if context.facets:
            answer["facets"] = context.facets
        if context.aggregations:
            answer["aggregations"] = context.aggregations
        if context.warnings:
            answer["warnings"] = context.warnings
        if context.limits:
            answer["limits"] = context.limits
        return answer

    async def _with_vectors(self, pipeline: Pipeline, documents: Documents) -> Documents:
        namespace = pipeline.namespace
        point_ids = [ids.point_id(namespace.id, str(document.get("document_id"))) for document in documents]
        points = await self._vectors.get(namespace.vector_collection, point_ids, with_vectors=True)
        vectors = {point.id: {name: _plain(vector) for name, vector in point.vectors.items()} for point in points}
        return [
            {**document, "vectors": vectors[id]} if id in vectors else document
            for document, id in zip(documents, point_ids, strict=True)
        ]

    async def _with_links(self, pipeline: Pipeline, documents: Documents) -> Documents:
        namespace = pipeline.namespace
        # A stage may have reshaped a document; what it was made of is then read again.
        bare = [str(item["document_id"]) for item in documents if "_internal" not in item and "document_id" in item]
        internals: dict[str, dict[str, Any]] = {}
        if bare:
            own = {collection.id for collection in pipeline.collections}
            points = await self._vectors.get(
                namespace.vector_collection, [ids.point_id(namespace.id, id) for id in dict.fromkeys(bare)]
            )
            internals = {
                str(point.payload["document_id"]): point.payload["_internal"]
                for point in points
                if point.payload.get("collection_id") in own
            }
        return await self._links.of_documents(namespace.id, documents, internals)

    def _record(
        self, execution: Execution, status: str, inputs: Mapping[str, Any], returned: int, error: str | None
    ) -> None:
        if not execution.recorded:
            return
        elapsed_ms = round(execution.elapsed_ms(), 3)
        now = self._clock.now().astimezone(UTC)
        started = datetime.fromtimestamp(now.timestamp() - elapsed_ms / 1000, UTC)
        summary = inputs.get("query") or inputs.get("query_text")
        record: dict[str, Any] = {
            "execution_id": execution.id,
            "retriever_id": execution.pipeline.retriever.id,
            "retriever_name": execution.pipeline.retriever.name,
            "status": status,
            "created_at": _stamp(started),
            "completed_at": _stamp(now),
            "duration_ms": elapsed_ms,
            "credits_used": execution.credits,
            "total_processed": execution.processed,
            "total_returned": returned,
            "cache_hit_rate": 0.0,
            "query_summary": summary[:200] if isinstance(summary, str) else None,
            "documents": [],
            "documents_retained": False,
            "stages_completed": len(execution.statistics),
            "total_stages": execution.pipeline.stage_count,
            **_account(execution, elapsed_ms),
            **execution.asked,
            "signals": execution.context.signals,
        }
        if error is not None:
            record["error"] = error
        self.history.add(execution.pipeline.namespace.id, record)

    # -- pipelines

    async def _namespace(self, scope: Scope) -> NamespaceInfo:
        if scope.namespace_id is None:
            raise BadRequestError("name a namespace in the X-Namespace header", code="namespace_required")
        return await self._directory.namespace(scope.organization, scope.namespace_id)

    async def _pipeline(self, namespace: NamespaceInfo, retriever: RetrieverInfo) -> Pipeline:
        """The compiled pipeline, from memory while neither the retriever nor any collection it names has changed."""
        collections = await self._collections(namespace, retriever)
        key = (namespace.id, retriever.id)
        version = (retriever.version, *(mark_of(collection) for collection in collections))
        known = self._pipelines.get(key)
        if known is not None and known[0] == version and await self._current(namespace, known[1].named):
            return known[1]
        pipeline = await self._compile(namespace, retriever, collections)
        if len(self._pipelines) >= _MAX_PIPELINES:
            self._pipelines.pop(next(iter(self._pipelines)))
        self._pipelines[key] = (version, pipeline)
        return pipeline

    async def _compile(
        self, namespace: NamespaceInfo, retriever: RetrieverInfo, collections: tuple[CollectionInfo, ...] | None = None
    ) -> Pipeline:
        async def find(identifier: str) -> CollectionInfo:
            return await self._directory.collection(namespace.id, identifier)

        if collections is None:
            collections = await self._collections(namespace, retriever)
        return await compile_pipeline(self._registry, retriever, namespace, collections, find)

    async def _current(self, namespace: NamespaceInfo, named: Mapping[str, Mark]) -> bool:
        """Whether what the stages name is what it was."""
        for identifier, mark in named.items():
            try:
                found: Mark = mark_of(await self._directory.collection(namespace.id, identifier))
            except NotFoundError:
                found = None
            if found != mark:
                return False
        return True

    async def _collections(self, namespace: NamespaceInfo, retriever: RetrieverInfo) -> tuple[CollectionInfo, ...]:
        return tuple(
            [await self._directory.collection(namespace.id, identifier) for identifier in retriever.collection_ids]
        )


def _account(execution: Execution, elapsed_ms: float) -> dict[str, Any]:
    """What an execution took, as its answer and its history show it."""
    pipeline = execution.pipeline
    return {
        "stage_statistics": {
            "stages": execution.statistics,
            "total_time_ms": elapsed_ms,
            "credits_used": execution.credits,
        },
        "budget": {
            "credits_used": execution.credits,
            "credits_limit": pipeline.max_credits,
            "time_elapsed_ms": elapsed_ms,
            "time_limit_ms": pipeline.max_time_ms,
        },
    }


def _asked(request: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What a replay of the query needs: who asked, and the inputs unless they are large (vectors, files)."""
    asked = {name: request[name] for name in ("session_id", "user_id") if isinstance(request.get(name), str)}
    if len(orjson.dumps(inputs, default=str)) <= _MAX_INPUTS:
        asked["inputs"] = dict(inputs)
    return asked


def _adhoc(namespace: NamespaceInfo, body: Mapping[str, Any]) -> RetrieverInfo:
    """The declaration of an ad hoc execution. Raises SpecError when it is none."""
    stages = body.get("stages")
    if not isinstance(stages, list):
        raise SpecError("stages must be a list", code="stages_invalid")
    identifiers = body.get("collection_identifiers") or body.get("collection_ids") or []
    if not isinstance(identifiers, list) or not all(isinstance(item, str) for item in identifiers):
        raise SpecError("collection_identifiers must be a list of names or ids", code="collections_invalid")
    schema = body.get("input_schema") or {}
    if not isinstance(schema, Mapping):
        raise SpecError("input_schema must be an object", code="input_schema_invalid")
    return RetrieverInfo(
        id="",
        name=str(body.get("retriever_name") or "ad hoc"),
        namespace_id=namespace.id,
        description=None,
        collection_ids=tuple(identifiers),
        stages=tuple(stages),
        input_schema=fields_of(schema),
        cache_config={},
        budget_limits=body.get("budget_limits") or {},
        version="",
    )


def _query(pipeline: Pipeline, inputs: Mapping[str, Any], filters: Any) -> str:
    retriever = pipeline.retriever
    parts = [pipeline.namespace.id, retriever.id, retriever.version, inputs, filters]
    if not retriever.id:
        parts += [list(retriever.stages), list(retriever.collection_ids)]
    return pagination.query_hash(parts)


def _plain(vector: Any) -> Any:
    if isinstance(vector, SparseVector):
        return {"indices": list(vector.indices), "values": list(vector.values)}
    return list(vector)


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
