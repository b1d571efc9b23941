"""How relevant texts are to a query, by a model of this machine; each pair computed once while the cache holds it."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Sequence
from functools import partial
from operator import mul

import structlog

from mixpeek_operator.core.errors import SpecError, UnavailableError
from mixpeek_operator.extraction.models.cross_encoder import CrossEncoder
from mixpeek_operator.extraction.models.known import bm25_language
from mixpeek_operator.extraction.models.registry import ModelRegistry
from mixpeek_operator.extraction.worker import EncoderThread
from mixpeek_operator.ports.cache import Cache
from mixpeek_operator.ports.vectors import Vector

_log = structlog.get_logger(__name__)


class CrossScoring:
    """Scores by cross-encoders, which share the one thread that owns torch with all other models."""

    def __init__(
        self,
        models: ModelRegistry,
        worker: EncoderThread,
        cache: Cache,
        *,
        threads: int | None,
        batch_size: int,
        ttl_s: float,
    ) -> None:
        """`ttl_s` is the life of a cached score in seconds, `batch_size` bounds one forward pass."""
        self._models = models
        self._worker = worker
        self._cache = cache
        self._threads = threads
        self._batch_size = batch_size
        self._ttl_s = ttl_s
        self._loading: dict[str, asyncio.Future[CrossEncoder]] = {}

    async def serves(self, name: str) -> bool:
        """Whether the model is a cross-encoder. Raises SpecError for a sparse one, ModelUnavailableError."""
        if bm25_language(name) is not None:
            raise SpecError(f"{name} is a sparse model; rerank with a cross-encoder or a dense one", code="model_kind")
        return name in self._loading or await asyncio.to_thread(self._models.is_cross_encoder, name)

    async def score(self, name: str, query: str, texts: Sequence[str], namespace_id: str) -> tuple[list[float], str]:
        """One score per text of valid Unicode, and the identity of what scored. Raises ModelUnavailableError."""
        encoder = await self._loaded(name)
        keys = [f"{namespace_id}:inference:{encoder.id}:score:{_digest(query, text)}" for text in texts]
        known = await self._cached(keys)
        scores = {key: float(value) for key, value in zip(keys, known, strict=True) if value is not None}
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in scores}
        # Texts of like length share a forward pass, so that little of it is padding.
        waiting = sorted(new, key=lambda key: len(new[key]), reverse=True)
        for start in range(0, len(waiting), self._batch_size):
            part = waiting[start : start + self._batch_size]
            # One call a batch: queries that wait to be embedded go in between.
            values = await self._worker.call(partial(encoder.score, query, [new[key] for key in part]))
            scores.update(zip(part, values, strict=True))
        await self._keep([(key, repr(scores[key]).encode()) for key in new])
        return [scores[key] for key in keys], encoder.id

    async def _loaded(self, name: str) -> CrossEncoder:
        """Load once, however many wait; in the encoder's own thread."""
        future = self._loading.get(name)
        if future is None or (future.done() and (future.cancelled() or future.exception() is not None)):
            future = self._worker.call(lambda: CrossEncoder(self._models.weights(name), threads=self._threads))
            self._loading[name] = future
        return await asyncio.shield(future)

    async def _cached(self, keys: Sequence[str]) -> list[bytes | None]:
        try:
            return await self._cache.get_many(keys)
        except UnavailableError as error:
            _log.warning("reading the inference cache failed", error=str(error))
            return [None] * len(keys)

    async def _keep(self, items: Sequence[tuple[str, bytes]]) -> None:
        try:
            await self._cache.set_many(items, ttl_s=self._ttl_s)
        except UnavailableError as error:
            _log.warning("writing the inference cache failed", error=str(error))


def cosines(query: Vector, vectors: Sequence[Vector]) -> list[float]:
    """The cosine of a dense vector with each of others; 0 for one of length 0."""
    assert isinstance(query, list)
    length = math.hypot(*query)
    found = []
    for vector in vectors:
        assert isinstance(vector, list)
        product = length * math.hypot(*vector)
        found.append(sum(map(mul, query, vector)) / product if product else 0.0)
    return found


def _digest(query: str, text: str) -> str:
    asked = query.encode()
    return hashlib.sha256(len(asked).to_bytes(8, "big") + asked + text.encode()).hexdigest()
