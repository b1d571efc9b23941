"""Taxonomies and clusters: declared, listed, changed, copied and deleted; not yet run."""

from __future__ import annotations

import re
from typing import Any

import mixpeek
import pytest
from mixpeek.exceptions import ApiException
from tests.system.conftest import Library, unique

URI = "mixpeek://text_extractor@v1/text_embedding"


@pytest.fixture(scope="module")
def retriever(library: Library) -> str:
    search = {"feature_uri": URI, "query": {"input_mode": "text", "value": "{{INPUT.query}}"}}
    body = {
        "retriever_name": unique("labels"),
        "collection_identifiers": ["sentences"],
        "input_schema": {"query": {"type": "text", "required": True}},
        "stages": [{"stage_name": "feature_search", "config": {"parameters": {"searches": [search]}}}],
    }
    answer = library.place.http.post("/v1/retrievers", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["retriever_id"])


def test_a_taxonomy_is_declared_listed_changed_copied_and_deleted(library: Library, retriever: str) -> None:
    taxonomies = mixpeek.TaxonomiesApi(library.place.api)
    prefix = unique("copied")
    config: dict[str, Any] = {
        "taxonomy_type": "flat",
        "retriever_id": retriever,
        "input_mappings": [{"input_key": "query", "source_type": "payload", "path": "text"}],
        "source_collection": {
            "collection_id": library.collection_id,
            "enrichment_fields": [{"field_path": "category"}],
        },
    }
    request = mixpeek.CreateTaxonomyRequest.from_dict(
        {"taxonomy_name": f"{prefix}_a", "config": config, "metadata": {"x": 1}}
    )
    assert request is not None
    made = taxonomies.create_taxonomy_taxonomies(request)
    assert re.fullmatch(r"tax_[a-zA-Z0-9]+", str(made.taxonomy_id))
    assert (made.retriever_id, made.metadata, made.version) == (retriever, {"x": 1}, 1)
    raw = library.place.http.get(f"/v1/taxonomies/{prefix}_a").json()
    assert raw["config"]["source_collection"]["collection_id"] == library.collection_id
    assert raw["config"]["retriever_id"] == retriever
    assert taxonomies.get_taxonomy_taxonomies(f"{prefix}_a").taxonomy_id == made.taxonomy_id
    patch = mixpeek.PatchTaxonomyRequest(description="changed")
    assert taxonomies.patch_taxonomy_taxonomies(str(made.taxonomy_id), patch).description == "changed"
    clone = mixpeek.CloneTaxonomyRequest(taxonomy_name=f"{prefix}_b")
    copy = taxonomies.clone_taxonomy_taxonomies(str(made.taxonomy_id), clone)
    assert (copy.taxonomy.taxonomy_name, copy.source_taxonomy_id) == (f"{prefix}_b", made.taxonomy_id)
    listing = mixpeek.ListTaxonomiesRequest(search=prefix)
    assert taxonomies.list_taxonomies_0(list_taxonomies_request=listing).total_count == 2
    assert len(library.place.http.get("/v1/taxonomies", params={"search": prefix}).json()["results"]) == 2
    run = library.place.http.post(f"/v1/taxonomies/{made.taxonomy_id}/execute", json={})
    assert run.status_code == 501
    assert run.json()["error"]["code"] == "not_implemented"
    # What it reads cannot go before it does.
    assert library.place.http.delete(f"/v1/retrievers/{retriever}").status_code == 409
    for name in (f"{prefix}_a", f"{prefix}_b"):
        taxonomies.delete_taxonomy_taxonomies(name)
    with pytest.raises(ApiException) as gone:
        taxonomies.get_taxonomy_taxonomies(str(made.taxonomy_id))
    assert gone.value.status == 404


CLUSTERS: list[dict[str, Any]] = [
    {"cluster_type": "vector", "vector_config": {"feature_uris": [URI], "clustering_method": "kmeans"}},
    {"cluster_type": "attribute", "attribute_config": {"attributes": ["category"]}},
]


@pytest.mark.parametrize("config", CLUSTERS)
def test_a_cluster_is_declared_listed_changed_and_deleted(library: Library, config: dict[str, Any]) -> None:
    clusters = mixpeek.ClustersApi(library.place.api)
    name = unique("cluster")
    request = mixpeek.CreateClusterRequest.from_dict(
        {"cluster_name": name, "collection_ids": [library.collection_id], **config}
    )
    assert request is not None
    made = clusters.create_cluster(request)
    assert re.fullmatch(r"clust_[a-zA-Z0-9]+", str(made.cluster_id))
    assert (made.namespace_id, made.input_collections) == (library.place.id, [library.collection_id])
    assert made.cluster_type == config["cluster_type"]
    assert clusters.get_cluster(name).cluster_id == made.cluster_id
    patch = mixpeek.PatchClusterRequest.from_dict({"description": "changed", "metadata": {"a": "b"}})
    assert patch is not None
    assert clusters.patch_cluster(str(made.cluster_id), patch).description == "changed"
    listing = mixpeek.ListClustersRequest(search=name)
    listed = clusters.list_clusters(list_clusters_request=listing)
    assert [item.cluster_id for item in listed.results] == [made.cluster_id]
    assert listed.total_count == 1
    assert len(clusters.list_clusters_get(search=name).results) == 1
    run = library.place.http.post(f"/v1/clusters/{made.cluster_id}/execute", json={})
    assert run.status_code == 501
    assert run.json()["error"]["details"]["retryable"] is False
    runs = mixpeek.ClusterExecutionsApi(library.place.api).list_cluster_executions(str(made.cluster_id))
    assert (runs.results, runs.total_count) == ([], 0)
    clusters.delete_cluster(str(made.cluster_id))
    with pytest.raises(ApiException) as gone:
        clusters.get_cluster(name)
    assert gone.value.status == 404


def test_running_what_does_not_exist_is_404(library: Library) -> None:
    for path in ("/v1/clusters/clust_none/execute", "/v1/taxonomies/tax_none/execute"):
        assert library.place.http.post(path, json={}).status_code == 404
