"""Every answer is what the public SDK's strict models read."""

from __future__ import annotations

import yaml
from mixpeek.models.apply_result import ApplyResult
from mixpeek.models.diff_result import DiffResult
from mixpeek.models.lint_response import LintResponse
from mixpeek.models.validate_result import ValidateResult

ORGANIZATION = "int_test"


def _changed(manifest: str) -> str:
    body = yaml.safe_load(manifest)
    body["buckets"][0]["description"] = "Other"
    body["buckets"].append({"name": "more", "namespace": "shop", "schema": {"properties": {"x": {"type": "text"}}}})
    body["retrievers"][0]["input_schema"] = {"q": {"type": "text"}}
    return yaml.safe_dump(body)


async def test_apply(world, manifest):
    service = world.service()
    answers = [
        await service.apply(ORGANIZATION, [(None, manifest)], dry_run=True),
        await service.apply(ORGANIZATION, [(None, manifest)]),
        await service.apply(ORGANIZATION, [(None, manifest)]),
        await service.apply(ORGANIZATION, [(None, _changed(manifest))]),
        await service.apply(ORGANIZATION, [(None, _changed(manifest))], mode="create_missing"),
        await service.apply(ORGANIZATION, [(None, manifest)], mode="create_only"),
        await service.apply(ORGANIZATION, [(None, "x: 1")]),
    ]

    read = [ApplyResult.from_dict(answer) for answer in answers]

    assert [item.success for item in read] == [True, True, True, False, True, False, False]
    assert [item.created_count for item in read] == [0, 4, 0, 0, 1, 0, 0]
    assert all(row.status.value for item in read for row in item.resources or [])


async def test_the_other_answers(world, manifest):
    service = world.service()
    await service.apply(ORGANIZATION, [(None, manifest)])
    parameters = "parameters: [{name: p, type: integer, default: 3}]\n"

    valid = ValidateResult.from_dict(await service.validate(ORGANIZATION, [(None, parameters + manifest)]))
    difference = DiffResult.from_dict(await service.diff(ORGANIZATION, [(None, _changed(manifest))]))
    same = DiffResult.from_dict(await service.diff(ORGANIZATION, [(None, manifest)]))
    advice = LintResponse.from_dict(await service.lint(ORGANIZATION, [(None, _changed(manifest))]))

    assert valid.valid and valid.parameters[0].name == "p" and valid.resources["buckets"] == 1
    assert [item.name for item in difference.to_create] == ["more"]
    assert {item.name for item in difference.differences} == {"products", "search"}
    assert same.to_create == same.differences == same.in_system_only == []
    assert advice.valid and advice.summary["error"] == 0
