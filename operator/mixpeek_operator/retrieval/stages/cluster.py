"""Group documents whose vectors are alike, by scikit-learn; a language model can name the groups."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import AliasChoices, Field

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.core.errors import RateLimitedError, RefusedError, UnavailableError
from mixpeek_operator.retrieval import embeddings
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.stage import Compilation, Context, Documents, Stage, State
from mixpeek_operator.retrieval.stages import _language

OUTLIER: Final = -1
_OUTLIERS: Final = "outliers"
_SAMPLES: Final = 5
_SAMPLE_TOKENS: Final = 80
_NAMED_AT_ONCE: Final = 25
_ASK: Final = (
    "Each document below holds samples of one group of a search's results. Name each group by two to five words that "
    "say what its samples share and that tell it from the other groups."
)
_Clusters = Annotated[int, Field(ge=1, le=1000)]
_Size = Annotated[int, Field(ge=1, le=10_000)]
_Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Params(_language.ContentParams):
    """Parameters of `cluster`; `n_clusters` and `feature_uri` are accepted as well."""

    num_clusters: Late[_Clusters] = Field(
        default=5,
        validation_alias=AliasChoices("num_clusters", "n_clusters"),
        description="Clusters of kmeans and agglomerative; fewer when there are fewer different documents.",
        examples=[3],
    )
    embedding_field: Late[str] | None = Field(
        default=None,
        validation_alias=AliasChoices("embedding_field", "feature_uri"),
        description=embeddings.FIELD,
    )
    algorithm: Late[Literal["kmeans", "hdbscan", "agglomerative"]] = Field(
        default="kmeans",
        description="hdbscan finds the number of clusters itself. Vectors are compared by direction (cosine).",
        examples=["kmeans"],
    )
    min_cluster_size: Late[_Size] = Field(
        default=2, description="Fewest documents of a cluster; those of smaller ones are outliers.", examples=[2]
    )
    include_outliers: Late[bool] = Field(
        default=True,
        description="Whether documents of no cluster stay: with clusters as a last one, of cluster_id -1.",
        examples=[True],
    )
    label_clusters: bool = Field(
        default=False,
        description=(
            "Whether the language model names each cluster after the documents nearest to its centre. When the model "
            "does not answer, clusters are named by number, with a warning."
        ),
        examples=[False],
    )
    output_mode: Late[Literal["clusters", "labeled", "representatives"]] = Field(
        default="clusters",
        description=(
            "clusters: one document for each cluster, {cluster_id, label, size, centroid, documents}, largest first, "
            "with the id, collection and score of the one nearest to its centre. labeled: the documents, each with "
            "cluster {cluster_id, label, distance_to_centroid}. representatives: of these the nearest of each cluster."
        ),
        examples=["clusters"],
    )
    include_centroids: Late[bool] = Field(
        default=True, description="Whether clusters have their centroid, the mean of their directions."
    )
    max_members_per_cluster: Late[_Size] | None = Field(
        default=None, description="Most documents of a cluster, nearest to its centre first; size counts all."
    )
    seed: Late[_Seed] = Field(default=0, description="Where kmeans starts: the same seed, the same clusters.")


@dataclass(slots=True)
class _Cluster:
    id: int
    members: list[int]
    """Positions of its documents, nearest first."""
    distances: list[float]
    centroid: Any
    label: str


async def prepare(params: Params, compilation: Compilation) -> None:
    """Check what can be checked before documents are there. Raises SpecError, NotEnabledError."""
    embeddings.check(params.embedding_field, compilation, package="sklearn")


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the clusters, or the documents with the cluster of each."""
    names, documents = context.names, state.documents
    if not documents:
        return []
    found = await embeddings.of(documents, params.embedding_field, context, "cluster")
    algorithm = known(params.algorithm, names, "algorithm")
    clusters = await asyncio.to_thread(
        _clusters,
        found,
        algorithm,
        known(params.num_clusters, names, "num_clusters"),
        known(params.min_cluster_size, names, "min_cluster_size"),
        known(params.seed, names, "seed"),
    )
    if params.label_clusters and clusters:
        await _name(clusters, state, params, context)
    inside = {position for cluster in clusters for position in cluster.members}
    outliers = [position for position in range(len(documents)) if position not in inside]
    state.metadata.update(
        algorithm=algorithm,
        num_clusters=len(clusters),
        total_documents=len(documents),
        clustered_documents=len(inside),
        outlier_count=len(outliers),
    )
    labeled = _labeled(documents, clusters, outliers, found.known)
    if not known(params.include_outliers, names, "include_outliers"):
        outliers = []
    mode = known(params.output_mode, names, "output_mode")
    if mode == "labeled":
        return [labeled[position] for position in sorted([*inside, *outliers])]
    if mode == "representatives":
        return [labeled[cluster.members[0]] for cluster in clusters]
    most = None if params.max_members_per_cluster is None else known(params.max_members_per_cluster, names)
    centroids = known(params.include_centroids, names, "include_centroids")
    made = [
        {
            **_own(documents[cluster.members[0]]),
            "cluster_id": cluster.id,
            "label": cluster.label,
            "size": len(cluster.members),
            **({"centroid": cluster.centroid.tolist()} if centroids else {}),
            "documents": [labeled[position] for position in cluster.members[:most]],
        }
        for cluster in clusters
    ]
    if outliers:
        rest = {"cluster_id": OUTLIER, "label": _OUTLIERS, "size": len(outliers)}
        made.append(
            {**_own(documents[outliers[0]]), **rest, "documents": [labeled[position] for position in outliers[:most]]}
        )
    return made


def _clusters(found: embeddings.Embeddings, algorithm: str, wanted: int, least: int, seed: int) -> list[_Cluster]:
    """The clusters of at least `least` documents, largest first, equal ones by their first documents."""
    import numpy as np

    rows = found.unit()
    positions = np.flatnonzero(found.known)
    if len(positions) == 0:
        return []
    labels = _labels(rows[positions], algorithm, wanted, least, seed)
    groups = [positions[labels == label] for label in np.unique(labels) if label >= 0]
    groups = sorted((group for group in groups if len(group) >= least), key=lambda group: (-len(group), group[0]))
    clusters = []
    for id, group in enumerate(groups):
        centroid = rows[group].mean(axis=0)
        distances = np.linalg.norm(rows[group] - centroid, axis=1)
        order = np.lexsort((group, distances))
        clusters.append(_Cluster(id, group[order].tolist(), distances[order].tolist(), centroid, f"cluster {id}"))
    return clusters


def _labels(rows: Any, algorithm: str, wanted: int, least: int, seed: int) -> Any:
    """A label for each row, -1 for none."""
    import numpy as np
    from sklearn.cluster import HDBSCAN, AgglomerativeClustering, KMeans  # type: ignore[import-untyped]

    if algorithm == "hdbscan":
        size = max(2, least)
        if len(rows) < size:
            return np.full(len(rows), OUTLIER)
        return HDBSCAN(min_cluster_size=size, copy=True).fit_predict(rows)
    count = min(wanted, len(np.unique(rows, axis=0)))
    if count == 1:
        return np.zeros(len(rows), dtype=int)
    if algorithm == "agglomerative":
        return AgglomerativeClustering(n_clusters=count).fit_predict(rows)
    return KMeans(n_clusters=count, n_init=10, random_state=seed).fit_predict(rows)


def _labeled(
    documents: Documents, clusters: list[_Cluster], outliers: list[int], known_vectors: Any
) -> dict[int, dict[str, Any]]:
    labeled = {
        position: {
            **documents[position],
            "cluster": {"cluster_id": cluster.id, "label": cluster.label, "distance_to_centroid": distance},
        }
        for cluster in clusters
        for position, distance in zip(cluster.members, cluster.distances, strict=True)
    }
    for position in outliers:
        reason = "too_far_or_too_few" if known_vectors[position] else "no_vector"
        own = {"cluster_id": OUTLIER, "label": _OUTLIERS, "outlier_reason": reason}
        labeled[position] = {**documents[position], "cluster": own}
    return labeled


async def _name(clusters: list[_Cluster], state: State, params: Params, context: Context) -> None:
    """Have the model name the clusters, many in one call, so that it tells them apart."""
    caller = _language.Caller("cluster", params, state, context)
    field = known(params.content_field, context.names, "content_field")

    async def label(batch: Sequence[_Cluster]) -> Sequence[Any]:
        samples = [[state.documents[position] for position in cluster.members[:_SAMPLES]] for cluster in batch]
        texts = [
            "\n---\n".join(_language.text_of(document, field, _SAMPLE_TOKENS) for document in documents)
            for documents in samples
        ]
        answer = await caller.ask(
            _language.with_instructions([_ASK] * len(texts), texts),
            system=_language.DATA,
            schema=_language.for_each(len(texts), {"type": "string", "minLength": 1, "maxLength": 100}),
        )
        return _language.parts_of(answer.data, len(texts))

    try:
        labels = await caller.in_batches(clusters, _NAMED_AT_ONCE, 4, label)
    except (UnavailableError, RateLimitedError, RefusedError) as error:
        context.warnings.append(f"cluster: clusters are named by number, the model failed: {error.message}")
        return
    for cluster, found in zip(clusters, labels, strict=True):
        cluster.label = found or cluster.label


def _own(document: dict[str, Any]) -> dict[str, Any]:
    return {name: document[name] for name in ("document_id", "collection_id", "score") if name in document}


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    wanted = params.num_clusters if isinstance(params.num_clusters, int) else 5
    credits, milliseconds = _language.cost(wanted, 1) if params.label_clusters else (0.0, 0.0)
    return min(wanted, documents), credits, milliseconds + 20.0 + 0.2 * documents


STAGE = Stage(
    StageInfo("cluster", "group", "Group documents whose vectors are alike.", "boxes", Params),
    run,
    prepare=prepare,
    opaque=_language.OPAQUE,
    repeatable=lambda params: not params.label_clusters,
    costly=True,
    models=lambda params: _language.models(params) if params.label_clusters else (),
    estimate=_estimate,
)
