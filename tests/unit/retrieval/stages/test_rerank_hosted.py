"""Hosted rerankers, against a server that speaks as Cohere, Jina and Voyage do, through the guarded client."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.unit.retrieval.stages.running import run

from mixpeek_operator.adapters.outbound import GuardedClient
from mixpeek_operator.core.errors import MixpeekError, NotFoundError, RateLimitedError, RefusedError, SpecError
from mixpeek_operator.core.errors import UnavailableError as Away
from mixpeek_operator.ports.outbound import Answer, Call

KEY = "key-that-nobody-may-see"
DOCUMENTS = [{"document_id": str(index), "content": "e" * index, "score": 0.5} for index in range(1, 8)]


class Provider(ThreadingHTTPServer):
    """Scores a text by its length; answers in the shape of the path it is asked on."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.fault: tuple[int, Any] | None = None
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        status, answer = self.server.fault or (200, self._scores(body))
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _scores(self, body: dict[str, Any]) -> Any:
        scores = [{"index": index, "relevance_score": len(text) / 10} for index, text in enumerate(body["documents"])]
        scores.sort(key=lambda entry: -entry["relevance_score"])
        return {"data": scores} if "truncation" in body else {"results": scores}

    def log_message(self, format: str, *arguments: Any) -> None: ...


@pytest.fixture
def provider() -> Iterator[Provider]:
    server = Provider()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Reaching:
    """The real client, opened for one call, since each test has loops of its own."""

    async def send(self, call: Call) -> Answer:
        client = GuardedClient(allow_cidrs="127.0.0.0/8")
        try:
            return await client.send(call)
        finally:
            await client.close()


class Held:
    async def value(self, organization: str, name: str) -> str:
        if (organization, name) not in {("int_test", "cohere_api_key"), ("int_test", "mine")}:
            raise NotFoundError(f"no secret {name!r}")
        return KEY


def rerank(model: str, url: str, **parameters: Any) -> Any:
    given = {"query": "q", "model": model, "base_url": url, "top_n": 3, **parameters}
    return run("rerank", DOCUMENTS, given, outbound=Reaching(), secrets=Held())


@pytest.mark.parametrize(
    ("model", "sent", "options"),
    [
        ("cohere/rerank-v3.5", "rerank-v3.5", {}),
        ("cohere-rerank-v3", "rerank-multilingual-v3.0", {}),
        ("jina-reranker-v2", "jina-reranker-v2-base-multilingual", {"return_documents": False}),
        ("voyage/rerank-2.5", "rerank-2.5", {"truncation": True}),
        ("my-own", "my-own", {"return_documents": False}),
    ],
)
def test_each_provider_is_asked_in_its_way(provider: Provider, model: str, sent: str, options: dict[str, Any]) -> None:
    found = rerank(model, f"{provider.url}/v2/", secret_ref="mine")
    texts = [document["content"] for document in DOCUMENTS]
    body = {"model": sent, "query": "q", "documents": texts, **options}
    assert provider.asked == [("/v2/rerank", f"Bearer {KEY}", body)]
    assert [item["document_id"] for item in found] == ["7", "6", "5"]
    assert [item["score"] for item in found] == [0.7, 0.6, 0.5]
    assert found.metadata["model"].endswith(f"/{sent}")
    assert found.warnings == []


def test_batches_keep_the_order(provider: Provider) -> None:
    found = rerank("cohere/x", provider.url, batch_size=2, top_n=7)
    assert sorted(len(body["documents"]) for _, _, body in provider.asked) == [1, 2, 2, 2]
    assert [item["document_id"] for item in found] == ["7", "6", "5", "4", "3", "2", "1"]


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ((401, {"message": f"the key {KEY} is wrong"}), RefusedError, r"401 the key \*\*\* is wrong"),
        ((404, {"detail": "no such model"}), RefusedError, "no such model"),
        ((429, {}), RateLimitedError, "cohere"),
        ((500, {}), Away, "500"),
        ((200, {"results": [{"index": 0}]}), Away, "no list of scores"),
        ((200, []), Away, "no list of scores"),
    ],
)
def test_refusals_are_told_and_hold_no_key(
    provider: Provider, fault: tuple[int, Any], error: type[MixpeekError], says: str
) -> None:
    provider.fault = fault
    with pytest.raises(error, match=says) as caught:
        rerank("cohere/x", provider.url)
    assert KEY not in repr(caught.value)


def test_what_is_refused_before_anything_is_sent(provider: Provider) -> None:
    with pytest.raises(NotFoundError, match="voyage_api_key"):
        rerank("voyage/x", provider.url)
    with pytest.raises(SpecError, match=r"10\.1\.2\.3"):
        rerank("cohere/x", "http://10.1.2.3")
    assert provider.asked == []
