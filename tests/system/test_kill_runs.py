"""Killing the server in the middle of an evaluation or a benchmark: the next one finishes it, or says why not."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from tests.servers.http import Asked, Reply, http_server
from tests.servers.http import Server as Site
from tests.servers.mixpeek import Server, serving
from tests.system.conftest import unique
from tests.system.test_kill import eventually

from mixpeek_operator.relevance.runs import MAX_ATTEMPTS

pytestmark = pytest.mark.slow
QUERIES = 12


@dataclass
class Web:
    """A web whose pages come when the test lets them, so that a run that reads them stays in its middle."""

    asked: threading.Event = field(default_factory=threading.Event)
    answers: threading.Event = field(default_factory=threading.Event)

    def page(self, request: Asked) -> Reply:
        self.asked.set()
        self.answers.wait()
        return Reply(200, f"<title>{request.path}</title><main>{request.path}</main>")

    def hold(self) -> None:
        self.answers.clear()
        self.asked.clear()


@dataclass
class Place:
    """A server with two retrievers that read the web, and what is needed to judge them."""

    server: Server
    web: Web
    http: httpx.Client
    retrievers: list[str]
    documents: list[str]
    written_at: str = ""
    """When the record of the run was written that the last server left."""

    def run(self, path: str) -> dict[str, Any]:
        return dict(self.http.get(path).raise_for_status().json())

    def killed(self, path: str) -> None:
        """End the server in the middle of the run that it has begun, and start another one on its data."""
        assert self.web.asked.wait(120), "the run never began"
        # A request of the server before may have come late; the record says that this one has taken the run up.
        assert eventually(lambda: self._began(self.run(path))), f"it was never taken up: {self.run(path)}"
        self.written_at = self.run(path)["updated_at"]
        self.server.kill()
        self.web.answers.set()  # for a dead client
        self.web.hold()
        self.server.restart()

    def _began(self, run: Mapping[str, Any]) -> bool:
        return run["status"] in ("in_progress", "replaying") and run["updated_at"] != self.written_at


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    web = Web()
    settings = {"MIXPEEK_PRELOAD_MODEL": "false", "MIXPEEK_OUTBOUND_ALLOW_CIDRS": "127.0.0.0/8"}
    with http_server(web.page) as site, serving(tmp_path_factory.mktemp("runs"), **settings) as server:
        headers = {**server.headers, "X-Namespace": "shop"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=120) as http:
            post(http, "/v1/namespaces", {"namespace_name": "shop", "feature_extractors": []})
            retrievers = [reader(http, site, page) for page in ("one", "two")]
            urls = [f"{site.url}/{page}" for page in ("one", "two")]
            documents = ["web_" + hashlib.sha256(url.encode()).hexdigest()[:16] for url in urls]
            yield Place(server, web, http, retrievers, documents)
        web.answers.set()


def post(http: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = http.post(path, json=body)
    assert answer.status_code < 300, answer.text
    return dict(answer.json())


def reader(http: httpx.Client, site: Site, page: str) -> str:
    """Declare a retriever whose one document is a page, and return its id."""
    stage = {"stage_id": "web_scrape", "parameters": {"url": f"{site.url}/{page}", "on_error": "raise", "timeout": 120}}
    body = {"retriever_name": page, "stages": [{"stage_name": "read", **stage}]}
    return str(post(http, "/v1/retrievers", body)["retriever_id"])


def begin_evaluation(place: Place) -> str:
    """Start an evaluation and return where it can be read."""
    name = unique("judged")
    queries = [
        {"query_id": f"q{n}", "query_input": {}, "relevant_documents": place.documents[:1]} for n in range(QUERIES)
    ]
    post(place.http, "/v1/retrievers/evaluations/datasets", {"dataset_name": name, "queries": queries})
    path = f"/v1/retrievers/{place.retrievers[0]}/evaluations"
    made = post(place.http, path, {"dataset_name": name})
    place.written_at = ""
    return f"{path}/{made['evaluation_id']}"


def begin_benchmark(place: Place) -> str:
    """Start a benchmark and return where it can be read."""
    for n in range(QUERIES):
        interaction = {
            "feature_id": place.documents[0], "interaction_type": ["click"], "position": 0, "session_id": f"s{n}",
            "retriever_id": place.retrievers[0], "query_snapshot": {"query": f"q{n}"},
        }  # fmt: skip
        post(place.http, "/v1/retrievers/interactions", interaction)
    baseline, candidate = place.retrievers
    named = {"baseline_retriever_id": baseline, "candidate_retriever_ids": [candidate]}
    made = post(place.http, "/v1/retrievers/benchmarks", {"benchmark_name": unique("compared"), **named})
    place.written_at = ""
    return f"/v1/retrievers/benchmarks/{made['benchmark_id']}"


def ended(place: Place, path: str) -> dict[str, Any]:
    """Wait for the end of a run and return it."""

    def found() -> Any:
        run = place.run(path)
        return run if run["status"] in ("completed", "failed") else None

    run: dict[str, Any] | None = eventually(found)
    assert run is not None, f"it never ends: {place.http.get(path).text}"
    return run


def test_an_evaluation_goes_on_in_the_next_server(place: Place) -> None:
    place.web.hold()
    path = begin_evaluation(place)
    place.killed(path)
    assert place.http.get(path).json()["status"] == "in_progress"
    place.web.answers.set()
    run = ended(place, path)
    assert (run["status"], run["error_message"]) == ("completed", None)
    assert (run["query_count"], run["evaluated_queries"], run["skipped_queries"]) == (QUERIES, QUERIES, 0)
    assert run["overall_metrics"]["recall"] == 1.0
    task = place.http.get(f"/v1/tasks/{run['task_id']}").raise_for_status().json()
    assert task["status"] == "COMPLETED"


def test_a_benchmark_goes_on_in_the_next_server(place: Place) -> None:
    place.web.hold()
    path = begin_benchmark(place)
    place.killed(path)
    assert place.http.get(path).json()["status"] == "replaying"
    place.web.answers.set()
    run = ended(place, path)
    assert (run["status"], run["error_message"], run["session_count"]) == ("completed", None, QUERIES)
    assert [item["failed_sessions"] for item in run["results"]] == [0, 0]


def test_what_ends_every_server_fails_and_says_so(place: Place) -> None:
    place.web.hold()
    path = begin_evaluation(place)
    for _ in range(MAX_ATTEMPTS):
        place.killed(path)
    run = ended(place, path)
    assert run["status"] == "failed" and "its process ended" in run["error_message"]
    task = place.http.get(f"/v1/tasks/{run['task_id']}").raise_for_status().json()
    assert task["status"] == "FAILED"
