"""`rerank` with a model that says what each text is worth; the models themselves have tests of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.retrieval.stages.running import LAWS, Outcome, refused, run

from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.ports.inference import Scores


class Judge:
    """A text is worth as many points as it has the letter e."""

    def __init__(self, *, delay_s: float = 0.0, method: str = "cross_encoder") -> None:
        self.asked: list[tuple[str, str, tuple[str, ...]]] = []
        self.delay_s = delay_s
        self.method = method

    async def score(self, model: str, query: str, texts: Sequence[str], *, namespace_id: str) -> Scores:
        self.asked.append((model, query, tuple(texts)))
        await asyncio.sleep(self.delay_s)
        return Scores([float(text.count("e")) for text in texts], f"{model}@1", self.method)  # type: ignore[arg-type]


def rerank(documents: Sequence[dict[str, Any]], judge: Judge | None = None, **parameters: Any) -> Outcome:
    return run("rerank", documents, {"query": "q", **parameters}, inference=judge or Judge())


TEXTS = st.text(alphabet="eo ", max_size=6)
DOCUMENTS = st.lists(st.fixed_dictionaries({"score": st.floats(0, 1)}, optional={"content": TEXTS}), max_size=12).map(
    lambda bodies: [{"document_id": f"d{index}", **body} for index, body in enumerate(bodies)]
)


@LAWS
@given(DOCUMENTS, st.integers(1, 14), st.integers(1, 14))
def test_the_best_first_and_nothing_lost(documents: list[dict[str, Any]], count: int, most: int) -> None:
    found = rerank(documents, top_n=count, max_candidates=most)
    spoken = [item for item in documents[:most] if item.get("content", "").strip()]
    rest = [item for item in documents if item not in spoken]
    wanted = sorted(spoken, key=lambda item: -item["content"].count("e")) + rest
    assert [item["document_id"] for item in found] == [item["document_id"] for item in wanted][:count]
    for rank, (item, was) in enumerate(zip(found, wanted, strict=False), start=1):
        assert item["rerank_position"] == rank
        assert item["original_score"] == was["score"]
        assert item["score"] == (float(was["content"].count("e")) if was in spoken else was["score"])


def test_what_the_model_gets() -> None:
    judge = Judge()
    documents = [
        {"document_id": "a", "text": "e" * 300, "title": "no"},
        {"document_id": "b", "content": ["two", "lines"]},
        {"document_id": "c", "meta": {"summary": "eee"}},
    ]
    found = rerank(documents, judge, max_document_chars=100, score_field="scores.rerank", model="judge")
    assert judge.asked == [("judge", "q", ("e" * 100, "two\nlines"))]
    assert [item["document_id"] for item in found] == ["a", "b", "c"]
    assert [item.get("scores") for item in found] == [{"rerank": 100.0}, {"rerank": 1.0}, None]
    assert found.metadata == {"model": "judge@1", "method": "cross_encoder", "scored": 2}
    assert found.warnings == ["rerank: 1 of 3 documents have no text"]
    found = rerank(documents, judge, document_field="meta.summary", inference_name="judge", top_k=1)
    assert judge.asked[-1] == ("judge", "q", ("eee",))
    assert [item["document_id"] for item in found] == ["c"]


def test_the_default_says_what_it_is() -> None:
    found = rerank([{"document_id": "a", "content": "e"}], Judge(method="bi_encoder"))
    assert found.metadata["method"] == "bi_encoder"
    assert "default@1" in found.warnings[0]
    named = rerank([{"document_id": "a", "content": "e"}], Judge(method="bi_encoder"), model="all-MiniLM-L6-v2")
    assert named.warnings == []


def test_one_that_is_too_slow_leaves_the_order() -> None:
    documents = [{"document_id": str(index), "content": "e" * index} for index in range(4)]
    found = rerank(documents, Judge(delay_s=60), hard_timeout_ms=5, top_n=3)
    assert found == documents[:3]
    assert found.metadata["timed_out"]
    assert "5 ms" in found.warnings[0]


def test_refused() -> None:
    assert rerank([]) == []
    with pytest.raises(SpecError, match="no query"):
        rerank([{"content": "e"}], query=" ")
    with pytest.raises(SpecError, match="query"):
        run("rerank", [{"content": "e"}], {}, inference=Judge())
    refused("rerank", {"modle": "x"}, "did you mean 'model'")
    refused("rerank", {"top_n": 0}, "greater than or equal to 1")


async def test_in_a_pipeline(world: Any) -> None:
    stages = [{"stage_id": "rerank", "parameters": {"document_field": "title", "top_n": 5}}]
    answer = await world.run(stages, {"inputs": {"query": "thing 7 lamp"}}, inputs={"query": {"type": "string"}})
    assert len(answer["documents"]) == 5
    scores = [item["score"] for item in answer["documents"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["stage_statistics"]["stages"]["rerank"]["metadata"]["method"] == "bi_encoder"
    assert answer["warnings"]


async def test_vectors_that_are_stored_are_used_while_the_text_is_theirs(world: Any) -> None:
    from tests.unit.retrieval.conftest import DENSE, SIZE, letters

    query = "lamp"
    info = world.add_collection("texts")
    turned = [-value for value in letters(query)]
    bodies = [
        {"document_id": "stored", "text": "lamp", "vector": turned},
        {"document_id": "other", "text": "lamp post", "vector": [0.5] * SIZE},
        {"document_id": "changed", "text": "something else", "vector": turned},
    ]
    await world.put("texts", bodies)
    template = (
        '{"document_id": "{{DOC.document_id}}", "score": 1, '
        '"text": "{% if DOC.document_id == "changed" %}lamp{% else %}{{DOC.text}}{% endif %}"}'
    )
    stages = [
        {"stage_id": "json_transform", "parameters": {"template": template}},
        {"stage_id": "rerank", "parameters": {"query": query, "model": "letters"}},
    ]

    async def scores() -> tuple[dict[str, float], Any]:
        answer = await world.run(stages, collections=("texts",))
        told = answer["stage_statistics"]["stages"]["rerank"]["metadata"]
        return {item["document_id"]: item["score"] for item in answer["documents"]}, told

    by_text, told = await scores()
    assert "by_stored_vectors" not in told
    assert by_text["stored"] == by_text["changed"] == pytest.approx(1.0)
    await world.retrieval._embedders.claim(info, {DENSE: "letters@2"})
    assert (await scores())[0] == by_text
    world.inference.weights = "2"
    found, told = await scores()
    assert told["by_stored_vectors"] == 2
    assert told["model"] == "letters@2"
    assert found["stored"] == pytest.approx(-1.0, abs=1e-5)
    assert found["other"] != pytest.approx(by_text["other"], abs=1e-3)
    assert found["changed"] == pytest.approx(1.0)
