"""How good retrievers are: datasets of judged queries, evaluations with them, benchmarks against each other."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query
from starlette.responses import Response

from mixpeek_operator.api import bodies
from mixpeek_operator.api.lists import MAX_LIMIT
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.scope import Namespaced, OfOrganization
from mixpeek_operator.api.services import Services
from mixpeek_operator.relevance.benchmarks import BenchmarkCreate
from mixpeek_operator.relevance.datasets import DatasetCreate
from mixpeek_operator.relevance.evaluations import DatasetFromInteractions, EvaluationStart, Status
from mixpeek_operator.relevance.predictions import Predictions, score

DATASETS = "/v1/retrievers/evaluations/datasets"
EVALUATIONS = "/v1/retrievers/{retriever_id}/evaluations"
BENCHMARKS = "/v1/retrievers/benchmarks"
Page = Annotated[int, Query(ge=1, le=1_000_000)]
PageSize = Annotated[int, Query(ge=1, le=MAX_LIMIT)]


def router(services: Services) -> Routes:
    """Return the routes of datasets, evaluations and benchmarks."""
    routes = Routes(tags=["Retriever evaluations"])
    _datasets(routes, services)
    _evaluations(routes, services)
    _benchmarks(routes, services)
    return routes


def _datasets(routes: Routes, services: Services) -> None:
    @routes.post(DATASETS, summary="Create an evaluation dataset")
    async def create_dataset(
        where: Namespaced, body: Annotated[DatasetCreate, Depends(bodies.body(DatasetCreate))]
    ) -> Json:
        return Json(await services.datasets.create(where, body))

    @routes.get(DATASETS, summary="List evaluation datasets")
    async def list_datasets(where: Namespaced, page: Page = 1, page_size: PageSize = 20) -> Json:
        found, total = await services.datasets.find(where, page=page, page_size=page_size)
        return Json({"datasets": found, "total": total, "page": page, "page_size": page_size})

    @routes.get(f"{DATASETS}/{{dataset_identifier}}", summary="Get an evaluation dataset")
    async def get_dataset(where: Namespaced, dataset_identifier: str) -> Json:
        return Json(await services.datasets.get(where, dataset_identifier))

    @routes.delete(f"{DATASETS}/{{dataset_identifier}}", summary="Delete an evaluation dataset")
    async def delete_dataset(where: Namespaced, dataset_identifier: str) -> Json:
        await services.datasets.delete(where, dataset_identifier)
        return Json({"success": True, "message": f"deleted the dataset {dataset_identifier}"})


def _evaluations(routes: Routes, services: Services) -> None:
    @routes.post(EVALUATIONS, summary="Evaluate a retriever with a dataset", status_code=202)
    async def start_evaluation(
        where: Namespaced,
        retriever_id: str,
        body: Annotated[EvaluationStart, Depends(bodies.body(EvaluationStart))],
    ) -> Json:
        return Json(await services.evaluations.start(where, retriever_id, body), status_code=202)

    @routes.post(f"{EVALUATIONS}/generate-from-interactions", summary="Create a dataset of what users wanted")
    async def generate_dataset(
        where: Namespaced,
        retriever_id: str,
        body: Annotated[DatasetFromInteractions, Depends(bodies.body(DatasetFromInteractions))],
    ) -> Json:
        return Json(await services.evaluations.dataset_of(where, retriever_id, body))

    @routes.post("/v1/evaluations/score", summary="Measure predictions; stores nothing", permission="read")
    async def score_predictions(
        where: OfOrganization, body: Annotated[Predictions, Depends(bodies.body(Predictions))]
    ) -> Json:
        return Json(score(body))

    @routes.get(EVALUATIONS, summary="List a retriever's evaluations")
    async def list_evaluations(
        where: Namespaced,
        retriever_id: str,
        status: Status | None = None,
        dataset_name: str | None = None,
        page: Page = 1,
        page_size: PageSize = 20,
    ) -> Json:
        found, total = await services.evaluations.find(
            where, retriever_id, status=status, dataset_name=dataset_name, page=page, page_size=page_size
        )
        return Json({"evaluations": found, "total": total, "page": page, "page_size": page_size})

    @routes.get(f"{EVALUATIONS}/{{evaluation_id}}", summary="Get an evaluation")
    async def get_evaluation(where: Namespaced, retriever_id: str, evaluation_id: str) -> Json:
        return Json(await services.evaluations.get(where, retriever_id, evaluation_id))


def _benchmarks(routes: Routes, services: Services) -> None:
    @routes.post(BENCHMARKS, summary="Compare retrievers by replaying sessions")
    async def create_benchmark(
        where: Namespaced, body: Annotated[BenchmarkCreate, Depends(bodies.body(BenchmarkCreate))]
    ) -> Json:
        return Json(await services.benchmarks.create(where, body))

    @routes.get(BENCHMARKS, summary="List benchmarks")
    async def list_benchmarks(
        where: Namespaced,
        retriever_id: str | None = None,
        status: str | None = None,
        page: Page = 1,
        page_size: PageSize = 20,
    ) -> Json:
        found, total = await services.benchmarks.find(
            where, retriever=retriever_id, status=status, page=page, page_size=page_size
        )
        return Json({"benchmarks": found, "total": total, "page": page, "page_size": page_size})

    @routes.get(f"{BENCHMARKS}/{{benchmark_id}}", summary="Get a benchmark")
    async def get_benchmark(where: Namespaced, benchmark_id: str) -> Json:
        return Json(await services.benchmarks.get(where, benchmark_id))

    @routes.delete(f"{BENCHMARKS}/{{benchmark_id}}", summary="Delete a benchmark", status_code=204)
    async def delete_benchmark(where: Namespaced, benchmark_id: str) -> Response:
        await services.benchmarks.delete(where, benchmark_id)
        return Response(status_code=204)
