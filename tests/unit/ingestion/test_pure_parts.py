"""Schema, tiers, paths, content, aggregation: plain values in, plain values out."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpeek_operator.core.errors import ConflictError, SpecError
from mixpeek_operator.ingestion.content import Content, Link, Value, kind_of, read
from mixpeek_operator.ingestion.paths import MISSING, assign, lookup, resolve
from mixpeek_operator.ingestion.schema import validate
from mixpeek_operator.ingestion.statistics import FieldStatistics
from mixpeek_operator.ingestion.tiers import plan

GOOD = {
    "string": "a",
    "text": "a",
    "number": 1.5,
    "integer": 3,
    "float": 2,
    "boolean": False,
    "object": {"a": 1},
    "array": [1],
    "date": "2026-01-31",
    "datetime": "2026-01-31T10:00:00Z",
    "image": "https://example.com/a.png",
    "json": [1, {"a": None}],
}
BAD = {
    "string": 1,
    "text": ["a"],
    "number": "1.5",
    "integer": 3.5,
    "float": True,
    "boolean": 0,
    "object": [],
    "array": {},
    "date": "31.1.2026",
    "datetime": "tomorrow",
    "image": 5,
}


@pytest.mark.parametrize("kind", GOOD)
def test_each_type_takes_its_values(kind: str) -> None:
    assert validate({"x": {"type": kind}}, {"x": GOOD[kind]}).problems == []
    assert validate({"x": {"type": kind}}, {"x": None}).problems == []


@pytest.mark.parametrize("kind", BAD)
def test_each_type_refuses_others(kind: str) -> None:
    (problem,) = validate({"x": {"type": kind}}, {"x": BAD[kind]}).problems
    assert problem.code == "wrong_type" and problem.location == ("x",)


def test_required_default_unknown_enum_and_nesting() -> None:
    properties = {
        "title": {"type": "string", "required": True, "default": None},
        "lang": {"type": "string", "default": "en", "enum": ["en", "de"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "seller": {"type": "object", "properties": {"id": {"type": "integer", "required": True}}},
        "clip": {"type": "video", "required": True},
    }
    checked = validate(properties, {"tags": ["a", 1], "lang": "fr", "seller": {}, "colour": 1})
    messages = [str(problem) for problem in checked.problems]
    assert len(messages) == 6
    for part in ("'title' is required", "one of en, de", "tags.1", "seller.id", "unknown property", "'clip' is"):
        assert any(part in message for message in messages), part
    good = validate(properties, {"title": "x"}, blob_properties={"clip": "video"})
    assert good.problems == [] and good.fields == {"title": "x", "lang": "en"}
    inside = validate(properties, {}, metadata={"title": "x", "free": 1}, blob_properties={"clip": None})
    assert inside.problems == [] and inside.metadata["free"] == 1
    assert validate({}, {"anything": object}).problems == []
    own = {"metadata": {"type": "object", "required": True}}
    assert validate(own, {}, metadata={"a": 1}).problems == [] and len(validate(own, {}).problems) == 1


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(kind=st.sampled_from(sorted(GOOD)), value=values)
def test_validation_never_raises_and_is_stable(kind: str, value: Any) -> None:
    properties = {"x": {"type": kind}}
    first = validate(properties, {"x": value})
    assert first.problems == validate(properties, first.fields).problems


@given(
    st.dictionaries(
        st.sampled_from("abcdefgh"), st.sets(st.sampled_from(["bkt_x", *"abcdefgh"]), min_size=1, max_size=3)
    )
)
def test_a_plan_feeds_nothing_before_its_sources(
    make_collection: Callable[..., Any], graph: dict[str, set[str]]
) -> None:
    made = [
        make_collection(name, *sorted(source if source == "bkt_x" else f"col_{source}" for source in sources))
        for name, sources in graph.items()
    ]
    try:
        tiers = plan(made, root="bkt_x")
    except ConflictError as error:
        assert "cycle" in error.message
        return
    assert tiers == plan(list(reversed(made)), root="bkt_x")
    seen: set[str] = set()
    for number, tier in enumerate(tiers):
        assert tier
        for step in tier:
            assert set(step.sources) <= seen and (step.sources or step.reads_root)
            assert step.tier == number
        seen |= {step.collection_id for step in tier}


def test_plans(make_collection: Callable[..., Any]) -> None:
    one = make_collection("one", "bkt_x")
    two = make_collection("two", "col_one")
    three = make_collection("three", "col_two", "col_one")
    off = make_collection("off", "bkt_x", enabled=False)
    below_off = make_collection("below", "col_off")
    other = make_collection("other", "bkt_y")
    everything = [three, two, one, off, below_off, other]

    def ids(**options: Any) -> list[list[str]]:
        return [[step.collection_id for step in tier] for tier in plan(everything, **options)]

    assert ids(root="bkt_x") == [["col_one"], ["col_two"], ["col_three"]]
    assert ids(root="bkt_x", only=["col_two"]) == [["col_one"], ["col_two"]]
    assert ids(root="col_one") == [["col_two"], ["col_three"]]
    assert plan(everything, root="col_one")[1][0].reads_root
    assert ids(root="bkt_none") == []


def test_paths() -> None:
    source = {"a": {"b": [{"c": 1}]}, "x.y": 2, "metadata": {"lang": "en"}, "none": None}
    assert lookup(source, "a.b.0.c") == 1 and lookup(source, "x.y") == 2
    assert lookup(source, "a.b.7") is MISSING and lookup(source, "none") is None
    assert resolve(source, "payload.a.b.0.c") == 1
    assert resolve(source, "lang") == resolve(source, "metadata.lang") == resolve(source, "payload.lang") == "en"
    assert resolve(source, "metadata.x.y") == 2
    target: dict[str, Any] = {"a": 1}
    assign(target, "a.b.c", 2)
    assert target == {"a": {"b": {"c": 2}}}


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        ("text", "plain words", Content(b"plain words", "text/plain; charset=utf-8")),
        ("text", "https://example.com/a.txt", Link("https://example.com/a.txt")),
        ("text", "see https://example.com", Content(b"see https://example.com", "text/plain; charset=utf-8")),
        ("text", base64.b64encode(b"a longer text").decode(), Content(b"a longer text", "text/plain; charset=utf-8")),
        ("text", "internationalize", Content(b"internationalize", "text/plain; charset=utf-8")),
        ("image", "data:image/png;base64,AAEC", Content(b"\x00\x01\x02", "image/png")),
        ("image", "AAEC", Content(b"\x00\x01\x02", "application/octet-stream")),
        ("text", "data:,a%20b", Content(b"a b", "text/plain")),
        ("json", {"a": 1}, Value({"a": 1})),
        ("number", 5, Value(5)),
    ],
)
def test_blob_data_is_read(kind: str, data: Any, expected: Any) -> None:
    assert read(kind, data, where="blobs[0]") == expected


@pytest.mark.parametrize("data", ["not base64", "", 5, "s3://bucket/key"])
def test_blob_data_is_refused(data: Any) -> None:
    with pytest.raises(SpecError, match=r"blobs\[0\]"):
        read("image", data, where="blobs[0]")


def test_kinds_of_files() -> None:
    assert kind_of("video/mp4") == "video" and kind_of("application/pdf; x=1") == "pdf"
    assert kind_of("application/octet-stream", "a.png") == "image" and kind_of("text/csv") == "text"


def test_statistics_of_fields() -> None:
    seen = FieldStatistics()
    for number in range(4):
        seen.add({"color": "red" if number else "blue", "tags": ["a", "b"], "on": True, "n": number, "none": None})
    seen.add({"color": 1, "text": "x" * 500})
    answer = seen.answer()
    assert list(answer) == ["color", "n", "on", "tags", "text"]
    assert answer["color"] == {"types": ["integer", "string"], "common_values": [{"value": "red", "count": 3}]}
    assert answer["tags"]["common_values"] == [{"value": "a", "count": 4}, {"value": "b", "count": 4}]
    assert answer["on"]["common_values"] == [{"value": True, "count": 4}]
    assert answer["n"] == {"types": ["integer"], "common_values": []}
    assert answer["text"] == {"types": ["string"], "common_values": []}
