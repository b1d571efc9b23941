"""Parameters: declared, checked, substituted with their types."""

# ruff: noqa: E501 - a table of cases reads best with one case per line

import pytest

from mixpeek_operator.manifest.parse import parse
from mixpeek_operator.manifest.registry import schemas

TEXT = """\
parameters:
  - {name: team, description: who owns it}
  - {name: ttl, type: integer, default: 60}
  - {name: stage, enum: [dev, prod], default: dev}
  - {name: tags, type: array, default: [a]}
  - {name: note, required: false}
namespaces: [{name: n}]
buckets:
  - name: b-${{ params.stage }}
    description: owned by ${{ parameters.team }}, ${{ secrets.KEY }}
    schema: {properties: {x: {type: text}}}
    metadata: {ttl: "${{ params.ttl }}", tags: "${{ params.tags }}", note: "${{ params.note }}", text: "x${{params.note}}y"}
"""


def test_values_take_the_place_of_expressions_and_keep_their_types():
    manifest = parse(TEXT, schemas(), values={"team": "search", "stage": "prod", "tags": ["x", "y"]})

    assert manifest.problems == []
    spec = manifest.of_kind("Bucket")[0].spec
    assert spec["name"] == "b-prod"
    assert spec["description"] == "owned by search, ${{ secrets.KEY }}"
    assert spec["metadata"] == {"ttl": 60, "tags": ["x", "y"], "note": None, "text": "xy"}


BAD = [
    ({}, "missing_parameter", "'team' (who owns it) needs a value"),
    ({"team": 5}, "bad_parameter", "must be of type string, not integer"),
    ({"team": "a", "ttl": "5"}, "bad_parameter", "must be of type integer"),
    ({"team": "a", "ttl": True}, "bad_parameter", "must be of type integer, not boolean"),
    ({"team": "a", "stage": "test"}, "bad_parameter", "must be one of 'dev', 'prod'"),
    ({"team": "a", "tags": [1]}, "bad_parameter", "items of type string"),
    ({"team": "a", "tags": "x"}, "bad_parameter", "must be an array"),
    ({"team": "a", "tem": "x"}, "unknown_parameter", "did you mean 'team'"),
]


@pytest.mark.parametrize(("values", "code", "says"), BAD)
def test_a_wrong_value_is_named(values, code, says):
    problems = parse(TEXT, schemas(), values=values).problems

    assert [problem.code for problem in problems] == [code]
    assert says in problems[0].message


def test_all_wrong_values_are_named_at_once():
    problems = parse(TEXT, schemas(), values={"team": 1, "ttl": "x", "stage": "no", "other": 1}).problems

    assert len(problems) == 4
