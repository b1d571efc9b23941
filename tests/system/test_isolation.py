"""Ids of one namespace are nothing to another: every route of the OpenAPI document that takes an id is tried."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from tests.servers.mixpeek import Server
from tests.system.conftest import Library, Place

OF_ORGANIZATION = ("/v1/namespaces", "/v1/organizations", "/v1/resources", "/v1/tasks", "/v1/blobs", "/v1/manifest")
"""Paths whose ids are not a namespace's: the organization's, or links that are credentials themselves."""
CATALOG = {"feature_extractor_id", "extractor_id", "stage_id"}
"""Parameters that name what every namespace shares."""
HARMLESS = ("DELETE /v1/retrievers/interactions/{interaction_id}",)
"""Routes that answer 200 where there is nothing, and say that there was nothing."""
UPDATES = {"description": "taken over"}
BODIES: dict[str, Any] = {
    "POST objects": {"text": "a", "object_ids": ["obj_a"]},
    "POST batch": {
        "objects": [{"text": "a"}],
        "updates": [{"document_id": "doc_a", "update_data": {"a": 1}}],
        "uploads": [{"filename": "text.txt", "content_type": "text/plain"}],
        "confirmations": [{"upload_id": "upl_a"}],
        "queries": [{"inputs": {"query": "soup"}}],
    },
    "PATCH {batch_id}": {"batch_name": "taken over"},
    "POST aggregate": {"group_by": [], "aggregations": [{"function": "count", "alias": "n"}]},
    "POST distinct": {"field": "category"},
    "POST uploads": {"filename": "text.txt", "content_type": "text/plain"},
    "POST execute": {"inputs": {"query": "soup"}},
    "POST evaluations": {"dataset_name": "isolated"},
    "POST clone": {"name": "taken_over"},
    "DELETE batch": {"document_ids": ["doc_a"]},
    "PATCH bulk": {"update_data": {"a": 1}},
}


@pytest.fixture(scope="module")
def ids(library: Library) -> dict[str, str]:
    """An id of the library for every path parameter; a route with a new one asks for a line here."""
    http = library.place.http
    bucket = f"/v1/buckets/{library.bucket_id}"
    documents = f"/v1/collections/{library.collection_id}/documents"
    retriever = http.post(
        "/v1/retrievers",
        json={
            "retriever_name": "isolated",
            "collection_identifiers": [library.collection_name],
            "stages": [
                {
                    "stage_name": "some",
                    "stage_type": "filter",
                    "config": {
                        "stage_id": "attribute_filter",
                        "parameters": {"field": "category", "operator": "eq", "value": "toys"},
                    },
                }
            ],
        },
    ).json()
    retriever_id = retriever.get("retriever", retriever)["retriever_id"]
    execution = http.post(f"/v1/retrievers/{retriever_id}/execute", json={}).json()
    upload = http.post(f"{bucket}/uploads", json={"filename": "text.txt", "content_type": "text/plain"}).json()
    interaction = http.post(
        "/v1/retrievers/interactions", json={"feature_id": "doc_a", "interaction_type": ["click"], "position": 0}
    ).json()
    query = {"query_id": "q", "query_input": {}, "relevant_documents": ["doc_a"]}
    dataset = http.post(
        "/v1/retrievers/evaluations/datasets", json={"dataset_name": "isolated", "queries": [query]}
    ).json()
    evaluation = http.post(f"/v1/retrievers/{retriever_id}/evaluations", json={"dataset_name": "isolated"}).json()
    other = http.post(f"/v1/retrievers/{retriever_id}/clone", json={"retriever_name": "isolated_2"}).json()
    other_id = other.get("retriever", other)["retriever_id"]
    runs = {"benchmark_name": "b", "baseline_retriever_id": retriever_id, "candidate_retriever_ids": [other_id]}
    found = {
        "interaction": interaction["interaction_id"],
        "dataset": dataset["dataset_id"],
        "evaluation": evaluation["evaluation_id"],
        "benchmark": http.post("/v1/retrievers/benchmarks", json=runs).json()["benchmark_id"],
        "bucket": library.bucket_id,
        "collection": library.collection_id,
        "retriever": retriever_id,
        "execution": execution["execution_id"],
        "object": library.object_ids[0],
        "document": http.post(f"{documents}/list", json={}).json()["results"][0]["document_id"],
        "batch": http.post(f"{bucket}/batches/list", json={}).json()["results"][0]["batch_id"],
        "upload": upload["upload_id"],
        # None of these exists here: their names are unknown to every namespace.
        "taxonomy": "tax_none",
        "cluster": "clust_none",
    }
    return {f"{kind}_{end}": id for kind, id in found.items() for end in ("id", "identifier")}


def routes(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Return method and path of every route that takes an id of a namespace's resources."""
    return [
        (method.upper(), path)
        for path, methods in document["paths"].items()
        if "{" in path and not path.startswith(OF_ORGANIZATION)
        for method in methods
        if set(re.findall(r"{(\w+)}", path)) - CATALOG
    ]


def ask(http: httpx.Client, method: str, template: str, path: str) -> httpx.Response:
    body = None
    if method != "GET":
        last = template.rsplit("/", 1)[-1]
        body = BODIES.get(f"{method} {last}", UPDATES if method in ("PUT", "PATCH") else {})
    return http.request(method, path, json=body)


def test_ids_of_another_namespace_are_not_found(
    live: Server, library: Library, elsewhere: Place, ids: dict[str, str]
) -> None:
    document = httpx.get(f"{live.url}/openapi.json").json()
    before = library.place.http.get("/v1/manifest/export").text
    asked = routes(document)
    assert len(asked) > 50
    wrong = []
    for method, template in asked:
        names = re.findall(r"{(\w+)}", template)
        assert set(names) <= set(ids) | CATALOG, f"say in `ids` what {names} of {template} is"
        path = template.format(**ids)
        answer = ask(elsewhere.http, method, template, path)
        if f"{method} {template}" in HARMLESS:
            assert answer.json()["deleted"] is False
            assert library.place.http.get(path).status_code == 200
        elif answer.status_code != 404 or answer.json()["error"]["type"] != "NotFoundError":
            wrong.append(f"{method} {template}: {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)
    assert library.place.http.get("/v1/manifest/export").text == before
    # The same ids are found at home, so the 404s above are not about spelling.
    for kind in ("bucket", "collection", "retriever"):
        assert library.place.http.get(f"/v1/{kind}s/{ids[f'{kind}_id']}").status_code == 200


@pytest.mark.parametrize("kind", ["buckets", "collections", "retrievers"])
def test_names_of_another_namespace_are_not_found(library: Library, elsewhere: Place, kind: str) -> None:
    listed = library.place.http.post(f"/v1/{kind}/list", json={}).json()["results"]
    foreign = {item[f"{kind[:-1]}_id"] for item in listed}
    mine = elsewhere.http.post(f"/v1/{kind}/list", json={"limit": 1000}).json()["results"]
    assert not foreign & {item[f"{kind[:-1]}_id"] for item in mine}
    for item in listed:
        assert elsewhere.http.get(f"/v1/{kind}/{item[f'{kind[:-1]}_name']}").status_code == 404


def test_bodies_cannot_reach_into_another_namespace(library: Library, elsewhere: Place, ids: dict[str, str]) -> None:
    extractor = {"feature_extractor_name": "text_extractor", "version": "v1", "input_mappings": {"text": "text"}}
    mine = str(elsewhere.bucket().bucket_id)
    bodies: list[tuple[str, dict[str, Any]]] = [
        (
            "/v1/collections",
            {
                "collection_name": "thief",
                "source": {"type": "bucket", "bucket_ids": [library.bucket_id]},
                "feature_extractor": extractor,
            },
        ),
        (
            "/v1/retrievers",
            {"retriever_name": "thief", "collection_identifiers": [library.collection_id], "stages": []},
        ),
        ("/v1/retrievers/execute", {"collection_identifiers": [library.collection_id], "stages": []}),
        (f"/v1/buckets/{mine}/batches", {"object_ids": [library.object_ids[0]]}),
        (f"/v1/buckets/{mine}/objects", {"text": "a", "blobs": [{"property": "text", "upload_id": ids["upload_id"]}]}),
    ]
    for path, body in bodies:
        answer = elsewhere.http.post(path, json=body)
        assert answer.status_code in (404, 422), f"{path}: {answer.text}"
    assert elsewhere.http.get("/v1/collections/thief").status_code == 404
    assert elsewhere.http.get("/v1/retrievers/thief").status_code == 404
