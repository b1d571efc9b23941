"""The sparse embedding is BM25: against its formula, and against an independent implementation over the same words."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import bm25s
import pytest

from mixpeek_operator.adapters.bm25 import AVERAGE_LENGTH, EdgeBm25
from mixpeek_operator.core.errors import SpecError

WORDS = ["lamp", "chair", "radio", "bottle", "garden", "kitchen", "telescope", "mountain", "river", "window"]


@pytest.fixture(scope="module")
def model() -> EdgeBm25:
    return EdgeBm25()


def word(model: EdgeBm25, text: str) -> int:
    [vector] = model.encode("english", [text], purpose="query")
    return int(vector.indices[0])


def test_a_query_says_how_often_it_says_a_word(model: EdgeBm25) -> None:
    [vector] = model.encode("english", ["the lamp and the lamp, a chair or lamps"], purpose="query")
    counts = dict(zip(vector.indices, vector.values, strict=True))
    assert counts == {word(model, "lamp"): 3.0, word(model, "chair"): 1.0}


def test_a_text_has_the_weights_of_the_formula(model: EdgeBm25) -> None:
    text = "lamp " * 3 + "chair river"
    [vector] = model.encode("english", [text], purpose="document")
    weights = dict(zip(vector.indices, vector.values, strict=True))
    for name, count in Counter(text.split()).items():
        length = 1.2 * (1 - 0.75 + 0.75 * 5 / AVERAGE_LENGTH)
        assert weights[word(model, name)] == pytest.approx(count * 2.2 / (count + length), rel=1e-5)


def test_it_ranks_as_bm25s_does(model: EdgeBm25) -> None:
    dice = random.Random(4)
    # Texts of the average length, where both know the same average.
    texts = [" ".join(dice.choices(WORDS, weights=range(1, 11), k=int(AVERAGE_LENGTH))) for _ in range(60)]
    queries = [" ".join(dice.choices(WORDS, k=4)) for _ in range(20)]
    vectors = [dict(zip(v.indices, v.values, strict=True)) for v in model.encode("english", texts, purpose="document")]
    holding = Counter(index for vector in vectors for index in vector)
    idf = {i: math.log(1 + (len(texts) - n + 0.5) / (n + 0.5)) for i, n in holding.items()}
    index: Any = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    index.index([text.split() for text in texts], show_progress=False)
    for query in queries:
        theirs = index.get_scores(query.split())
        [asked] = model.encode("english", [query], purpose="query")
        ours = [
            sum(value * vector.get(i, 0.0) * idf[i] for i, value in zip(asked.indices, asked.values, strict=True))
            for vector in vectors
        ]
        # Lucene's form leaves out the constant factor k1 + 1.
        assert ours == pytest.approx([2.2 * float(score) for score in theirs], rel=1e-3)


def test_nothing_but_stop_words_and_unknown_languages(model: EdgeBm25) -> None:
    for purpose in ("query", "document"):
        [vector] = model.encode("english", ["the and of"], purpose=purpose)
        assert vector.indices == ()
        with pytest.raises(SpecError, match="klingon"):
            model.encode("klingon", ["a"], purpose=purpose)
