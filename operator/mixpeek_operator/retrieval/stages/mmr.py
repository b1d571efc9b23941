"""Maximal marginal relevance: documents that are relevant and unlike those already chosen.

Carbonell and Goldstein, The Use of MMR, Diversity-Based Reranking for Reordering Documents, 1998.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.retrieval import embeddings, paths
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.stage import Compilation, Context, Documents, Stage, StageParams, State
from mixpeek_operator.retrieval.stages import _values

_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1, le=10_000)]
_Weight = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
_Metric = Literal["cosine", "dot", "euclidean"]
Similarity = Callable[[int], Any]
"""The similarity of every document to the one at a position."""


class DiversityFeature(BaseModel):
    """One of several features that documents are compared by."""

    model_config = ConfigDict(extra="forbid")

    feature_uri: str = Field(
        min_length=1, description="Feature to compare by.", examples=["mixpeek://text_extractor@v1/text_embedding"]
    )
    weight: _Weight = Field(default=1.0, description="Its share of the similarity; weights are made to add up to 1.")


class Params(StageParams):
    """Parameters of `mmr`; `top_k` and `diversity_feature_uri` are accepted as well."""

    lambda_: Late[_Share] = Field(
        default=0.5,
        validation_alias=AliasChoices("lambda", "lambda_"),
        description=(
            "Weight of relevance against diversity: 1 is relevance only. Relevance is the score as it is: fused "
            "scores are small, so put score_normalize before."
        ),
        examples=[0.5],
    )
    top_n: Late[_Count] = Field(
        default=10,
        validation_alias=AliasChoices("top_n", "top_k"),
        description="Most documents to keep.",
        examples=[10],
    )
    embedding_field: Late[str] | None = Field(
        default=None,
        validation_alias=AliasChoices("embedding_field", "diversity_feature_uri"),
        description=embeddings.FIELD,
    )
    diversity_features: list[DiversityFeature] | None = Field(
        default=None, min_length=1, description="Several features to compare by, instead of embedding_field."
    )
    diversity_fields: Late[list[str]] | None = Field(
        default=None,
        description="Dotted paths to compare by instead of vectors: documents of equal values are alike.",
    )
    diversity_field_weights: dict[str, _Weight] | None = Field(
        default=None, description="Weights of diversity_fields; 1 each when absent."
    )
    score_field: Late[str] = Field(
        default="score", description="Dotted path of the relevance; a missing one counts as 0.", examples=["score"]
    )
    mmr_score_field: Late[str] | None = Field(
        default=None, description="Where the MMR score goes as well, besides `score` and `mmr.mmr_score`."
    )
    similarity_metric: Late[_Metric] = Field(
        default="cosine",
        description="How vectors are compared: cosine, dot, or euclidean as 1 / (1 + distance).",
        examples=["cosine"],
    )

    @model_validator(mode="after")
    def _one_mode(self) -> Params:
        modes = ("embedding_field", "diversity_features", "diversity_fields")
        given = [name for name in modes if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {', '.join(modes)}; got {' and '.join(given)}")
        unknown = set(self.diversity_field_weights or ())
        if isinstance(self.diversity_fields, list):
            unknown -= set(self.diversity_fields)
        if unknown and not (self.diversity_fields and not isinstance(self.diversity_fields, list)):
            raise ValueError(f"diversity_field_weights names no diversity field: {', '.join(sorted(unknown))}")
        return self


async def prepare(params: Params, compilation: Compilation) -> None:
    """Check what can be checked before documents are there. Raises SpecError, NotEnabledError."""
    if params.diversity_fields is not None:
        embeddings.check("a field", compilation)
        return
    for field in _features(params):
        embeddings.check(field, compilation)


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the chosen documents in the order they were chosen; equal ones in the order they came."""
    names, documents = context.names, state.documents
    if not documents:
        return []
    count = min(known(params.top_n, names, "top_n"), len(documents))
    share = known(params.lambda_, names, "lambda")
    field = known(params.score_field, names, "score_field")
    relevance = [_values.score(document, field) for document in documents]
    if params.diversity_fields is not None:
        fields = known(params.diversity_fields, names, "diversity_fields")
        similarity = _by_fields(documents, fields, params.diversity_field_weights or {})
    else:
        found = await embeddings.of_all(documents, _features(params), context, "mmr")
        weights = [item.weight for item in params.diversity_features or ()] or [1.0]
        metric = known(params.similarity_metric, names, "similarity_metric")
        similarity = await asyncio.to_thread(_by_vectors, found, weights, metric)
    chosen = await asyncio.to_thread(_choose, relevance, share, count, similarity)
    extra = None if params.mmr_score_field is None else known(params.mmr_score_field, names, "mmr_score_field")
    made = []
    for order, (position, penalty) in enumerate(chosen, start=1):
        score = share * relevance[position] - penalty
        mmr = {
            "relevance_score": relevance[position],
            "diversity_penalty": penalty,
            "mmr_score": score,
            "selection_order": order,
        }
        document = {**documents[position], "score": score, "mmr": mmr}
        made.append(document if extra is None else paths.write(document, extra, score))
    return made


def _features(params: Params) -> list[Any]:
    if params.diversity_features is not None:
        return [item.feature_uri for item in params.diversity_features]
    return [params.embedding_field]


def _choose(relevance: Sequence[float], share: float, count: int, similarity: Similarity) -> list[tuple[int, float]]:
    """Return (position, penalty) of the best `count`, one after the other."""
    import numpy as np

    scores = np.asarray(relevance, dtype=np.float64)
    position = int(np.argmax(scores))
    chosen = [(position, 0.0)]
    left = np.ones(len(scores), dtype=bool)
    left[position] = False
    nearest = np.full(len(scores), -np.inf)
    while len(chosen) < count:
        if share < 1.0:
            nearest = np.maximum(nearest, similarity(position))
            value = share * scores - (1.0 - share) * nearest
        else:
            value = scores
        position = int(np.argmax(np.where(left, value, -np.inf)))
        chosen.append((position, float((1.0 - share) * nearest[position]) if share < 1.0 else 0.0))
        left[position] = False
    return chosen


def _by_vectors(found: Sequence[embeddings.Embeddings], weights: Sequence[float], metric: str) -> Similarity:
    import numpy as np

    rows = [item.unit() if metric == "cosine" else item.rows for item in found]
    total = sum(weights)

    def similarity(position: int) -> Any:
        result = np.zeros(len(rows[0]))
        for item, vectors, weight in zip(found, rows, weights, strict=True):
            if not item.known[position]:
                continue
            if metric == "euclidean":
                alike = 1.0 / (1.0 + np.linalg.norm(vectors - vectors[position], axis=1))
            else:
                alike = vectors @ vectors[position]
            # What has no vector is like nothing.
            result += weight / total * np.where(item.known, alike, 0.0)
        return result

    return similarity


def _by_fields(documents: Documents, fields: Sequence[str], weights: dict[str, float]) -> Similarity:
    import numpy as np

    columns = []
    for field in fields:
        codes: dict[bytes, int] = {}
        values = [_values.present(document, field) for document in documents]
        columns.append(
            np.array([-1 if value is None else codes.setdefault(_values.mark(value), len(codes)) for value in values])
        )
    shares = [weights.get(field, 1.0) for field in fields]
    total = sum(shares)

    def similarity(position: int) -> Any:
        result = np.zeros(len(documents))
        for column, share in zip(columns, shares, strict=True):
            if column[position] >= 0:
                result += share / total * (column == column[position])
        return result

    return similarity


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    count = params.top_n if isinstance(params.top_n, int) else 10
    return min(count, documents), 0.0, 2.0 + 0.02 * documents


STAGE = Stage(
    StageInfo("mmr", "sort", "Order documents by relevance and by how much each adds.", "shuffle", Params),
    run,
    repeatable=True,
    prepare=prepare,
    estimate=_estimate,
)
