"""Executing retrievers: declared ones, ad hoc ones, explained ones; and the history of executions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

import orjson

from mixpeek_operator.core import ids
from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.directory import CollectionInfo, Directory, NamespaceInfo, TaxonomyInfo
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
from mixpeek_operator.ports.signatures import IndexSignatures
from mixpeek_operator.ports.sql import Databases
from mixpeek_operator.ports.vectors import VectorStore, not_provisioned
from mixpeek_operator.ports.web_search import WebSearch
from mixpeek_operator.retrieval import pagination, search, wire
from mixpeek_operator.retrieval.compile import Pipeline
from mixpeek_operator.retrieval.delivery import with_links, with_vectors
from mixpeek_operator.retrieval.dependencies import Dependencies
from mixpeek_operator.retrieval.execute import Execution, Watch
from mixpeek_operator.retrieval.explain import Caching, plan_of
from mixpeek_operator.retrieval.feedback import Feedback
from mixpeek_operator.retrieval.history import History
from mixpeek_operator.retrieval.keeping import digest
from mixpeek_operator.retrieval.kept import Answers, Kept, Shelf, prefix
from mixpeek_operator.retrieval.outputs import StageOutputs, Trail
from mixpeek_operator.retrieval.pipelines import Pipelines
from mixpeek_operator.retrieval.progress import stream
from mixpeek_operator.retrieval.query import Asked, Query
from mixpeek_operator.retrieval.registry import StageRegistry
from mixpeek_operator.retrieval.stage import Context, Documents
from mixpeek_operator.retrieval.wire import Answer
from mixpeek_operator.retrieval.withheld import Withheld

MAX_NESTING: Final = 3
"""Retrievers inside retrievers, through `document_enrich`."""


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
        signatures: IndexSignatures,
        web_search: WebSearch | None = None,
        databases: Databases | None = None,
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
        self._web_search = web_search
        self._databases = databases
        self._sandbox = sandbox
        self._signatures = signatures
        self._shelf = Shelf(cache, clock)
        self._answers = Answers(self._shelf)
        self._ids = ids.Stream("exec")
        self._registry = registry or StageRegistry()
        self._language = language
        self.history = History(metadata)
        self.feedback = Feedback(metadata, clock)
        self._embedders = Embedders(metadata, vectors, clock)
        self._pipelines = Pipelines(directory, self._registry)

    def stages(self, category: str | None = None) -> list[dict[str, Any]]:
        """The stage catalogue in wire shape."""
        return self._registry.catalog(category)

    async def execute(
        self, scope: Scope, identifier: str, request: Mapping[str, Any], *, recorded: bool = True
    ) -> dict[str, Any]:
        """Run a retriever, by id or name; the answer is in wire shape, and never one that was kept.

        `recorded` False keeps it out of the history. Raises NotFoundError, SpecError with every problem of the
        inputs, BadRequestError for a foreign page token, and whatever a stage raises that is not to be skipped.
        """
        pipeline = await self._pipelines.declared(await self._namespace(scope), identifier)
        return (await self._run(self._query(scope, pipeline, request), recorded=recorded))[1]

    async def execute_adhoc(
        self, scope: Scope, body: Mapping[str, Any], *, watch: Watch | None = None
    ) -> dict[str, Any]:
        """Run the stages of a request body that names collections, stages and inputs; nothing is stored but history."""
        namespace = await self._namespace(scope)
        pipeline = await self._pipelines.compiled(namespace, wire.adhoc(namespace, body))
        return (await self._run(self._query(scope, pipeline, body), watch=watch))[1]

    async def answer(
        self, scope: Scope, identifier: str, request: Mapping[str, Any], *, watch: Watch | None = None
    ) -> Answer:
        """Answer as `execute` does, with the answer that is kept for an equal request where there is one.

        Equal requests at the same time compute one answer. `skip_cache` asks for a fresh one, which is then kept.
        """
        began = self._clock.monotonic()
        pipeline = await self._pipelines.declared(await self._namespace(scope), identifier)
        query = self._query(scope, pipeline, request)
        ttl_s = self._ttl(query)
        if ttl_s <= 0:
            execution, made = await self._run(query.own(), watch=watch)
            return Answer(execution.id, wire.whole(execution.id, wire.members(made), None))
        dependencies = self._dependencies(pipeline.namespace)
        stamp = await self._stamp(pipeline)
        key = f"{prefix(pipeline.namespace.id, pipeline.retriever.id)}answer:{query.key(stamp)}"
        etag = key.rpartition(":")[2][:24]
        if not query.fresh:
            kept = await self._answers.find(key)
            if kept is not None and await dependencies.hold(kept.marks):
                kept = await self._whole(pipeline, kept)
                if kept is not None:
                    return self._found(query, kept, ttl_s, etag, began)
        fresh: list[tuple[str, bytes, Kept]] = []

        async def make() -> Kept | None:
            execution, made = await self._run(
                query.own(), watch=watch, stamp=stamp, dependencies=dependencies, counted=not query.fresh
            )
            body = wire.members(made)
            facts = wire.facts_of(execution, query.inputs, len(made["documents"]))
            kept = Kept(self._shelf.now(), body, facts, dependencies.snapshot())
            fresh.append((execution.id, body, kept))
            return await self._bare(pipeline, made, kept) if execution.status == "completed" else None

        if query.fresh:
            found = await make()
            if found is not None:
                await self._answers.keep(key, found, ttl_s)
        else:
            found = await asyncio.shield(self._answers.begin(key, make, ttl_s))
        execution_id, body, kept = fresh[0]
        whole = wire.whole(execution_id, body, None)
        return Answer(execution_id, whole, None if found is None else _etag(etag, found), ttl_s)

    async def events(self, scope: Scope, identifier: str | None, request: Mapping[str, Any]) -> AsyncIterator[bytes]:
        """Answer as `answer` does (`execute_adhoc` without an identifier), telling of every stage: JSON of events.

        What is wrong with the request is raised before there are events.
        """
        namespace = await self._namespace(scope)
        if identifier is None:
            pipeline = await self._pipelines.compiled(namespace, wire.adhoc(namespace, request))
        else:
            pipeline = await self._pipelines.declared(namespace, identifier)
        self._query(scope, pipeline, request)

        async def last(watch: Watch) -> bytes:
            if identifier is not None:
                return (await self.answer(scope, identifier, request, watch=watch)).body
            answer = await self.execute_adhoc(scope, request, watch=watch)
            return wire.whole(str(answer["execution_id"]), wire.members(answer), None)

        return stream(last)

    async def clear_cache(self, scope: Scope, identifier: str) -> dict[str, Any]:
        """Forget everything that is kept for a retriever. Raises NotFoundError."""
        namespace = await self._namespace(scope)
        retriever = await self._directory.retriever(namespace.id, identifier)
        await self._signatures.renew(namespace.id, retriever.id)
        deleted = await self._shelf.clear(namespace.id, retriever.id)
        return {
            "success": True,
            "retriever_id": retriever.id,
            "deleted_count": deleted,
            "message": f"nothing is kept of {retriever.name!r} any more",
        }

    async def explain(self, scope: Scope, identifier: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """The plan of a retriever with estimates; runs nothing, counts documents and looks what is kept.

        With inputs it says what is kept for just this request.
        """
        namespace = await self._namespace(scope)
        pipeline = await self._pipelines.declared(namespace, identifier)
        caching = Caching()
        if request.get("inputs"):
            caching = await self._kept(self._query(scope, pipeline, request))
        documents = 0
        if pipeline.collections:
            inside = search.in_collections([collection.id for collection in pipeline.collections])
            if await self._vectors.describe(namespace.vector_collection) is not None:
                documents = await self._vectors.count(namespace.vector_collection, inside)
        return plan_of(pipeline, documents, caching)

    async def _kept(self, query: Query) -> Caching:
        """What a request would find: the whole answer, and the outputs of stages as far as nothing has to run."""
        pipeline = query.pipeline
        stamp, place = await self._stamp(pipeline), prefix(pipeline.namespace.id, pipeline.retriever.id)
        whole = self._ttl(query) > 0 and await self._shelf.get(f"{place}answer:{query.key(stamp)}") is not None
        trail, stages = Trail(stamp, query.inputs, query.filter), set()
        for step in pipeline.steps:
            key = trail.known_key(step)
            if key is None or step.beside:
                break
            if step.rule.ttl_s > 0 and await self._shelf.get(f"{place}stage:{key}") is not None:
                stages.add(step.stage.name)
            trail.pass_by([step])
        return Caching(whole, frozenset(stages))

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
        await self._answers.close()
        await self._shelf.close()
        await self.feedback.close()
        await self.history.close()

    # -- one execution

    def _query(self, scope: Scope, pipeline: Pipeline, request: Mapping[str, Any]) -> Query:
        if not isinstance(request, Asked):
            return self._read(scope, pipeline, request)
        last = request.query
        if last is None or last.pipeline is not pipeline or last.scope != scope:
            last = request.query = self._read(scope, pipeline, request)
        return last

    def _read(self, scope: Scope, pipeline: Pipeline, request: Mapping[str, Any]) -> Query:
        page = pagination.read(request)
        if page.method == "scroll" and pipeline.retriever.cache_config.get("exclude_fields"):
            text = "a scroll keeps its result, and cache_config.exclude_fields forbids that; use cursor or keyset pages"
            raise BadRequestError(text, code="scroll_not_kept")
        return Query(
            scope,
            pipeline,
            request,
            page,
            parse(request.get("filters")),
            pipeline.inputs.check(request.get("inputs")),
        )

    async def _run(
        self,
        query: Query,
        *,
        recorded: bool = True,
        watch: Watch | None = None,
        stamp: str | None = None,
        dependencies: Dependencies | None = None,
        counted: bool = False,
    ) -> tuple[Execution, dict[str, Any]]:
        """Execute, and return the execution with its answer in wire shape."""
        pipeline, page = query.pipeline, query.page
        pager = pagination.Pager(self._cache, pipeline.namespace.id, page, query.token)
        if stamp is None:
            stamp = await self._stamp(pipeline)
        reading = dependencies or self._dependencies(pipeline.namespace)
        execution = self._begin(query, stamp, reading, depth=0, watch=watch)
        execution.recorded = recorded
        execution.context.user_id = query.user_id
        try:
            resumed = await pager.resume()
            if resumed is None:
                documents, info = await pager.cut(await execution.run(), execution.order)
            else:
                documents, info = resumed
            if query.request.get("return_vectors"):
                documents = await with_vectors(self._vectors, pipeline, documents)
            if query.links:
                documents = await with_links(self._vectors, self._links, pipeline, documents)
        except asyncio.CancelledError:
            raise
        except Exception as failure:
            error = await self._explained(failure, pipeline.namespace)
            told = str(error) if isinstance(error, MixpeekError) else "internal error"
            self._record(execution, query, "failed", 0, told, counted)
            if error is failure:
                raise
            raise error from failure
        self._record(execution, query, execution.status, len(documents), None, counted)
        return execution, wire.answer_of(execution, documents, info)

    def _found(self, query: Query, kept: Kept, ttl_s: float, etag: str, began: float) -> Answer:
        """The answer that is kept, as that of an execution of its own."""
        id = self._ids.next()
        now, elapsed_ms = self._clock.now(), (self._clock.monotonic() - began) * 1000
        retriever = query.pipeline.retriever
        record = partial(wire.record_of_hit, id, retriever, kept.facts, query, now, elapsed_ms)
        self.history.add(query.pipeline.namespace.id, id, record)
        age_s = max(0.0, now.timestamp() - kept.at)
        return Answer(id, wire.whole(id, kept.body, kept.at), _etag(etag, kept), ttl_s, kept.at, age_s)

    async def _bare(self, pipeline: Pipeline, made: Mapping[str, Any], kept: Kept) -> Kept | None:
        """The answer as it may be kept: without excluded fields; None when it cannot be."""
        withheld = self._withheld(pipeline)
        if not withheld:
            return kept
        taken = await withheld.taken_out(made["documents"], {**made, "documents": None})
        if taken is None:
            return None
        return replace(kept, body=wire.members({**made, "documents": taken[0]}), gaps=taken[1])

    async def _whole(self, pipeline: Pipeline, kept: Kept) -> Kept | None:
        """The answer as it was made; None when a field that was not kept cannot be read again."""
        if not kept.gaps:
            return kept
        made = orjson.loads(b"{%b}" % kept.body)
        documents = await self._withheld(pipeline).put_back(made["documents"], kept.gaps)
        return None if documents is None else replace(kept, body=wire.members({**made, "documents": documents}))

    def _withheld(self, pipeline: Pipeline) -> Withheld:
        return Withheld(pipeline.retriever.cache_config.get("exclude_fields") or (), self._vectors, pipeline.namespace)

    def _ttl(self, query: Query) -> float:
        """Seconds that the answer may be kept; a scroll has a result of its own, links are of use while they last."""
        if query.page.method == "scroll":
            return 0
        ttl_s = query.pipeline.answers.ttl_s
        return min(ttl_s, self._links.expires_s / 2) if query.links else ttl_s

    async def _stamp(self, pipeline: Pipeline) -> str:
        """What changes with every write to what the pipeline reads; "" where nothing is kept."""
        if not pipeline.retriever.id:
            return ""
        reads = await self._signatures.stamp(pipeline.namespace.id, pipeline.retriever.id, pipeline.reads)
        return f"{pipeline.retriever.version}/{reads}"

    def _dependencies(self, namespace: NamespaceInfo) -> Dependencies:
        async def mark(kind: str, identifier: str) -> str | None:
            try:
                if kind == "collection":
                    info = await self._directory.collection(namespace.id, identifier)
                    return f"{info.id}/{(await self._signatures.signatures([info]))[0]}"
                if kind == "taxonomy":
                    return digest(repr(await self._directory.taxonomy(namespace.id, identifier)))
                retriever = await self._directory.retriever(namespace.id, identifier)
            except NotFoundError:
                return None
            return f"{retriever.id}/{retriever.version}"

        return Dependencies(mark)

    async def _explained(self, failure: Exception, namespace: NamespaceInfo) -> Exception:
        """The failure, or what is behind it: a namespace that is declared and not yet provisioned."""
        if (
            not isinstance(failure, NotFoundError)
            or await self._vectors.describe(namespace.vector_collection) is not None
        ):
            return failure
        return not_provisioned(namespace.name)

    def _begin(
        self, query: Query, stamp: str, dependencies: Dependencies, *, depth: int, watch: Watch | None = None
    ) -> Execution:
        scope, pipeline = query.scope, query.pipeline
        namespace = pipeline.namespace

        async def find_collection(identifier: str) -> CollectionInfo:
            await dependencies.add("collection", identifier)
            return await self._directory.collection(namespace.id, identifier)

        async def find_taxonomy(identifier: str) -> TaxonomyInfo:
            await dependencies.add("taxonomy", identifier)
            return await self._directory.taxonomy(namespace.id, identifier)

        async def nested(
            retriever: str | Mapping[str, Any], inputs: Mapping[str, Any], *, filter: Filter | None, limit: int
        ) -> Documents:
            if depth >= MAX_NESTING:
                raise SpecError(f"retrievers may be nested {MAX_NESTING} deep", code="nesting_too_deep")
            if isinstance(retriever, str):
                await dependencies.add("retriever", retriever)
                inner = await self._pipelines.declared(namespace, retriever)
            else:
                inner = await self._pipelines.compiled(namespace, wire.adhoc(namespace, retriever))
            for collection in inner.reads:
                await dependencies.add("collection", collection.id)
            given = {key: value for key, value in inputs.items() if value is not None}
            asked = Query(
                scope, inner, {"skip_cache": query.fresh}, pagination.PageRequest(), filter, inner.inputs.check(given)
            )
            run = self._begin(asked, await self._stamp(inner), dependencies, depth=depth + 1)
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
            web_search=self._web_search,
            databases=self._databases,
            sandbox=self._sandbox,
            clock=self._clock,
            find_collection=find_collection,
            find_taxonomy=find_taxonomy,
            nested=nested,
            names={"INPUT": query.inputs},
            language=self._language,
        )
        outputs = None
        if pipeline.retriever.id:
            place = f"{prefix(namespace.id, pipeline.retriever.id)}stage:"
            withheld = self._withheld(pipeline)
            outputs = StageOutputs(self._shelf, place, dependencies, withheld, fresh=query.fresh)
        return Execution(self._ids.next(), pipeline, context, query.filter, outputs=outputs, stamp=stamp, watch=watch)

    def _record(
        self, execution: Execution, query: Query, status: str, returned: int, error: str | None, counted: bool
    ) -> None:
        """Have it in the history, `counted` as a miss of the answers' cache."""
        if not execution.recorded:
            return
        now, elapsed_ms = self._clock.now(), execution.elapsed_ms()
        # The record is made behind the answer; until then the documents need not stay.
        execution.documents = []

        def record() -> Mapping[str, Any]:
            made = wire.record_of(execution, query, status, returned, error, now, elapsed_ms)
            return {**made, "answer_cache": "miss"} if counted else made

        self.history.add(query.pipeline.namespace.id, execution.id, record)

    # -- pipelines

    async def _namespace(self, scope: Scope) -> NamespaceInfo:
        if scope.namespace_id is None:
            raise BadRequestError("name a namespace in the X-Namespace header", code="namespace_required")
        return await self._directory.namespace(scope.organization, scope.namespace_id)


def _etag(key: str, kept: Kept) -> str | None:
    """A weak validator: answers of the same making differ in their execution's id and in `cached_at`.

    None for an answer that a client's cache may not hold either.
    """
    return None if kept.gaps else f'W/"{key}-{int(kept.at * 1000):x}"'
