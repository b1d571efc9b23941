"""Retrievers that call a language model, end to end: a real server, the public SDK, a scripted model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import mixpeek
import pytest
from tests.servers.language import Asked, Models, Reply, data
from tests.servers.mixpeek import KEY, Server, apply, serving
from tests.system.conftest import ENDED, TEXTS, eventually
from tests.unit.retrieval.stages.test_llm_filter import documents_of

pytest.importorskip("torch", reason="needs mixpeek-operator[models]")
pytest.importorskip("pydantic_ai", reason="needs the extra llm")

MANIFEST = """
version: "1.0"
metadata: {name: talk}
namespaces: [{name: talk, feature_extractors: [{name: text_extractor, version: v1}]}]
buckets: [{name: texts, namespace: talk, schema: {properties: {text: {type: text, required: true}}}}]
collections:
  - name: texts
    namespace: talk
    source: {type: bucket, bucket_ids: [texts]}
    feature_extractor:
      feature_extractor_name: text_extractor
      version: v1
      input_mappings: {text: text}
      field_passthrough: [{source_path: text}]
retrievers:
  - name: answer
    namespace: talk
    collection_identifiers: [texts]
    input_schema: {query: {type: text, required: true}}
    stages:
      - stage_id: feature_search
        parameters:
          feature_uri: mixpeek://text_extractor@v1/text_embedding
          query: {input_mode: text, value: "{{INPUT.query}}"}
      - stage_id: llm_filter
        parameters:
          criteria: "Keep what helps with {{INPUT.query}}."
          content_field: text
          api_key: "${{ secrets.my_model_key }}"
          provider: anthropic
      - stage_id: summarize
        parameters: {prompt: "Answer {{INPUT.query}}", content_field: text}
"""
SECRET = "sk-of-mine-0123456789"


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    made = Models()
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {f"MIXPEEK_{name.upper()}": value for name, value in models.settings("openai", "anthropic").items()}
    with serving(tmp_path_factory.mktemp("language"), **settings) as running:
        yield running


def answers(asked: Asked) -> Reply:
    """Keeps what mentions the night; answers from what it is given."""
    if "answer" not in asked.tools:
        return Reply("Look at the moon map [1].")
    texts = documents_of(asked)
    return data({f"document_{index}": {"keep": "night" in text} for index, text in enumerate(texts, start=1)})


@pytest.mark.slow
def test_a_pipeline_filters_and_answers(server: Server, models: Models) -> None:
    models.script = [answers]
    headers = {**server.headers, "X-Namespace": "talk"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=120) as http:
        http.post("/v1/organizations/secrets", json={"secret_name": "my_model_key", "secret_value": SECRET})
        apply(http, MANIFEST)
        _ingest(http)
        api = mixpeek.ApiClient(mixpeek.Configuration(host=server.url, access_token=KEY))
        api.default_headers["X-Namespace"] = "talk"
        request: Any = mixpeek.ExecuteRetrieverRequest.from_dict({"inputs": {"query": "seeing at night"}})
        made = mixpeek.RetrieversApi(api).execute_retriever("answer", execute_retriever_request=request)
        body = json.loads(made.to_json())
        (document,) = body["documents"]
        assert document["summary"] == "Look at the moon map [1]."
        assert len(document["citations"]) == 1
        assert document["document_count"] == 1
        assert body["budget"]["credits_used"] > 1
        judge, writer = models.asked
        assert (judge.provider, judge.key) == ("anthropic", SECRET)
        assert (writer.provider, writer.key) == ("openai", "sk-openai")
        assert documents_of(writer) == ["The moon map glows above the bed at night"]
        shown = [
            http.get("/v1/retrievers/answer").text,
            http.get("/v1/manifest/export").text,
            http.get("/v1/retrievers/answer/executions").text,
            (server.data / "server.log").read_text(),
        ]
        assert not [text for text in shown if SECRET in text or "sk-openai" in text]


@pytest.mark.slow
def test_a_manifest_is_written_by_the_model(server: Server, models: Models) -> None:
    models.script = [Reply(f"```yaml\n{MANIFEST}```")]
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=120) as http:
        made = http.post("/v1/manifest/generate", params={"description": "search my texts"}).raise_for_status()
    assert "my_model_key" in made.text


def _ingest(http: httpx.Client) -> None:
    objects = [{"text": text} for text, *_ in TEXTS]
    made = http.post("/v1/buckets/texts/objects/batch", json={"objects": objects}).raise_for_status().json()
    ids = [item["object_id"] for item in made["succeeded"]]
    batch = http.post("/v1/buckets/texts/batches", json={"object_ids": ids}).raise_for_status().json()
    path = f"/v1/buckets/texts/batches/{batch['batch_id']}"
    http.post(f"{path}/submit", json={}).raise_for_status()
    assert eventually(lambda: http.get(path).json()["status"] in ENDED)
    assert http.get(path).json()["status"] == "COMPLETED"
