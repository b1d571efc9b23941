"""Generation against a local server that speaks the chat completions protocol."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mixpeek_operator.core.errors import BadRequestError, RateLimitedError, RefusedError, SpecError, UnavailableError
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.manifest.generate import Generator
from mixpeek_operator.manifest.registry import schemas


class Model:
    """Answers with what it was told to, one after the other, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == "/v1/chat/completions"
                model.requests.append((dict(self.headers), body))
                answer = model.answers[min(len(model.requests), len(model.answers)) - 1]
                status = answer if isinstance(answer, int) else 200
                reply = {"choices": [{"index": 0, "message": {"role": "assistant", "content": answer}}]}
                payload = json.dumps(reply if status == 200 else {"error": {"message": "no"}}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, format: str, *args: Any) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def model() -> Iterator[Model]:
    made = Model()
    yield made
    made.close()


def _service(world, **settings):
    made = Settings(**settings)
    return world.service(generator=Generator(settings=made, schemas=schemas(), catalog=world.catalog))


def _generate(service):
    return service.generate("int_test", "search my products", manifest_name="shop")


async def test_a_good_answer_is_returned(world, manifest, model):
    model.answers = [f"Here it is:\n```yaml\n{manifest}```\nEnjoy."]
    service = _service(world, llm_base_url=model.url, llm_model="m", llm_api_key="sk-very-secret")

    text = await _generate(service)

    assert text == manifest
    headers, body = model.requests[0]
    assert headers["Authorization"] == "Bearer sk-very-secret"
    assert body["model"] == "m"
    assert "text_extractor" in body["messages"][0]["content"] and "feature_search" in body["messages"][0]["content"]
    assert await world.all() == {}


async def test_a_wrong_answer_is_sent_back_with_its_problems(world, manifest, model):
    model.answers = [manifest.replace("bucket_ids: [products]", "bucket_ids: [product]"), manifest]

    text = await _generate(_service(world, llm_base_url=model.url, llm_model="m"))

    assert text == manifest
    complaint = model.requests[1][1]["messages"][-1]["content"]
    assert "did you mean 'products'" in complaint


async def test_after_three_wrong_answers_the_problems_are_reported(world, model):
    model.answers = ["buckets: {a: b"]

    with pytest.raises(SpecError) as caught:
        await _generate(_service(world, llm_base_url=model.url, llm_model="m"))

    assert caught.value.code == "generation_failed" and caught.value.problems
    assert len(model.requests) == 3


async def test_without_a_model_it_says_what_to_set(world):
    with pytest.raises(BadRequestError) as caught:
        await _generate(_service(world))

    assert caught.value.code == "no_model_configured"
    assert "MIXPEEK_LLM_BASE_URL" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "error"), [(401, RefusedError), (429, RateLimitedError), (500, UnavailableError), (404, RefusedError)]
)
async def test_a_refusal_of_the_model_is_mapped(world, model, status, error):
    model.answers = [status]

    with pytest.raises(error) as caught:
        await _generate(_service(world, llm_base_url=model.url, llm_model="m", llm_api_key="sk-very-secret"))

    assert "sk-very-secret" not in str(caught.value)


async def test_a_model_that_is_away_is_named(world):
    with pytest.raises(UnavailableError) as caught:
        await _generate(_service(world, llm_base_url="http://127.0.0.1:9/v1", llm_model="m"))

    assert caught.value.code == "model_unreachable"
