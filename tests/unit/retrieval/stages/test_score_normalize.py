"""`score_normalize` against numpy, and that it keeps the order."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.retrieval.stages.running import LAWS, refused, run

from mixpeek_operator.core.errors import SpecError

METHODS = ("min_max", "z_score", "softmax", "l2")
SCORES = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30)


def scored(scores: list[Any]) -> list[dict[str, Any]]:
    return [{"document_id": f"d{index}", "score": score} for index, score in enumerate(scores)]


def independent(method: str, scores: list[float]) -> np.ndarray:
    values = np.array(scores, dtype=np.float64)
    if method == "min_max":
        return (values - values.min()) / (values.max() - values.min())
    if method == "z_score":
        return (values - values.mean()) / values.std()
    if method == "softmax":
        return np.exp(values - values.max()) / np.exp(values - values.max()).sum()
    return values / np.linalg.norm(values)


@pytest.mark.parametrize("method", METHODS)
def test_as_numpy_computes_it(method: str) -> None:
    scores = [0.9, 0.1, 0.5, -0.4, 0.5]
    found = [document["score"] for document in run("score_normalize", scored(scores), {"method": method})]
    np.testing.assert_allclose(found, independent(method, scores))


@LAWS
@given(SCORES | st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
@pytest.mark.parametrize("method", METHODS)
def test_the_order_stays_and_every_score_is_finite(method: str, scores: list[float]) -> None:
    scores = sorted(scores, reverse=True)
    made = run("score_normalize", scored(scores), {"method": method})
    assert [document["document_id"] for document in made] == [f"d{index}" for index in range(len(scores))]
    found = [document["score"] for document in made]
    assert all(before >= after for before, after in pairwise(found))
    assert np.isfinite(found).all()


@pytest.mark.parametrize(("method", "value"), [("min_max", 1.0), ("z_score", 0.0), ("softmax", 0.5), ("l2", 0.5**0.5)])
def test_equal_scores(method: str, value: float) -> None:
    assert [item["score"] for item in run("score_normalize", scored([3, 3]), {"method": method})] == pytest.approx(
        [value, value]
    )


def test_what_is_no_number_counts_as_zero() -> None:
    documents = [*scored([4.0, None, "high", True, float("nan"), [1]]), {"document_id": "bare"}]
    found = run("score_normalize", documents, {"output_field": "stats.score"})
    assert [document["stats"]["score"] for document in found] == [1.0, 0, 0, 0, 0, 0, 0]
    assert found[1]["score"] is None


@pytest.mark.parametrize(
    ("borders", "expected"),
    [
        ({"min_value": 0, "max_value": 10}, [1.0, 0.5, 0.0]),
        ({"max_value": 5}, [1.0, 1.0, 0.0]),
        ({"min_value": 5}, [1.0, 0.0, 0.0]),
        ({"min_value": 30}, [0.0, 0.0, 0.0]),
        ({"max_value": -9}, [1.0, 1.0, 1.0]),
    ],
)
def test_given_borders(borders: dict[str, float], expected: list[float]) -> None:
    documents = scored([20.0, 5.0, -5.0])
    assert [document["score"] for document in run("score_normalize", documents, borders)] == expected


def test_templates_and_nothing() -> None:
    made = run("score_normalize", scored([1, 2]), {"method": "{{INPUT.how}}"}, {"how": "softmax"})
    assert sum(document["score"] for document in made) == pytest.approx(1.0)
    assert run("score_normalize", []) == []
    with pytest.raises(SpecError, match="method"):
        run("score_normalize", scored([1]), {"method": "{{INPUT.how}}"}, {"how": "median"})
    with pytest.raises(SpecError, match="below"):
        run("score_normalize", scored([1]), {"min_value": "{{INPUT.low}}", "max_value": 1.0}, {"low": 3})


def test_refused() -> None:
    refused("score_normalize", {"min_value": float("nan")}, "finite")
    refused("score_normalize", {"min_value": 2.0, "max_value": 1.0}, "below")
    refused("score_normalize", {"methd": "l2"}, "did you mean 'method'")
