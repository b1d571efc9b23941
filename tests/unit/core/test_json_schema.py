"""JSON schemas that users write: what is accepted, what is found wrong with values, and that nothing is fetched."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.json_schema import JsonSchema

LEAVES = st.sampled_from(
    [{"type": "string"}, {"type": "integer", "minimum": 0}, {"enum": ["a", 1]}, {"type": "boolean"}, {"type": "null"}]
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items, "maxItems": 2}, inner),
        st.builds(lambda a, b: {"type": "object", "properties": {"a": a, "b": b}, "required": ["a"]}, inner, inner),
    ),
    max_leaves=6,
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from(["a", "b"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("ab"), inner)),
    max_leaves=8,
)


@given(SCHEMAS, VALUES)
def test_it_finds_what_the_standard_finds(schema: dict[str, Any], value: Any) -> None:
    assert bool(JsonSchema(schema).problems(value)) != Draft202012Validator(schema).is_valid(value)


def test_problems_say_where() -> None:
    schema = {"type": "object", "properties": {"a": {"items": {"pattern": "^x+$"}}}, "required": ["b"]}
    assert JsonSchema(schema).problems({"a": ["xx", "y"]}) == [
        "$: 'b' is a required property",
        "$.a[1]: 'y' does not match '^x+$'",
    ]


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "strin"}, "'strin' is not valid"),
        ({"$ref": "http://127.0.0.1/secret"}, "leads out of the schema"),
        ({"properties": {"a": {"$dynamicRef": "other"}}}, "leads out of the schema"),
        ({"pattern": "(a)\\1"}, "is not valid"),
        ({"patternProperties": {"a": {}}}, "not supported"),
    ],
)
def test_what_cannot_be_used_is_refused(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match="not a JSON schema") as caught:
        JsonSchema(schema)
    assert said in str(caught.value)


@pytest.mark.parametrize("schema", [{"$ref": "#/$defs/none"}, {"$ref": "#"}])
def test_a_reference_that_leads_nowhere_is_refused_when_it_is_used(schema: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="leads nowhere"):
        JsonSchema(schema).problems({})


def test_depth_is_bounded() -> None:
    schema: dict[str, Any] = {}
    for _ in range(100):
        schema = {"items": schema}
    with pytest.raises(SpecError, match="deeper"):
        JsonSchema(schema)


def test_patterns_take_linear_time() -> None:
    assert JsonSchema({"pattern": "^(a+)+$"}).problems("a" * 50_000 + "b")
