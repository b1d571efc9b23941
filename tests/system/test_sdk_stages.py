"""Rerank, code and taxonomies through a live server, with the parameters that the public SDK sends."""

from __future__ import annotations

import sys
from typing import Any

import mixpeek
import pytest
from tests.system.conftest import Library, unique

URI = "mixpeek://text_extractor@v1/text_embedding"
SEARCH = {
    "stage_id": "feature_search",
    "parameters": {"searches": [{"feature_uri": URI, "query": "{{INPUT.query}}"}], "final_top_k": 6},
}
QUERY = "a meal that is still warm"


def run(library: Library, *stages: dict[str, Any]) -> dict[str, Any]:
    body = {
        "collection_identifiers": ["sentences"],
        "input_schema": {"query": {"type": "text"}},
        "stages": [SEARCH, *stages],
        "inputs": {"query": QUERY},
    }
    answer = library.place.http.post("/v1/retrievers/execute", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_rerank_by_the_default(library: Library) -> None:
    parameters = mixpeek.StageParamsRerank(inference_name="default", top_k=3).to_dict()
    answer = run(library, {"stage_id": "rerank", "parameters": parameters})
    documents = answer["documents"]
    assert len(documents) == 3
    assert "Soup stays hot" in documents[0]["text"]
    assert [item["rerank_position"] for item in documents] == [1, 2, 3]
    assert documents[0]["scores"]["rerank"] == documents[0]["score"] == pytest.approx(documents[0]["original_score"])
    told = answer["stage_statistics"]["stages"]["rerank"]["metadata"]
    assert (told["method"], told["model"].partition("@")[0]) == ("bi_encoder", "all-MiniLM-L6-v2")
    assert any("embedding model" in warning for warning in answer["warnings"])


def test_a_model_that_is_not_there_says_what_to_do(library: Library) -> None:
    body = {
        "collection_identifiers": ["sentences"],
        "stages": [SEARCH, {"stage_id": "rerank", "parameters": {"model": "bge-reranker-v2-m3", "query": QUERY}}],
        "inputs": {"query": QUERY},
    }
    answer = library.place.http.post("/v1/retrievers/execute", json=body)
    assert answer.status_code == 503
    assert "MIXPEEK_MODEL_PATH" in answer.text


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: seccomp isolates the code")
def test_code(library: Library) -> None:
    parameters = mixpeek.StageParamsCodeExecution(
        code="result = [{'words': len(d['text'].split())} for d in docs]", output_field="counted"
    ).to_dict()
    documents = run(library, {"stage_id": "code_execution", "parameters": parameters})["documents"]
    assert [item["counted"] for item in documents] == [{"words": len(item["text"].split())} for item in documents]
    escape = "import sys\ndef transform(doc): return sys.modules['os'].listdir('/')"
    answer = library.place.http.post(
        "/v1/retrievers",
        json={
            "retriever_name": unique("escape"),
            "collection_identifiers": ["sentences"],
            "stages": [{"stage_id": "code_execution", "parameters": {"code": escape}}],
        },
    )
    assert answer.status_code == 422
    assert "imports sys" in answer.text


def test_a_taxonomy_labels_while_searching(library: Library) -> None:
    http = library.place.http
    lookup, name = unique("lookup"), unique("nearest")
    search = {"searches": [{"feature_uri": URI, "query": "{{INPUT.text}}"}]}
    declared = {
        "retriever_name": lookup,
        "collection_identifiers": ["sentences"],
        "input_schema": {"text": {"type": "text", "required": True}},
        "stages": [{"stage_id": "feature_search", "parameters": search}],
    }
    http.post("/v1/retrievers", json=declared).raise_for_status()
    config = {
        "taxonomy_type": "flat",
        "retriever_id": lookup,
        "input_mappings": [{"input_key": "text", "source_type": "payload", "path": "text"}],
        "source_collection": {
            "collection_id": "sentences",
            "enrichment_fields": [{"field_path": "category", "target_field": "label.category"}],
        },
    }
    http.post("/v1/taxonomies", json={"taxonomy_name": name, "config": config}).raise_for_status()
    parameters = mixpeek.StageParamsTaxonomyEnrich(taxonomy_id=name, min_score=0.9).to_dict()
    documents = run(library, {"stage_id": "taxonomy_enrich", "parameters": parameters})["documents"]
    assert len(documents) == 6
    for document in documents:
        # Each sentence is its own best label.
        assert document["taxonomy"]["primary"]["document_id"] == document["document_id"]
        assert document["label"] == {"category": document["category"]}
