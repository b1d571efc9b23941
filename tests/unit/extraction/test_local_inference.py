"""Inference with the packaged model: the same numbers as sentence-transformers, computed once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence

import pytest

from mixpeek_operator.adapters.bm25 import EdgeBm25
from mixpeek_operator.core.errors import InternalError, ModelUnavailableError, SpecError, UnavailableError
from mixpeek_operator.extraction.inference import LocalInference
from mixpeek_operator.extraction.models.registry import ModelRegistry
from mixpeek_operator.ports.vectors import SparseVector

pytest.importorskip("torch", reason="needs mixpeek-operator[models]")

TEXTS = [
    "A quiet keyboard for the office.",
    "hello",
    "",
    "Ein Satz auf Deutsch, mit Umlauten: äöü.",
    "word " * 700,
    "Wireless headphones with noise cancelling, thirty hours of battery and a case.",
    "日本語のテキスト",
]


class BytesCache:
    """A cache that counts, and can be away."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.hits = 0
        self.ttl_s = 0.0
        self.away = False

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        if self.away:
            raise UnavailableError("away")
        found = [self.values.get(key) for key in keys]
        self.hits += sum(value is not None for value in found)
        return found

    async def set_many(self, items: Sequence[tuple[str, bytes]], *, ttl_s: float) -> None:
        if self.away:
            raise UnavailableError("away")
        self.ttl_s = ttl_s
        self.values.update(items)


@pytest.fixture
def cache() -> BytesCache:
    return BytesCache()


@pytest.fixture
async def inference(cache: BytesCache) -> AsyncIterator[LocalInference]:
    inference = LocalInference(ModelRegistry(default="all-MiniLM-L6-v2"), EdgeBm25(), cache, threads=1)
    yield inference
    await inference.close()


def embed(inference: LocalInference, inputs: Sequence[str], purpose: str = "document", namespace: str = "ns_a"):
    return inference.embed("default", inputs, purpose=purpose, namespace_id=namespace)


@pytest.mark.filterwarnings("ignore")
async def test_vectors_equal_those_of_sentence_transformers(inference: LocalInference) -> None:
    from sentence_transformers import SentenceTransformer

    folder = ModelRegistry(default="all-MiniLM-L6-v2").locate("default")
    expected = SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(TEXTS)
    together = await embed(inference, TEXTS)
    alone = [(await embed(inference, [text], "query"))[0] for text in TEXTS]
    for want, batched, single in zip(expected.tolist(), together, alone, strict=True):
        assert max(abs(a - b) for a, b in zip(want, batched, strict=True)) < 1e-5
        assert max(abs(a - b) for a, b in zip(want, single, strict=True)) < 1e-5
        assert math.isclose(sum(value * value for value in batched), 1.0, rel_tol=1e-5)


async def test_an_input_is_computed_once_and_then_cached(inference: LocalInference, cache: BytesCache) -> None:
    first = await embed(inference, ["hello", "hello", "there"])
    assert first[0] == first[1]
    await asyncio.sleep(0.05)
    assert len(cache.values) == 2
    assert cache.ttl_s == 3600
    assert await embed(inference, ["there", "hello"]) == [first[2], first[0]]
    assert cache.hits == 2


async def test_equal_inputs_at_the_same_time_are_computed_once(inference: LocalInference) -> None:
    await inference.warm()
    (encoder,) = inference._encoders.values()
    forwarded: list[int] = []
    forward = encoder.forward
    encoder.forward = lambda batch: (forwarded.append(len(batch)), forward(batch))[1]  # type: ignore[method-assign]
    results = await asyncio.gather(*(embed(inference, ["the same query"], "query") for _ in range(20)))
    assert sum(forwarded) == 1
    assert all(result == results[0] for result in results)


async def test_the_cache_is_apart_by_namespace_and_purpose(inference: LocalInference, cache: BytesCache) -> None:
    await embed(inference, ["hello"], "query", "ns_a")
    await embed(inference, ["hello"], "document", "ns_a")
    await embed(inference, ["hello"], "query", "ns_b")
    await asyncio.sleep(0.05)
    assert cache.hits == 0
    assert sorted(key.partition(":")[0] for key in cache.values) == ["ns_a", "ns_a", "ns_b"]
    assert all("all-MiniLM-L6-v2@53aa51172d14" in key for key in cache.values)


async def test_one_who_gives_up_does_not_take_the_others_along(inference: LocalInference) -> None:
    await inference.warm()
    waiting = [asyncio.create_task(embed(inference, ["shared"], "query")) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    assert len((await waiting[1])[0]) == 384


async def test_a_cache_that_is_away_costs_time_only(inference: LocalInference, cache: BytesCache) -> None:
    cache.away = True
    assert len((await embed(inference, ["hello"]))[0]) == 384


async def test_sparse_models_are_served_too(inference: LocalInference) -> None:
    document, query = [
        (await inference.embed("bm25-english", ["red cars, a red car"], purpose=purpose, namespace_id="ns_a"))[0]
        for purpose in ("document", "query")
    ]
    assert isinstance(document, SparseVector)
    assert isinstance(query, SparseVector)
    assert set(document.indices) == set(query.indices)
    assert len(query.indices) == 2
    assert set(query.values) == {2.0}
    assert max(document.values) > 1.0
    many = await inference.embed("bm25-english", ["car"] * 100, purpose="query", namespace_id="ns_a")
    assert len(many) == 100
    long = await inference.embed("bm25-english", ["car " * 100_000], purpose="document", namespace_id="ns_a")
    assert len(long[0].indices) == 1  # type: ignore[union-attr]


async def test_a_text_of_megabytes_is_cut_at_the_limit_of_the_model(inference: LocalInference) -> None:
    [short], [long] = await embed(inference, ["word " * 700]), await embed(inference, ["word " * 2_000_000])
    assert max(abs(a - b) for a, b in zip(short, long, strict=True)) < 1e-6  # type: ignore[arg-type]


async def test_no_inputs_are_no_vectors(inference: LocalInference) -> None:
    assert await embed(inference, []) == []


@pytest.mark.parametrize("text", ["\ud800", 3])
async def test_an_input_that_is_no_text_is_refused(inference: LocalInference, text: object) -> None:
    with pytest.raises(SpecError, match="input 1"):
        await embed(inference, ["fine", text])  # type: ignore[list-item]


async def test_a_purpose_is_document_or_query(inference: LocalInference) -> None:
    with pytest.raises(InternalError):
        await embed(inference, ["x"], "search")


async def test_a_missing_model_is_an_error_and_never_another_model(cache: BytesCache) -> None:
    inference = LocalInference(ModelRegistry(default="house-model"), EdgeBm25(), cache)
    with pytest.raises(ModelUnavailableError, match="MIXPEEK_MODEL_PATH"):
        await embed(inference, ["x"])
    with pytest.raises(ModelUnavailableError):
        await inference.health()
    await inference.close()


async def test_broken_weights_are_reported_each_time(cache: BytesCache, tmp_path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "config.json").write_text('{"hidden_size": 8, "model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(b"not weights")
    (folder / "modules.json").write_text("[]")
    inference = LocalInference(ModelRegistry(default="broken", model_path=tmp_path), EdgeBm25(), cache)
    for _ in range(2):
        with pytest.raises(ModelUnavailableError, match="broken"):
            await embed(inference, ["x"])
    with pytest.raises(ModelUnavailableError):
        await inference.health()
    await inference.close()


async def test_health_and_identity(inference: LocalInference) -> None:
    await inference.health()
    assert await inference.identity("default", namespace_id="ns_a") == "all-MiniLM-L6-v2@53aa51172d14"
    assert await inference.identity("bm25_english", namespace_id="ns_a") == "bm25-english"
