"""Seeds and acceptance: ingested once after an apply, executed and judged."""

from __future__ import annotations

import pytest

from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.errors import BadRequestError, NotFoundError
from mixpeek_operator.manifest.acceptance import Acceptance, judge_documents, judge_query
from mixpeek_operator.manifest.model import Expect
from mixpeek_operator.manifest.seed import Seeds

ORGANIZATION = "int_test"

TRAILER = """
seed:
  - bucket: products
    objects: [{title: red shoe}, {title: blue hat}, {bad: 1}]
acceptance:
  - name: finds shoes
    retriever: search
    inputs: {query: shoe}
    expect: {min_results: 1, top: {title: red shoe}, contains: [{title: blue hat}]}
  - {name: counts, kind: documents, collection: titles, expect: {documents: 2}}
"""


class _Plane:
    """Objects, batches and queries over a list."""

    def __init__(self):
        self.objects, self.batches, self.requests = {}, {}, []
        self.status = "COMPLETED"

    async def create_many(self, scope, bucket, bodies, *, policy=None):
        succeeded, failed = [], []
        for index, body in enumerate(bodies):
            if "title" not in body:
                failed.append({"object_index": index, "error": "unknown field bad", "error_type": "SpecError"})
                continue
            id = f"obj_{body['idempotency_key']}"
            self.objects[id] = body
            succeeded.append({"object_id": id, "object_index": index})
        return {"succeeded": succeeded, "failed": failed}

    async def create(self, scope, bucket, body):
        id = f"btch_{len(self.batches)}"
        self.batches[id] = {"batch_id": id, "status": "DRAFT", "object_ids": body["object_ids"]}
        return self.batches[id]

    async def submit(self, scope, bucket, batch_id, body=None):
        self.batches[batch_id]["status"] = self.status
        return {"task_id": "task_1"}

    async def get(self, scope, bucket, batch_id):
        return self.batches[batch_id]

    async def execute(self, scope, retriever, request):
        if retriever != "search":
            raise NotFoundError(f"retriever {retriever}")
        self.requests.append((scope.namespace, request))
        found = sorted(self.objects.values(), key=lambda item: "shoe" not in item["title"])
        documents = [{"title": item["title"], "score": 1 - index / 10} for index, item in enumerate(found)]
        return {"status": "completed", "documents": documents, "budget": {"credits_used": 5}}

    async def count_documents(self, scope, collection):
        return len(self.objects)


def _service(world, plane):
    seeds = Seeds(objects=plane, batches=plane, records=world.metadata, clock=SystemClock())
    return world.service(seeds=seeds, acceptance=Acceptance(queries=plane, counts=plane))


async def test_seeds_are_ingested_once_and_acceptance_is_judged(world, manifest):
    plane = _Plane()
    service = _service(world, plane)
    files = [("m.yaml", manifest + TRAILER)]

    first = await service.apply(ORGANIZATION, files, run_acceptance=True)
    second = await service.apply(ORGANIZATION, files, wait_for_seed=True, mode="create_missing")

    assert first["success"] and first["created_count"] == 4
    (batch,) = first["seed_batches"]
    assert (batch["status"], batch["usable"], batch["failed_objects"]) == ("COMPLETED", True, 1)
    assert first["acceptance"]["passed"], first["acceptance"]
    assert [step["kind"] for step in first["acceptance"]["steps"]] == ["query", "documents"]
    assert plane.requests[0] == ("shop", {"inputs": {"query": "shoe"}, "skip_cache": True})
    assert len(plane.objects) == 2 and len(plane.batches) == 1
    assert second["seed_batches"][0]["batch_id"] == batch["batch_id"]


async def test_a_failed_expectation_is_named(world, manifest):
    text = manifest + TRAILER.replace("top: {title: red shoe}", "top: {title: green shoe}")

    answer = await _service(world, _Plane()).apply(ORGANIZATION, [("m", text)], run_acceptance=True)

    step = answer["acceptance"]["steps"][0]
    assert not answer["acceptance"]["passed"] and not step["passed"]
    assert "green shoe" in step["error"] and step["observed"]["results"] == 2
    assert any("finds shoes" in error for error in answer["errors"])


async def test_a_failed_seed_keeps_acceptance_from_running(world, manifest):
    plane = _Plane()
    plane.status = "FAILED"

    answer = await _service(world, plane).apply(ORGANIZATION, [("m", manifest + TRAILER)], run_acceptance=True)

    assert not answer["seed_batches"][0]["usable"]
    assert all("not run" in step["error"] for step in answer["acceptance"]["steps"])
    assert plane.requests == []


async def test_acceptance_without_steps_is_refused(world, manifest):
    with pytest.raises(BadRequestError):
        await _service(world, _Plane()).apply(ORGANIZATION, [("m", manifest)], run_acceptance=True)
    assert await world.all() == {}


async def test_a_dry_run_ingests_nothing(world, manifest):
    plane = _Plane()

    answer = await _service(world, plane).apply(ORGANIZATION, [("m", manifest + TRAILER)], dry_run=True)

    assert answer["success"] and plane.objects == {}


DOCUMENTS = [
    {"title": "a", "score": 0.9, "metadata": {"price": 3}, "tags": ["x", "y"]},
    {"title": "b", "score": 0.4, "metadata": {"price": 9}},
]
JUDGED = [
    ({"results": 2}, True),
    ({"results": 1}, False),
    ({"min_results": 3}, False),
    ({"max_results": 1}, False),
    ({"contains": [{"metadata.price": 9}, {"tags": "x"}]}, True),
    ({"contains": [{"title": "a", "metadata.price": 9}]}, False),
    ({"excludes": [{"title": "b"}]}, False),
    ({"excludes": [{"title": "z"}]}, True),
    ({"top": {"title": "a"}}, True),
    ({"top": {"title": "b"}}, False),
    ({"top_field": "metadata.price", "top_value": 3}, True),
    ({"top_field": "metadata.none", "top_value": None}, False),
    ({"min_top_score": 0.8, "max_top_score": 0.95, "min_score": 0.3}, True),
    ({"min_top_score": 0.95}, False),
    ({"max_top_score": 0.5}, False),
    ({"min_score": 0.5}, False),
    ({"max_latency_ms": 5}, False),
    ({"max_latency_ms": 50}, True),
]


@pytest.mark.parametrize(("expect", "holds"), JUDGED)
def test_judging_a_query(expect, holds):
    assert (judge_query(Expect(**expect), DOCUMENTS, 10.0) == []) is holds


def test_judging_nothing_found():
    assert len(judge_query(Expect(top={"a": 1}, min_top_score=0.1, top_field="a", top_value=1), [], 1.0)) == 3


def test_judging_documents():
    assert judge_documents(Expect(min_documents=2, max_documents=4), 3) == []
    assert judge_documents(Expect(documents=2), 3) == ["3 documents, expected 2"]
