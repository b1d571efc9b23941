"""`aggregate` against pandas."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.retrieval.stages.running import LAWS, Outcome, refused, run

from mixpeek_operator.core.errors import SpecError

NUMBERS = st.none() | st.integers(-1000, 1000) | st.floats(-1e6, 1e6)
DOCUMENTS = st.lists(
    st.fixed_dictionaries({"kind": st.sampled_from(["a", "b", "c"]), "x": NUMBERS, "y": NUMBERS}), max_size=25
)
ALL = ("sum", "avg", "min", "max", "stddev", "variance", "count", "cardinality", "first", "last")


def frame(documents: list[dict[str, Any]]) -> pd.DataFrame:
    columns = {name: pd.Series([item[name] for item in documents], dtype="float64") for name in ("x", "y")}
    return pd.DataFrame({"kind": [item["kind"] for item in documents], **columns})


def expected(values: pd.Series[float]) -> dict[str, Any]:
    known = values.dropna()
    return {
        "sum": known.sum(),
        "avg": known.mean(),
        "min": known.min(),
        "max": known.max(),
        "stddev": known.std(),
        "variance": known.var(),
        "count": known.count(),
        "cardinality": known.nunique(),
        "first": known.iloc[0] if len(known) else None,
        "last": known.iloc[-1] if len(known) else None,
        "percentile": {str(percent): known.quantile(percent / 100) for percent in (0, 25, 50, 99, 100)},
    }


def agree(found: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in other.items():
        if isinstance(value, dict):
            agree(found[name], value)
        elif value is None or pd.isna(value):
            assert found[name] is None, name
        else:
            assert found[name] == pytest.approx(float(value), rel=1e-6, abs=1e-6), name


AGGREGATIONS = [
    *({"type": type, "field": "x", "name": type} for type in ALL),
    {"type": "percentile", "field": "x", "name": "percentile", "percentiles": [0, 25, 50, 99, 100]},
    {"type": "count", "name": "total"},
]


def figures(documents: list[dict[str, Any]], aggregations: list[dict[str, Any]], **parameters: Any) -> Outcome:
    return run("aggregate", documents, {"aggregations": aggregations, **parameters})


@LAWS
@given(DOCUMENTS)
def test_as_pandas_computes_it(documents: list[dict[str, Any]]) -> None:
    found = figures(documents, AGGREGATIONS)
    assert found == []
    assert found.metadata["aggregations"] == found.aggregations
    agree(found.aggregations, expected(frame(documents)["x"]))
    assert found.aggregations["total"] == len(documents)


@LAWS
@given(DOCUMENTS)
def test_groups_as_pandas_computes_them(documents: list[dict[str, Any]]) -> None:
    found = figures(documents, AGGREGATIONS, group_by="kind", include_documents=True)
    assert list(found) == documents
    groups = dict(list(frame(documents).groupby("kind"))) if documents else {}
    assert found.aggregations.keys() == groups.keys()
    for kind, rows in groups.items():
        agree(found.aggregations[kind], expected(rows["x"]))
        assert found.aggregations[kind]["total"] == len(rows)


@LAWS
@given(DOCUMENTS)
def test_correlation_as_pandas_computes_it(documents: list[dict[str, Any]]) -> None:
    pair = {"type": "correlation", "field": "x", "field_b": "y", "name": "r"}
    found = figures(documents, [pair]).aggregations["r"]
    rows = frame(documents).dropna()
    if len(rows) < 2 or rows["x"].nunique() < 2 or rows["y"].nunique() < 2:
        assert found is None
    elif rows["x"].std() > 1e-3 and rows["y"].std() > 1e-3:
        assert found == pytest.approx(rows["x"].corr(rows["y"]), abs=1e-6)


@LAWS
@given(DOCUMENTS, st.sampled_from([0.5, 7.0, 100.0]))
def test_buckets_hold_every_number_once(documents: list[dict[str, Any]], interval: float) -> None:
    one = {"type": "histogram", "field": "x", "interval": interval, "name": "h"}
    buckets = figures(documents, [one]).aggregations["h"]["buckets"]
    numbers = [item["x"] for item in documents if item["x"] is not None]
    assert sum(bucket["count"] for bucket in buckets) == len(numbers)
    for bucket in buckets:
        inside = [number for number in numbers if math.floor(number / interval) * interval == bucket["from"]]
        assert bucket["count"] == len(inside) > 0


SHOP: list[dict[str, Any]] = [
    {"kind": "lamp", "price": 10, "tags": ["red", "new"], "at": "2026-01-02", "year": 2025},
    {"kind": "lamp", "price": 30.0, "tags": ["red"], "at": "2026-01-01", "year": 2025},
    {"kind": "chair", "price": 60, "tags": [], "year": 2026},
    {"kind": None, "price": None, "tags": ["new", "red"]},
    {"price": 120},
]


def test_types_that_pandas_has_not() -> None:
    found = figures(
        SHOP,
        [
            {"function": "frequency", "field": "tags", "alias": "tags", "top_k": 1},
            {"type": "co_occurrence", "field": "kind", "field_b": "tags", "name": "pairs", "top_k": 2},
            {"type": "histogram", "field": "price", "interval": 50, "name": "prices"},
            {"type": "histogram", "field": "kind", "name": "kinds"},
            {"type": "collect_distinct", "field": "tags", "name": "all"},
            {"type": "collect", "field": "price", "name": "list"},
            {"function": "percentile", "field": "price", "alias": "median"},
            {"function": "percentile", "field": "price", "alias": "top", "percentile_value": 100},
            {"type": "min", "field": "at", "name": "since"},
            {"type": "sum", "field": "price", "name": "sum"},
        ],
    ).aggregations
    assert found == {
        "tags": [{"value": "red", "count": 3}],
        "pairs": [
            {"value_a": "lamp", "value_b": "red", "count": 2},
            {"value_a": "lamp", "value_b": "new", "count": 1},
        ],
        "prices": {
            "buckets": [
                {"key": "0-50", "from": 0.0, "to": 50.0, "count": 2},
                {"key": "50-100", "from": 50.0, "to": 100.0, "count": 1},
                {"key": "100-150", "from": 100.0, "to": 150.0, "count": 1},
            ]
        },
        "kinds": {"buckets": [{"key": "lamp", "count": 2}, {"key": "chair", "count": 1}]},
        "all": ["red", "new"],
        "list": [10, 30.0, 60, 120],
        "median": 45.0,
        "top": 120.0,
        "since": "2026-01-01",
        "sum": 220.0,
    }


def test_rows_of_several_fields() -> None:
    parameters: dict[str, Any] = {
        "group_by": [{"field": "kind"}, {"field": "year", "alias": "of"}],
        "sort_by": "sum",
        "limit": 2,
    }
    one = {"type": "sum", "field": "price", "name": "sum"}
    assert figures(SHOP, [one], **parameters).aggregations == {
        "groups": [{"kind": None, "of": None, "sum": 120}, {"kind": "chair", "of": 2026, "sum": 60}]
    }
    found = figures(SHOP, [one], group_by="kind", sort_by="sum", sort_order="asc").aggregations
    assert list(found) == ["lamp", "chair", "null"]


def test_nothing_to_count() -> None:
    every = [
        *AGGREGATIONS,
        {"type": "histogram", "field": "x", "name": "h"},
        {"type": "collect", "field": "x", "name": "c"},
    ]
    found = figures([], every).aggregations
    assert (found["total"], found["count"], found["sum"], found["cardinality"]) == (0, 0, 0, 0)
    assert (found["avg"], found["min"], found["stddev"], found["first"]) == (None, None, None, None)
    assert (found["h"], found["c"], found["percentile"]["50"]) == ({"buckets": []}, [], None)
    assert figures([], every, group_by="kind").aggregations == {}


@pytest.mark.parametrize("value", ["cheap", True, {"a": 1}, float("nan"), float("inf"), [1, "two"]])
def test_what_is_no_number_is_refused(value: Any) -> None:
    for type in ("sum", "avg", "percentile", "stddev", "max"):
        with pytest.raises(SpecError, match=f"{type} needs numbers"):
            figures([{"x": 1}, {"x": value}], [{"type": type, "field": "x", "name": "n"}])


def test_numbers_that_are_too_large() -> None:
    with pytest.raises(SpecError, match="too large"):
        figures([{"x": 1e308}, {"x": 1e308}], [{"type": "sum", "field": "x", "name": "n"}])


def test_refused() -> None:
    refused("aggregate", {}, "'aggregations' is required")
    refused("aggregate", {"aggregations": []}, "at least 1")
    refused("aggregate", {"aggregations": [{"type": "avg", "name": "a"}]}, "avg needs a field")
    refused("aggregate", {"aggregations": [{"type": "correlation", "field": "x", "name": "a"}]}, "needs field_b")
    refused("aggregate", {"aggregations": [{"type": "mean", "field": "x", "name": "a"}]}, "Input should be")
    refused("aggregate", {"aggregations": [{"type": "count", "nam": "a"}]}, "did you mean 'name'")
    twice = [{"type": "count", "name": "a"}, {"type": "sum", "field": "x", "name": "a"}]
    refused("aggregate", {"aggregations": twice}, "two aggregations are called 'a'")
    one = [{"type": "count", "name": "a"}]
    refused("aggregate", {"aggregations": one, "sort_by": "b"}, "sort_by names no aggregation")
    refused("aggregate", {"aggregations": one, "group_by": ["x.a", "y.a"]}, "two columns are called 'a'")
    percent = {"type": "percentile", "field": "x", "name": "p", "percentiles": [float("nan")]}
    refused("aggregate", {"aggregations": [percent]}, "aggregations")
