"""The metrics against trec_eval's own code, and the statistics against scipy's."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mixpeek_operator.relevance.metrics import METRICS
from mixpeek_operator.relevance.statistics import percentile, t_test, two_sided

IDS = [f"d{index}" for index in range(12)]
LAWS = settings(max_examples=150, deadline=None)
NUMBERS = st.floats(-10, 10, allow_subnormal=False)


@LAWS
@given(
    st.lists(st.sampled_from(IDS), unique=True, max_size=12),
    st.dictionaries(st.sampled_from(IDS), st.integers(1, 5), min_size=1),
    st.integers(1, 15),
)
def test_the_metrics_are_those_of_trec_eval(ranking: list[str], judged: dict[str, int], k: int) -> None:
    names = {
        "precision": f"P_{k}",
        "recall": f"recall_{k}",
        "map": f"map_cut_{k}",
        "ndcg": f"ndcg_cut_{k}",
        "mrr": "recip_rank",
    }
    asked = {f"P.{k}", f"recall.{k}", f"map_cut.{k}", f"ndcg_cut.{k}", "recip_rank"}
    # Its reciprocal rank has no cut, so it is shown the first k only.
    ranked = {id: float(len(ranking) - place) for place, id in enumerate(ranking)}
    run = {id: ranked[id] for id in ranking[:k]}
    theirs: dict[str, Any] = {}
    if run:
        theirs = pytrec_eval.RelevanceEvaluator({"q": judged}, asked).evaluate({"q": run})["q"]
    for name, other in names.items():
        grades = {id: float(grade) for id, grade in judged.items()}
        assert METRICS[name](ranking, grades, k) == pytest.approx(theirs.get(other, 0.0), abs=1e-9), name


def test_f_measures() -> None:
    ranking, judged = ["a", "b", "c", "d"], {"a": 1.0, "c": 1.0, "x": 1.0}
    precision, recall = 2 / 4, 2 / 3
    assert METRICS["f1"](ranking, judged, 4) == pytest.approx(2 * precision * recall / (precision + recall))
    assert METRICS["f2"](ranking, judged, 4) == pytest.approx(5 * precision * recall / (4 * precision + recall))
    assert METRICS["f1"](["b"], judged, 4) == 0.0


@LAWS
@given(st.lists(NUMBERS, min_size=2, max_size=40).filter(lambda values: max(values) - min(values) > 1e-6))
def test_the_t_test_is_scipys(differences: list[float]) -> None:
    found = t_test(differences)
    assert found is not None
    theirs = stats.ttest_1samp(differences, 0.0)
    assert found[0] == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)
    low, high = theirs.confidence_interval(0.95)
    assert found[1] == pytest.approx((low, high), rel=1e-6, abs=1e-9)


def test_the_t_test_at_its_ends() -> None:
    assert t_test([0.5]) is None
    assert t_test([0.25, 0.25, 0.25]) == (0.0, (0.25, 0.25))
    assert t_test([0.0, 0.0]) == (1.0, (0.0, 0.0))
    for freedom in (1, 2, 7, 100, 9999):
        for t in (0.001, 0.3, 1.0, 2.5, 30.0):
            assert two_sided(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-9)


def test_percentiles() -> None:
    dice = random.Random(3)
    values = [dice.gauss(0, 1) for _ in range(101)]
    assert percentile(values, 0.5) == sorted(values)[50]
    assert percentile([1.0, 2.0], 0.25) == 1.25
    assert (percentile([], 0.9), percentile([7.0], 0.99)) == (0.0, 7.0)
    assert math.isclose(percentile(values, 1.0), max(values))
