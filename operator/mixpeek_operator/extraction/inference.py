"""Inference in this process: batched, cached, each input computed once however many ask for it.

The cache is keyed by namespace, weights, purpose and input, so that a vector is only ever answered to the tenant
that had it computed, and never one of other weights.
"""

from __future__ import annotations

import array
import asyncio
import hashlib
import importlib.util
from collections.abc import Sequence

import structlog

from mixpeek_operator.core.errors import (
    InternalError,
    ModelUnavailableError,
    SpecError,
    UnavailableError,
)
from mixpeek_operator.extraction.models.encoder import TextEncoder
from mixpeek_operator.extraction.models.known import bm25_language
from mixpeek_operator.extraction.models.registry import DEFAULT, ModelRegistry
from mixpeek_operator.extraction.scoring import CrossScoring, cosines
from mixpeek_operator.extraction.sparse import SparseEncoder
from mixpeek_operator.extraction.worker import Encoder, EncoderThread
from mixpeek_operator.ports.cache import Cache
from mixpeek_operator.ports.inference import Scores
from mixpeek_operator.ports.vectors import Vector

_log = structlog.get_logger(__name__)
_SMALL = 16_384
"""Bytes of sparse inputs that are embedded on the event loop: cheaper than a thread."""

_Flight = tuple["asyncio.Future[list[list[float]]]", int]


class LocalInference:
    """Serves `ports.inference.Inference` with models of this machine, loaded when first used.

    `threads` are torch's (None: its own choice), `ttl_s` is the life of a cached vector in seconds,
    `batch_size` and `batch_tokens` bound one forward pass.
    """

    def __init__(
        self,
        models: ModelRegistry,
        sparse: SparseEncoder,
        cache: Cache,
        *,
        threads: int | None = None,
        batch_size: int = 32,
        batch_tokens: int = 4096,
        ttl_s: float = 3600.0,
    ) -> None:
        self._models = models
        self._sparse = sparse
        self._cache = cache
        self._threads = threads
        self._ttl_s = ttl_s
        self._worker = EncoderThread(batch_size=batch_size, batch_tokens=batch_tokens)
        self._cross = CrossScoring(models, self._worker, cache, threads=threads, batch_size=batch_size, ttl_s=ttl_s)
        self._encoders: dict[str, Encoder] = {}
        self._loading: dict[str, asyncio.Future[Encoder]] = {}
        self._failure: ModelUnavailableError | None = None
        self._flights: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def embed(self, model: str, inputs: Sequence[str], *, purpose: str, namespace_id: str) -> list[Vector]:
        """One vector per input, in order. `model` may be spelled any way the model registry knows.

        Raises SpecError for an input that is no valid text, ModelUnavailableError naming what to set.
        """
        if purpose not in ("document", "query"):
            raise InternalError(f"purpose must be document or query, not {purpose!r}")
        if not inputs:
            return []
        encoded = [_utf8(text, position) for position, text in enumerate(inputs)]
        name = self._models.canonical(model)
        language = bm25_language(name)
        if language is not None:
            if sum(map(len, encoded)) <= _SMALL:
                return list(self._sparse.encode(language, inputs, purpose=purpose))
            return list(await asyncio.to_thread(self._sparse.encode, language, inputs, purpose=purpose))
        encoder = self._encoders.get(name) or await self._load(name)
        prefix = f"{namespace_id}:inference:{encoder.id}:{purpose}:"
        keys = [prefix + hashlib.sha256(text).hexdigest() for text in encoded]
        known = await self._cached(keys)
        return await self._complete(encoder, inputs, purpose, keys, known)

    async def score(self, model: str, query: str, texts: Sequence[str], *, namespace_id: str) -> Scores:
        """One score per text, in order, by a cross-encoder or by the vectors of a dense model, as the name says.

        Raises SpecError for a text that is not valid, ModelUnavailableError naming what to set.
        """
        for position, text in enumerate((query, *texts)):
            _utf8(text, position)
        name = self._models.canonical(model)
        if await self._cross.serves(name):
            values, scored_by = await self._cross.score(name, query, texts, namespace_id)
            return Scores(values, scored_by, "cross_encoder")
        [asked] = await self.embed(name, [query], purpose="query", namespace_id=namespace_id)
        vectors = await self.embed(name, texts, purpose="document", namespace_id=namespace_id)
        return Scores(cosines(asked, vectors), await self.identity(name, namespace_id=namespace_id), "bi_encoder")

    async def warm(self, model: str = DEFAULT) -> None:
        """Load a dense model now, so that the first query need not wait. Raises ModelUnavailableError."""
        name = self._models.canonical(model)
        if bm25_language(name) is None and name not in self._encoders:
            await self._load(name)

    async def identity(self, model: str, *, namespace_id: str) -> str:
        """`<name>@<weights>`: vectors are comparable only under the same identity. BM25 models are their name."""
        name = self._models.canonical(model)
        if (encoder := self._encoders.get(name)) is not None:
            return encoder.id
        if bm25_language(name) is not None:
            return name
        return (await asyncio.to_thread(self._models.weights, name)).id

    async def health(self) -> None:
        """Whether the default model is loaded or can be. Raises ModelUnavailableError."""
        name = self._models.canonical(DEFAULT)
        if name in self._encoders:
            return
        if self._failure is not None:
            raise self._failure
        if importlib.util.find_spec("torch") is None:
            raise ModelUnavailableError(f"the model {name!r} needs torch; install mixpeek-operator[models]")
        await asyncio.to_thread(self._models.locate, name)

    async def close(self) -> None:
        """Stop the thread; running calls fail with UnavailableError."""
        await self._worker.close()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _load(self, name: str) -> Encoder:
        """Load once, however many wait; in the encoder's own thread."""
        if self._models.facts(name).kind != "dense":
            raise InternalError(f"{name} is no dense model")
        future = self._loading.get(name)
        if future is None:
            future = self._worker.call(lambda: TextEncoder(self._models.weights(name), threads=self._threads))
            self._loading[name] = future
        try:
            encoder = await asyncio.shield(future)
        except ModelUnavailableError as error:
            self._failure = error
            raise
        finally:
            if future.done():
                self._loading.pop(name, None)
        self._failure = None
        self._encoders[name] = encoder
        return encoder

    async def _cached(self, keys: Sequence[str]) -> list[bytes | None]:
        try:
            return await self._cache.get_many(keys)
        except UnavailableError as error:
            _log.warning("reading the inference cache failed", error=str(error))
            return [None] * len(keys)

    async def _complete(
        self,
        encoder: Encoder,
        inputs: Sequence[str],
        purpose: str,
        keys: Sequence[str],
        known: Sequence[bytes | None],
    ) -> list[Vector]:
        """Fill in what the cache did not have, joining computations that already run."""
        new: dict[str, int] = {}
        for position, (key, value) in enumerate(zip(keys, known, strict=True)):
            if value is None and key not in self._flights:
                new.setdefault(key, position)
        if new:
            future = self._worker.embed(encoder, [inputs[position] for position in new.values()], purpose)
            self._flights.update({key: (future, place) for place, key in enumerate(new)})
            task = asyncio.create_task(self._land(future, list(new)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        joined = {key: self._flights[key] for key, value in zip(keys, known, strict=True) if value is None}
        for future in {flight[0] for flight in joined.values()}:
            # Others may wait for the same vectors: a caller that gives up must not take them along.
            await asyncio.shield(future)
        vectors: list[Vector] = []
        for key, value in zip(keys, known, strict=True):
            if value is not None:
                vectors.append(_unpack(value))
            else:
                future, place = joined[key]
                vectors.append(future.result()[place])
        return vectors

    async def _land(self, future: asyncio.Future[list[list[float]]], keys: list[str]) -> None:
        """Put computed vectors into the cache; from then on the cache answers."""
        try:
            vectors = await asyncio.shield(future)
        except Exception:
            self._forget(future, keys)
            return  # those who wait for `future` are told by it
        try:
            await self._cache.set_many(
                [(key, _pack(vector)) for key, vector in zip(keys, vectors, strict=True)], ttl_s=self._ttl_s
            )
        except UnavailableError as error:
            _log.warning("writing the inference cache failed", error=str(error))
        finally:
            self._forget(future, keys)

    def _forget(self, future: asyncio.Future[list[list[float]]], keys: list[str]) -> None:
        for key in keys:
            if (flight := self._flights.get(key)) and flight[0] is future:
                del self._flights[key]


def _utf8(text: str, position: int) -> bytes:
    if not isinstance(text, str):
        raise SpecError(f"input {position} is no text but {type(text).__name__}", code="input_invalid")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise SpecError(
            f"input {position} is not valid Unicode (at character {error.start})", code="input_invalid"
        ) from None


def _pack(vector: Sequence[float]) -> bytes:
    """A float32 vector as bytes; exact, since the model computes in float32."""
    return array.array("f", vector).tobytes()


def _unpack(value: bytes) -> list[float]:
    return array.array("f", value).tolist()
