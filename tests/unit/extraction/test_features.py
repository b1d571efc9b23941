"""Feature URIs: parsed, written, and resolved to one vector index and its model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mixpeek_operator.core.catalog import VectorIndex
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.extraction.features import FeatureURI, features_of, parse, resolve

DENSE = VectorIndex(
    name="text_extractor_v1_embedding",
    output="text_embedding",
    description="dense",
    type="dense",
    dimensions=384,
    inference_model="all-MiniLM-L6-v2",
)
SPARSE = VectorIndex(
    name="text_extractor_v1_sparse_embedding",
    output="text_sparse_embedding",
    description="sparse",
    type="sparse",
    dimensions=None,
    inference_model="bm25-english",
)
FEATURES = features_of("text_extractor", "v1", [SPARSE, DENSE])


def test_a_uri_has_three_parts_and_is_written_as_it_was_read() -> None:
    uri = "mixpeek://my_extractor@1.0.0/my_embedding"
    assert parse(uri) == FeatureURI("my_extractor", "1.0.0", "my_embedding")
    assert str(parse(uri)) == uri


@pytest.mark.parametrize(
    "uri", ["", "text_embedding", "mixpeek://a/b", "mixpeek://a@v1/", "http://a@v1/b", "mixpeek://@v1/b"]
)
def test_anything_else_is_refused_with_an_example(uri: str) -> None:
    with pytest.raises(SpecError, match="mixpeek://<extractor>@<version>/<output>"):
        parse(uri)


@pytest.mark.parametrize(
    ("output", "index"),
    [
        ("text_embedding", DENSE),
        ("text_extractor_v1_embedding", DENSE),
        ("all-MiniLM-L6-v2", DENSE),
        ("all_minilm_l6_v2_v1", DENSE),
        ("sentence-transformers__all_minilm_l6_v2", DENSE),
        ("embedding", DENSE),
        ("text_sparse_embedding", SPARSE),
        ("text_extractor_v1_sparse_embedding", SPARSE),
        ("bm25-english", SPARSE),
    ],
)
def test_every_spelling_of_an_output_resolves(output: str, index: VectorIndex) -> None:
    assert resolve(f"mixpeek://text_extractor@v1/{output}", FEATURES).index == index


def test_text_embedding_is_the_dense_embedding_whatever_the_output_is_called() -> None:
    renamed = features_of("text_extractor", "v1", [SPARSE, replace(DENSE, output="my_vectors")])
    assert resolve("mixpeek://text_extractor@v1/text_embedding", renamed).index.type == "dense"


def test_a_version_may_be_spelled_in_several_ways() -> None:
    assert resolve("mixpeek://text_extractor@1.0.0/text_embedding", FEATURES).index == DENSE
    with pytest.raises(SpecError):
        resolve("mixpeek://text_extractor@v2/text_embedding", FEATURES)


def test_an_unknown_feature_is_refused_with_what_there_is() -> None:
    with pytest.raises(SpecError, match="did you mean") as error:
        resolve("mixpeek://text_extractor@v1/text_embeding", FEATURES)
    assert all(feature.uri in str(error.value) for feature in FEATURES)
    with pytest.raises(SpecError, match="write no features"):
        resolve("mixpeek://text_extractor@v1/text_embedding", [])


def test_collections_with_the_same_index_and_model_are_searched_together() -> None:
    assert resolve("mixpeek://text_extractor@v1/text_embedding", [*FEATURES, *FEATURES]).index == DENSE


def test_collections_with_different_models_are_not() -> None:
    other = features_of("text_extractor", "v1", [replace(DENSE, inference_model="another")])
    with pytest.raises(SpecError, match="ambiguous"):
        resolve("mixpeek://text_extractor@v1/text_embedding", [*FEATURES, *other])
