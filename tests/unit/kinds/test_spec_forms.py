"""Every spelling of a declaration becomes one form, and stays it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.normal import from_camel, normalise, to_camel
from mixpeek_operator.core.refs import is_model, unwrap
from mixpeek_operator.generate.files import kind_schemas

SCHEMAS = kind_schemas()
FORMS = yaml.safe_load((Path(__file__).parent / "data" / "forms.yaml").read_text())


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form['kind']}: {form['case']}")
def test_forms_become_canonical(form: dict[str, Any]) -> None:
    schema = SCHEMAS[form["kind"]]
    before = copy.deepcopy(form["body"])
    spec, problems = normalise(schema, form["body"])
    assert problems == []
    assert spec == form["becomes"]
    assert form["body"] == before, "the body that was passed in is not changed"
    assert normalise(schema, spec) == (spec, [])
    assert from_camel(schema, to_camel(schema, spec)) == (spec, [])


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=lambda schema: schema.name)
def test_examples_are_canonical(schema: KindSchema) -> None:
    assert normalise(schema, schema.example) == (schema.example, [])


def models(model: type[BaseModel], seen: set[type[BaseModel]]) -> set[type[BaseModel]]:
    if model in seen:
        return seen
    seen.add(model)
    for field in model.model_fields.values():
        pending = list(unwrap(field.annotation)[0])
        while pending:
            option = pending.pop()
            if is_model(option):
                models(option, seen)
            else:
                for argument in get_args(option):
                    if not isinstance(argument, str | int):
                        pending += unwrap(argument)[0]
    return seen


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=lambda schema: schema.name)
def test_every_field_has_a_description_and_an_example_that_holds(schema: KindSchema) -> None:
    for model in models(schema.spec, set()) | models(schema.status, set()):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no description"
            assert field.examples, f"{model.__name__}.{name} has no example"
            annotated = Annotated[(field.annotation, "marked", *field.metadata)]  # type: ignore[valid-type]
            TypeAdapter(annotated).validate_python(field.examples[0])


NAMES = st.from_regex(r"\A[a-z][a-z0-9_]{0,8}[a-z0-9]\Z")
FREE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PARAMETERS = st.dictionaries(st.text(max_size=8), FREE, max_size=4)


@st.composite
def stage(draw: st.DrawFn) -> dict[str, Any]:
    parameters, name, stage_id = draw(PARAMETERS), draw(NAMES), draw(NAMES)
    form = draw(st.integers(0, 3))
    if form == 0:
        return {"stage_name": name, "config": {"stage_id": stage_id, "parameters": parameters}}
    if form == 1:
        return {"stage_id": stage_id, "parameters": parameters}
    if form == 2:
        return {"stage_name": stage_id, "config": {"parameters": parameters}}
    return {
        "stageName": name,
        "stageId": stage_id,
        "params": parameters,
        "on_error": draw(st.sampled_from([None, "skip"])),
    }


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(stages=st.lists(stage(), min_size=1, max_size=3), metadata=st.none() | PARAMETERS, name=NAMES)
def test_normalising_twice_changes_nothing_and_camel_case_loses_nothing(
    stages: list[dict[str, Any]], metadata: dict[str, Any] | None, name: str
) -> None:
    schema = SCHEMAS["retriever"]
    body = {"retriever_name": name, "namespace": "n1", "stages": stages, "metadata": metadata}
    spec, problems = normalise(schema, body)
    assert problems == []
    assert normalise(schema, spec) == (spec, [])
    assert from_camel(schema, to_camel(schema, spec)) == (spec, [])
    if metadata is not None:
        assert spec["metadata"] == metadata, "users' keys are never respelled"


@given(properties=st.dictionaries(st.text(max_size=8), st.sampled_from(["text", "integer", "image"]), max_size=4))
def test_property_names_are_never_respelled(properties: dict[str, str]) -> None:
    schema = SCHEMAS["bucket"]
    body = {"name": "b1", "namespace": "n1", "schema": {"properties": {k: {"type": v} for k, v in properties.items()}}}
    spec, problems = normalise(schema, body)
    assert problems == []
    assert to_camel(schema, spec)["bucketSchema"]["properties"].keys() == properties.keys()
