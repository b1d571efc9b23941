"""`cluster` finds groups that are there, for sure and always the same."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score
from tests.servers.language import Asked, Models, Reply, data
from tests.unit.retrieval.stages.running import LAWS, refused, run
from tests.unit.retrieval.stages.test_llm_filter import documents_of

from mixpeek_operator.core.errors import NotEnabledError
from mixpeek_operator.retrieval import embeddings

ALGORITHMS = ("kmeans", "hdbscan", "agglomerative")


def clouds(sizes: tuple[int, ...] = (12, 9, 7), seed: int = 3) -> list[dict[str, Any]]:
    """Documents around so many orthogonal directions, mixed."""
    chance = random.Random(seed)
    documents = []
    for cloud, size in enumerate(sizes):
        for index in range(size):
            vector = [chance.gauss(0, 0.05) + (axis == cloud) for axis in range(6)]
            documents.append({"document_id": f"{cloud}-{index}", "cloud": cloud, "vec": vector, "score": index / 20})
    chance.shuffle(documents)
    return documents


def cluster(documents: list[dict[str, Any]], **parameters: Any) -> Any:
    return run("cluster", documents, {"embedding_field": "vec", "num_clusters": 3, **parameters})


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_groups_that_are_there(algorithm: str) -> None:
    documents = clouds()
    found = cluster(documents, algorithm=algorithm, min_cluster_size=4)
    assert [item["cluster_id"] for item in found] == [0, 1, 2]
    assert [item["size"] for item in found] == [12, 9, 7]
    for item in found:
        assert {member["cloud"] for member in item["documents"]} == {item["cluster_id"]}
        rows = np.array([member["vec"] for member in item["documents"]])
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        np.testing.assert_allclose(item["centroid"], rows.mean(axis=0))
        distances = [member["cluster"]["distance_to_centroid"] for member in item["documents"]]
        np.testing.assert_allclose(distances, np.linalg.norm(rows - rows.mean(axis=0), axis=1), atol=1e-12)
        assert distances == sorted(distances)
        assert item["document_id"] == item["documents"][0]["document_id"]
    assert found.metadata == {
        "algorithm": algorithm,
        "num_clusters": 3,
        "total_documents": 28,
        "clustered_documents": 28,
        "outlier_count": 0,
    }
    labeled = cluster(documents, algorithm=algorithm, min_cluster_size=4, output_mode="labeled")
    assert [item["document_id"] for item in labeled] == [item["document_id"] for item in documents]
    assert (
        adjusted_rand_score([item["cloud"] for item in documents], [item["cluster"]["cluster_id"] for item in labeled])
        == 1.0
    )
    assert cluster(documents, algorithm=algorithm, min_cluster_size=4) == found


VECTORS = st.lists(st.tuples(*[st.integers(-2, 2).map(float)] * 2).map(list) | st.none(), max_size=14)


@LAWS
@given(VECTORS, st.sampled_from(ALGORITHMS), st.integers(1, 4), st.integers(1, 3))
def test_each_document_is_in_one_cluster(vectors: list[Any], algorithm: str, wanted: int, least: int) -> None:
    documents = [{"document_id": str(index), "vec": vector} for index, vector in enumerate(vectors)]
    parameters = {"algorithm": algorithm, "num_clusters": wanted, "min_cluster_size": least}
    found = cluster(documents, **parameters)
    members = [member["document_id"] for item in found for member in item["documents"]]
    assert sorted(members) == sorted(item["document_id"] for item in documents)
    real = [item for item in found if item["cluster_id"] >= 0]
    assert all(item["size"] >= least for item in real)
    assert algorithm == "hdbscan" or len(real) <= wanted
    assert cluster(documents, include_outliers=False, **parameters) == real
    assert len(cluster(documents, output_mode="representatives", **parameters)) == len(real)


def test_outliers_say_why() -> None:
    documents = [
        *clouds((6, 5)),
        {"document_id": "alone", "vec": [0.0, 0.0, 0.0, 0.0, 0.0, -1.0]},
        {"document_id": "bare"},
    ]
    found = cluster(documents)
    assert [(item["cluster_id"], item["size"]) for item in found] == [(0, 6), (1, 5), (-1, 2)]
    reasons = {item["document_id"]: item["cluster"]["outlier_reason"] for item in found[-1]["documents"]}
    assert reasons == {"alone": "too_far_or_too_few", "bare": "no_vector"}
    assert "1 of 13 documents have no vector 'vec'" in found.warnings[0]
    labeled = cluster(documents, output_mode="labeled", include_outliers=False)
    assert len(labeled) == 11


def test_fewer_members_and_no_centroids() -> None:
    found = cluster(clouds(), max_members_per_cluster=2, include_centroids=False)
    assert [(item["size"], len(item["documents"]), "centroid" in item) for item in found] == [
        (12, 2, False),
        (9, 2, False),
        (7, 2, False),
    ]


def test_fewer_documents_than_clusters() -> None:
    assert cluster([]) == []
    one = [{"document_id": "1", "vec": [1.0, 0.0]}]
    assert [item["size"] for item in cluster(one * 4, num_clusters=9, min_cluster_size=1)] == [4]
    assert [item["cluster_id"] for item in cluster(one)] == [-1]
    assert [item["cluster_id"] for item in cluster([{"document_id": "1"}], algorithm="hdbscan")] == [-1]


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "find_spec", lambda name: None)
    compilation: Any = None
    with pytest.raises(NotEnabledError, match=r"needs sklearn; install mixpeek-operator\[models\]"):
        embeddings.check(None, compilation, package="sklearn")


async def test_behind_a_search_and_before_a_sample(world: Any) -> None:
    products = [
        {**item, "document_id": f"c{index}", "vector": [*item["vec"], 0.0, 0.0]}
        for index, item in enumerate(clouds((20, 15, 10)))
    ]
    world.add_collection("clouds")
    await world.put("clouds", products)
    search = {
        "stage_id": "feature_search",
        "parameters": {
            "searches": [{"feature_uri": "mixpeek://text_extractor@v1/text_embedding", "query": [1.0] * 8}],
            "final_top_k": 100,
        },
    }
    labeled = {"stage_id": "cluster", "parameters": {"num_clusters": 3, "output_mode": "labeled"}}
    sample = {
        "stage_id": "sample",
        "parameters": {"method": "stratified", "group_field": "cluster.cluster_id", "samples_per_group": 2, "seed": 1},
    }
    found = (await world.run([search, labeled, sample], collections=("clouds",)))["documents"]
    assert len(found) == 6
    assert {(item["cluster"]["cluster_id"], item["cloud"]) for item in found} == {(0, 0), (1, 1), (2, 2)}


async def test_near_duplicates_by_vector(world: Any) -> None:
    copies = [
        {"document_id": "original", "title": "a", "vector": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]},
        {"document_id": "scaled", "title": "a", "vector": [2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0]},
        {"document_id": "near", "title": "a", "vector": [1.1, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]},
        {"document_id": "other", "title": "a", "vector": [-1.0, 2.0, -3.0, 4.0, -5.0, 6.0, -7.0, 8.0]},
    ]
    world.add_collection("copies")
    await world.put("copies", copies)

    async def ids(**parameters: Any) -> list[str]:
        stage = {"stage_id": "deduplicate", "parameters": {"strategy": "embedding", **parameters}}
        order = {"stage_id": "sort_attribute", "parameters": {"field": "document_id", "direction": "desc"}}
        answer = await world.run([order, stage], collections=("copies",))
        return [item["document_id"] for item in answer["documents"]]

    assert await ids() == ["scaled", "other"]
    assert await ids(keep="last") == ["other", "near"]
    assert await ids(similarity_threshold=1.0) == ["scaled", "other", "near"]


def test_refused() -> None:
    refused("cluster", {"algorithm": "spectral"}, "kmeans")
    refused("cluster", {"num_cluster": 3}, "did you mean 'num_clusters'")
    refused("cluster", {"num_clusters": float("nan")}, "finite number")


LABELED = {"num_clusters": 3, "label_clusters": True, "content_field": "title", "output_mode": "clusters"}


async def test_a_model_names_the_clusters(speaking: Any, models: Models) -> None:
    def name(asked: Asked) -> Reply:
        texts = documents_of(asked)
        return data({f"document_{index}": text.split("\n")[0] for index, text in enumerate(texts, start=1)})

    models.script = [name]
    answer = await speaking.run([{"stage_id": "cluster", "parameters": LABELED}])
    assert len(answer["documents"]) == 3
    for cluster in answer["documents"]:
        assert cluster["label"] == cluster["documents"][0]["title"]
        assert {item["cluster"]["label"] for item in cluster["documents"]} == {cluster["label"]}
    assert len(models.asked) == 1
    assert answer["budget"]["credits_used"] > 0


async def test_clusters_keep_their_numbers_when_the_model_fails(speaking: Any, models: Models) -> None:
    models.script = [Reply(status=503)]
    answer = await speaking.run([{"stage_id": "cluster", "parameters": LABELED}])
    assert [cluster["label"] for cluster in answer["documents"]] == ["cluster 0", "cluster 1", "cluster 2"]
    assert "named by number" in answer["warnings"][0]
