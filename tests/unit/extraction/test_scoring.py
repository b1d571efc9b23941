"""Cross-encoders: the numbers of transformers, each pair computed once, queries in between."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mixpeek_operator.adapters.bm25 import EdgeBm25
from mixpeek_operator.adapters.memory_cache import MemoryCache
from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.errors import ModelUnavailableError, SpecError
from mixpeek_operator.extraction.inference import LocalInference
from mixpeek_operator.extraction.models.registry import ModelRegistry

torch = pytest.importorskip("torch", reason="needs mixpeek-operator[models]")
pytestmark = pytest.mark.filterwarnings("ignore")

TEXTS = ["a lamp", "a quiet lamp for the journey of a child", "eine Lampe, bitte", "", "word " * 900, "a lamp"]
PACKAGED = "all-MiniLM-L6-v2"


def save(folder: Path, *, labels: int = 1) -> None:
    """A cross-encoder with random weights."""
    import transformers

    torch.manual_seed(5)
    config = transformers.BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        num_labels=labels, initializer_range=0.5,
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).eval().save_pretrained(folder)
    packaged = ModelRegistry(default=PACKAGED).locate(PACKAGED)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(packaged / name, folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    folder = tmp_path_factory.mktemp("models")
    save(folder / "judge")
    save(folder / "classes", labels=3)
    save(folder / "BAAI" / "bge-reranker-v2-m3")
    return ModelRegistry(default=PACKAGED, model_path=folder)


@pytest.fixture
async def inference(models: ModelRegistry) -> AsyncIterator[LocalInference]:
    cache = MemoryCache(1_000_000, SystemClock())
    inference = LocalInference(models, EdgeBm25(), cache, threads=1, batch_size=2)
    yield inference
    await inference.close()


def expected(folder: Path, query: str, text: str) -> float:
    """The score of one pair alone, as transformers computes it."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    tokens = tokenizer([query], [text], return_tensors="pt", truncation=True)
    with torch.inference_mode():
        return float(model(**tokens).logits[0, 0].sigmoid())


async def test_scores_are_those_of_transformers(inference: LocalInference, models: ModelRegistry) -> None:
    found = await inference.score("judge", "reading light", TEXTS, namespace_id="ns_a")
    assert found.method == "cross_encoder"
    assert found.model.startswith("judge@")
    wanted = [expected(models.locate("judge"), "reading light", text) for text in TEXTS]
    assert list(found.values) == pytest.approx(wanted, abs=1e-5)
    assert len(set(wanted)) > 3


async def test_a_pair_is_computed_once_in_a_namespace(
    inference: LocalInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mixpeek_operator.extraction.models.cross_encoder import CrossEncoder

    asked: list[int] = []
    score = CrossEncoder.score

    def counted(self: Any, query: str, texts: Any) -> Any:
        asked.append(len(texts))
        return score(self, query, texts)

    monkeypatch.setattr(CrossEncoder, "score", counted)
    first = await inference.score("judge", "light", TEXTS, namespace_id="ns_a")
    assert asked == [2, 2, 1]
    again = await inference.score("judge", "light", [*reversed(TEXTS)], namespace_id="ns_a")
    assert list(again.values) == [*reversed(list(first.values))]
    assert sum(asked) == 5
    await inference.score("judge", "light", TEXTS[:1], namespace_id="ns_b")
    await inference.score("judge", "ligh", ["ta lamp"], namespace_id="ns_a")
    assert sum(asked) == 7


async def test_many_at_once_load_it_once(inference: LocalInference, monkeypatch: pytest.MonkeyPatch) -> None:
    from mixpeek_operator.extraction import scoring

    made: list[str] = []
    model = scoring.CrossEncoder

    def counted(weights: Any, **options: Any) -> Any:
        made.append(weights.name)
        return model(weights, **options)

    monkeypatch.setattr(scoring, "CrossEncoder", counted)
    found = await asyncio.gather(
        *(inference.score("judge", f"query {number}", TEXTS, namespace_id="ns_a") for number in range(4)),
        inference.embed(PACKAGED, ["a query"], purpose="query", namespace_id="ns_a"),
    )
    assert made == ["judge"]
    assert len(found[4]) == 1  # type: ignore[arg-type]


async def test_names_and_refusals(inference: LocalInference) -> None:
    for name in ("bge-reranker-v2-m3", "BAAI__bge_reranker_v2_m3", "BAAI/bge-reranker-v2-m3"):
        found = await inference.score(name, "q", ["t"], namespace_id="ns_a")
        assert found.model.startswith("bge-reranker-v2-m3@")
    with pytest.raises(ModelUnavailableError, match="3 classes"):
        await inference.score("classes", "q", ["t"], namespace_id="ns_a")
    with pytest.raises(ModelUnavailableError, match="absent"):
        await inference.score("absent", "q", ["t"], namespace_id="ns_a")
    with pytest.raises(SpecError, match="Unicode"):
        await inference.score("judge", "q", ["\ud800"], namespace_id="ns_a")
