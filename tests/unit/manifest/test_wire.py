"""Every answer is what the public SDK's strict models read."""

from __future__ import annotations

import yaml
from mixpeek.models.apply_result import ApplyResult
from mixpeek.models.collection_readiness import CollectionReadiness
from mixpeek.models.diff_result import DiffResult
from mixpeek.models.lint_response import LintResponse
from mixpeek.models.task_response import TaskResponse
from mixpeek.models.validate_result import ValidateResult

from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.resource import Metadata, Resource
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.ingestion.tasks import Tasks
from mixpeek_operator.manifest.parse import parse
from mixpeek_operator.manifest.progress import ApplyTasks
from mixpeek_operator.manifest.registry import schemas
from mixpeek_operator.manifest.results import readiness

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


async def test_an_apply_is_a_task_with_the_states_of_each_resource(world, manifest):
    tasks = Tasks(world.metadata, SystemClock())
    service = world.service(tasks=ApplyTasks(tasks, SystemClock()))

    async def states(answer):
        task = await tasks.get(Scope(ORGANIZATION), answer["task_id"])
        assert TaskResponse.from_dict(task) is not None and task["task_type"] == "api_manifest_apply"
        return task["status"], {row["name"]: [item["state"] for item in row["states"]] for row in task["outputs"]}

    assert (await service.apply(ORGANIZATION, [(None, manifest)], dry_run=True))["task_id"] is None
    status, seen = await states(await service.apply(ORGANIZATION, [(None, manifest)]))
    made = ["planned", "creating", "created"]
    assert (status, seen) == (
        "COMPLETED",
        {"shop": made, "products": made, "titles": [*made, "ready"], "search": made},
    )
    again = await service.apply(ORGANIZATION, [(None, manifest)])
    assert (await states(again))[1]["titles"] == ["planned", "exists"]
    third = await service.apply(ORGANIZATION, [(None, manifest)])
    assert third["task_id"] == again["task_id"], "what changes nothing leaves one task, however often"
    world.broken["titles"] = "no such field"
    changed = yaml.safe_load(manifest)
    changed["collections"][0]["description"] = "Other"
    failed = await service.apply(ORGANIZATION, [(None, yaml.safe_dump(changed))])
    assert not failed["success"]
    status, seen = await states(failed)
    assert (status, seen["titles"]) == ("FAILED", ["planned", "updating", "failed"])


async def test_readiness_names_the_collections_that_are_served(world, manifest):
    body = yaml.safe_load(manifest)
    found = parse(yaml.safe_dump(body), schemas())
    spec = {"name": "text_extractor", "version": "v1", "namespace": "shop", "realtime": True}
    extractor = Resource("Extractor", Metadata("shop.text-extractor", ORGANIZATION), spec)
    (one,) = readiness(found, [extractor])
    assert (one["realtime_available"], one["serve_apps"][0]["status"]) == (False, "absent")
    extractor.status["conditions"] = [{"type": "EndpointReady", "status": "True", "reason": "Running"}]
    (one,) = readiness(found, [extractor])
    read = CollectionReadiness.from_dict(one)
    assert (read.collection, read.feature_extractor, read.realtime_available) == ("titles", "text_extractor_v1", True)
    assert readiness(found, []) == []


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
