"""What every Inference does: order, purposes, errors by name; in process and by Ray Serve over HTTP."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from tests.servers.mixpeek import free_port
from tests.servers.ray import ray_cluster

from mixpeek_operator.core.errors import ModelUnavailableError, SpecError, UnavailableError
from mixpeek_operator.extraction.ray.endpoints import Endpoints, route_prefix
from mixpeek_operator.extraction.ray.process import Models, inference
from mixpeek_operator.extraction.ray.serve import RayServeInference
from mixpeek_operator.ports.inference import Inference
from mixpeek_operator.ports.vectors import SparseVector

pytest.importorskip("torch", reason="needs mixpeek-operator[models]")

MODEL = "all-MiniLM-L6-v2"
MODELS = Models(default=MODEL, path=None, hub=False, threads=1, batch_size=32)
TEXTS = ["a red car", "", "ein blaues Haus", "a red car", "word " * 300, "naïve ☕"]


@pytest.fixture(scope="session")
def served() -> Iterator[str]:
    """URL of a proxy that has text_extractor for everyone, and for ns_own alone on that namespace's route."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs mixpeek-operator[ray]")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with ray_cluster(cpus=4, MIXPEEK_EMBEDDING_THREADS="1") as cluster:
        application = {
            "import_path": "mixpeek_operator.extraction.ray.serve_app:build",
            "args": {"extractor": "text_extractor", "version": "v1"},
            "deployments": [{"name": "Realtime", "num_replicas": 1, "ray_actor_options": {"num_cpus": 1}}],
        }
        own = {**application, "args": {**application["args"], "namespace_id": "ns_own"}}  # type: ignore[dict-item]
        config = {
            "http_options": {"host": "127.0.0.1", "port": port},
            "applications": [
                {**application, "name": "shared", "route_prefix": route_prefix(None, "text_extractor", "v1")},
                {**own, "name": "ns_own", "route_prefix": route_prefix("ns_own", "text_extractor", "v1")},
            ],
        }
        headers = {"Authorization": f"Bearer {cluster.token}"}
        api = f"{cluster.dashboard_url}/api/serve/applications/"
        httpx.put(api, json=config, headers=headers, timeout=60).raise_for_status()
        deadline = time.monotonic() + 240
        while True:
            found = httpx.get(api, headers=headers, timeout=60).json()["applications"]
            states = [application["status"] for application in found.values()]
            if states == ["RUNNING", "RUNNING"]:
                break
            assert "DEPLOY_FAILED" not in states and time.monotonic() < deadline, found
            time.sleep(0.5)
        yield url


@pytest.fixture(params=["in-process", pytest.param("ray-serve", marks=pytest.mark.slow)])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Inference]:
    if request.param == "in-process":
        local = inference(MODELS)
        yield local
        await local.close()
    else:
        url = request.getfixturevalue("served")
        async with httpx.AsyncClient(timeout=60) as http:
            yield RayServeInference(http, Endpoints("", url))


async def embed(subject: Inference, *texts: str, model: str = "default", purpose: str = "query") -> list[object]:
    return list(await subject.embed(model, texts, purpose=purpose, namespace_id="ns_a"))


async def test_vectors_come_in_the_order_of_the_texts(subject: Inference) -> None:
    vectors = await embed(subject, *TEXTS)
    assert [len(vector) for vector in vectors] == [384] * len(TEXTS)  # type: ignore[arg-type]
    assert vectors[0] == vectors[3] != vectors[2]
    assert vectors[2] == pytest.approx((await embed(subject, TEXTS[2]))[0], abs=1e-5)
    assert await embed(subject) == []


async def test_numbers_are_those_of_this_process(subject: Inference) -> None:
    here = inference(MODELS)
    for model in ("default", "bm25-english"):
        wanted = await embed(here, *TEXTS, model=model)
        for found, vector in zip(await embed(subject, *TEXTS, model=model), wanted, strict=True):
            if isinstance(vector, SparseVector):
                assert isinstance(found, SparseVector)
                assert list(found.indices) == list(vector.indices)
                assert list(found.values) == pytest.approx(list(vector.values), abs=1e-5)
            else:
                assert found == pytest.approx(vector, abs=1e-5)
    await here.close()


async def test_purposes_differ_where_the_model_does(subject: Inference) -> None:
    [document] = await embed(subject, "cars cars and more cars", model="bm25-english", purpose="document")
    [query] = await embed(subject, "cars cars and more cars", model="bm25-english", purpose="query")
    assert isinstance(document, SparseVector)
    assert isinstance(query, SparseVector)
    # A query's weights are how often it says each word; a document's are saturated.
    assert max(query.values) == 3.0 > max(document.values)
    assert all(value.is_integer() for value in query.values)


async def test_a_dense_model_scores_by_the_cosine_of_its_vectors(subject: Inference) -> None:
    texts = ["a blue car", "red vehicles", "", "a recipe for bread"]
    found = await subject.score("default", "a red car", texts, namespace_id="ns_a")
    assert (found.model, found.method) == ("all-MiniLM-L6-v2@53aa51172d14", "bi_encoder")
    query, *vectors = await embed(subject, "a red car", *texts)
    cosines = [sum(a * b for a, b in zip(query, vector, strict=True)) for vector in vectors]  # type: ignore[call-overload]
    assert list(found.values) == pytest.approx(cosines, abs=1e-5)
    assert list((await subject.score("default", "a red car", [], namespace_id="ns_a")).values) == []
    with pytest.raises(SpecError, match="sparse"):
        await subject.score("bm25-english", "a", texts, namespace_id="ns_a")
    with pytest.raises(ModelUnavailableError, match="bge-reranker-v2-m3"):
        await subject.score("BAAI__bge_reranker_v2_m3", "a", texts, namespace_id="ns_a")


async def test_a_model_that_is_not_there_is_named(subject: Inference) -> None:
    with pytest.raises(ModelUnavailableError, match="absent-model"):
        await embed(subject, "a", model="absent-model")
    with pytest.raises(SpecError, match="klingon"):
        await embed(subject, "a", model="bm25-klingon")


async def test_weights_are_identified(subject: Inference) -> None:
    assert await subject.identity("default", namespace_id="ns_a") == "all-MiniLM-L6-v2@53aa51172d14"
    assert await subject.identity("all_minilm_l6_v2", namespace_id="ns_a") == "all-MiniLM-L6-v2@53aa51172d14"
    assert await subject.identity("bm25-english", namespace_id="ns_a") == "bm25-english"
    with pytest.raises(ModelUnavailableError, match="absent-model"):
        await subject.identity("absent-model", namespace_id="ns_a")


async def test_many_at_once_are_answered_each_with_its_own(subject: Inference) -> None:
    texts = [f"text number {number}" for number in range(40)]
    wanted = await embed(subject, *texts)
    together = await asyncio.gather(*(embed(subject, text) for text in texts))
    for found, vector in zip(together, wanted, strict=True):
        assert found[0] == pytest.approx(vector, abs=1e-5)


async def test_it_is_healthy(subject: Inference) -> None:
    await subject.health()


@pytest.mark.slow
async def test_realtime_code_answers_as_in_process(served: str) -> None:
    from mixpeek_operator.extraction.extractors.text_extractor.realtime import InferenceService
    from mixpeek_operator.extraction.runner import container

    here = inference(MODELS)
    inputs = {"texts": ["a red car", "a house"]}
    wanted = await InferenceService(container(here, "ns_a")).run_inference(inputs, {})
    url = served + route_prefix(None, "text_extractor", "v1")
    async with httpx.AsyncClient(timeout=60) as http:
        answer = await http.post(url, json={"inputs": inputs})
        assert answer.json()["embedding"] == pytest.approx(wanted["embedding"], abs=1e-5)
        assert len(answer.json()["embeddings"]) == 2
        refused = await http.post(url, json={"inputs": {}})
        assert (refused.status_code, refused.json()["error"]) == (422, "SpecError")
        refused = await http.post(url, json={"inputs": inputs, "parameters": {"chunk_size": -1}})
        assert refused.status_code == 422, refused.text
        refused = await http.post(url, content=b"{")
        assert refused.status_code == 400, refused.text
    await here.close()


@pytest.mark.slow
async def test_a_namespace_with_its_own_cluster_is_answered_there_and_nobody_else(served: str) -> None:
    async with httpx.AsyncClient(timeout=60) as http:

        def endpoints(namespace_id: str) -> Endpoints | None:
            return Endpoints("", served)

        own = RayServeInference(http, None, endpoints=endpoints)
        assert len(await own.embed("default", ["a"], purpose="query", namespace_id="ns_own")) == 1
        body = {"model": "default", "inputs": ["a"], "purpose": "query", "namespace_id": "ns_other"}
        url = served + route_prefix("ns_own", "text_extractor", "v1") + "/embed"
        assert (await http.post(url, json=body)).status_code == 403
        with pytest.raises(UnavailableError):
            await own.embed("default", ["a"], purpose="query", namespace_id="ns_unknown")


async def test_a_proxy_that_is_away_or_no_proxy_at_all() -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        away = RayServeInference(http, Endpoints("", f"http://127.0.0.1:{free_port()}"))
        with pytest.raises(UnavailableError, match="does not answer"):
            await embed(away, "a")
        with pytest.raises(UnavailableError, match="does not answer"):
            await away.health()
        with pytest.raises(UnavailableError, match="ns_a has no Ray Serve yet"):
            await embed(RayServeInference(http, None), "a")
