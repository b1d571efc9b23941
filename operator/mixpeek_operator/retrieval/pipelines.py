"""Compiled retrievers, kept in memory while nothing they were compiled from has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mixpeek_operator.core.directory import CollectionInfo, Directory, NamespaceInfo, RetrieverInfo
from mixpeek_operator.core.errors import NotFoundError
from mixpeek_operator.retrieval.compile import Mark, Pipeline, compile_pipeline, mark_of
from mixpeek_operator.retrieval.registry import StageRegistry

_MAX_PIPELINES: Final = 1000


class Pipelines:
    """The pipelines of retrievers, declared or not."""

    def __init__(self, directory: Directory, registry: StageRegistry) -> None:
        self._directory = directory
        self._registry = registry
        self._known: dict[tuple[str, str], tuple[tuple[Any, ...], Pipeline]] = {}

    async def declared(self, namespace: NamespaceInfo, identifier: str) -> Pipeline:
        """Return the pipeline of a retriever, by id or name. Raises NotFoundError, SpecError with every problem."""
        retriever = await self._directory.retriever(namespace.id, identifier)
        collections = await self._collections(namespace, retriever)
        key = (namespace.id, retriever.id)
        version = (retriever.version, *(mark_of(collection) for collection in collections))
        known = self._known.get(key)
        if known is not None and known[0] == version and await self._current(namespace, known[1].named):
            return known[1]
        pipeline = await self.compiled(namespace, retriever, collections)
        if len(self._known) >= _MAX_PIPELINES:
            self._known.pop(next(iter(self._known)))
        self._known[key] = (version, pipeline)
        return pipeline

    async def compiled(
        self, namespace: NamespaceInfo, retriever: RetrieverInfo, collections: tuple[CollectionInfo, ...] | None = None
    ) -> Pipeline:
        """Compile a declaration, which nothing remembers. Raises SpecError with every problem."""

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
