"""The extractor registry: facts for the catalog, without any heavy library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mixpeek_operator.core.errors import InternalError, NotFoundError, SpecError
from mixpeek_operator.extraction.archive import load_archive, read_manifest
from mixpeek_operator.extraction.models.registry import ModelRegistry
from mixpeek_operator.extraction.registry import ExtractorRegistry, builtin_archives


@pytest.fixture
def registry() -> ExtractorRegistry:
    return ExtractorRegistry(ModelRegistry(default="all-MiniLM-L6-v2"))


def test_the_built_in_extractors_are_found(registry: ExtractorRegistry) -> None:
    assert set(registry.extractors()) == {("passthrough_extractor", "v1"), ("text_extractor", "v1")}
    for info in registry.extractors().values():
        assert len(info.description) >= 10
        assert info.parameters().model_dump()


def test_the_catalog_needs_no_heavy_library() -> None:
    code = (
        "import sys; from mixpeek_operator.extraction.registry import ExtractorRegistry; "
        "from mixpeek_operator.extraction.models.registry import ModelRegistry; "
        "ExtractorRegistry(ModelRegistry(default='all-MiniLM-L6-v2')).extractors(); "
        "sys.exit(str([n for n in ('torch', 'pandas', 'numpy', 'transformers') if n in sys.modules] or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(_source())}
    )
    assert done.stderr.strip() == ""


def _source() -> Path:
    import mixpeek_operator

    return Path(mixpeek_operator.__file__).parent.parent


def test_text_extractor_writes_a_dense_and_a_sparse_vector(registry: ExtractorRegistry) -> None:
    dense, sparse = registry.vector_indexes("text_extractor", "v1", {})
    assert (dense.name, dense.output, dense.dimensions, dense.distance, dense.inference_model) == (
        "text_extractor_v1_embedding",
        "text_embedding",
        384,
        "cosine",
        "all-MiniLM-L6-v2",
    )
    assert (sparse.name, sparse.output, sparse.dimensions, sparse.modifier, sparse.inference_model) == (
        "text_extractor_v1_sparse_embedding",
        "text_sparse_embedding",
        None,
        "idf",
        "bm25-english",
    )
    schema = registry.output_schema("text_extractor", "v1", {})
    assert list(schema["properties"]) == ["text", dense.name, sparse.name]
    assert schema["properties"][dense.name]["maxItems"] == 384


def test_parameters_choose_the_vectors(registry: ExtractorRegistry) -> None:
    def names(**parameters: object) -> list[str]:
        return [index.output for index in registry.vector_indexes("text_extractor", "v1", parameters)]

    assert names(sparse_embedding=False) == ["text_embedding"]
    assert names(dense_embedding=False) == ["text_sparse_embedding"]
    assert names(model="sentence-transformers/all-MiniLM-L6-v2") == ["text_embedding", "text_sparse_embedding"]
    german = registry.vector_indexes("text_extractor", "v1", {"sparse_model": "bm25-german"})
    assert german[1].inference_model == "bm25-german"


def test_passthrough_extractor_writes_no_vector(registry: ExtractorRegistry) -> None:
    assert registry.vector_indexes("passthrough_extractor", "v1", {}) == ()


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"chunk_size": 5, "chunk_overlap": 5}, "chunk_overlap (5) must be less than chunk_size (5)"),
        ({"chunk_size": 0}, "parameters.chunk_size"),
        ({"split_by": "lines"}, "parameters.split_by"),
        ({"split_by": "markdown"}, "not available in this release"),
        ({"source_type": "youtube"}, "not available in this release"),
        ({"response_shape": "extract topics"}, "not available in this release"),
        ({"llm_provider": "openai"}, "not available in this release"),
        ({"llm_model": "x"}, "not available in this release"),
        ({"llm_api_key": "sk-1"}, "not available in this release"),
        ({"chunksize": 3}, "parameters.chunksize: unknown parameter"),
        ({"sparse_model": "bm25-klingon"}, "no BM25 model"),
        ({"embedding_model": "bm25-english"}, "cannot write text_embedding"),
    ],
)
def test_bad_parameters_are_refused_by_name(registry: ExtractorRegistry, parameters: dict, says: str) -> None:
    with pytest.raises(SpecError) as error:
        registry.vector_indexes("text_extractor", "v1", parameters)
    assert says in str(error.value)
    assert "sk-1" not in str(error.value)
    assert registry.check("text_extractor", "v1", parameters)


def test_every_bad_parameter_is_reported_at_once(registry: ExtractorRegistry) -> None:
    problems = registry.check("text_extractor", "v1", {"chunk_size": 0, "split_by": "lines", "x": 1})
    assert {problem.place.path for problem in problems} == {
        "parameters.chunk_size",
        "parameters.split_by",
        "parameters.x",
    }


def test_a_model_that_is_not_here_is_a_problem_of_the_declaration(registry: ExtractorRegistry) -> None:
    (problem,) = registry.check("text_extractor", "v1", {"embedding_model": "house-model"})
    assert "MIXPEEK_MODEL_PATH" in problem.message


def test_an_unknown_extractor_names_the_nearest(registry: ExtractorRegistry) -> None:
    with pytest.raises(NotFoundError, match="did you mean 'text_extractor'"):
        registry.info("text_extracter", "v1")
    with pytest.raises(NotFoundError, match="it has v1"):
        registry.info("text_extractor", "v9")
    with pytest.raises(NotFoundError, match="text_extractor_v1"):
        registry.by_id("text_extractor_v9")
    assert registry.by_id("text_extractor_v1").name == "text_extractor"


def test_two_archives_of_one_version_clash() -> None:
    archive = builtin_archives()[0]
    with pytest.raises(InternalError, match="registered twice"):
        ExtractorRegistry(ModelRegistry(default="all-MiniLM-L6-v2"), [archive, archive])


def test_a_manifest_as_customers_write_it_is_read() -> None:
    module = SimpleNamespace(
        feature_extractor_name="clip_pro",
        version="1.2.0",
        description="Embeds pictures.",
        features=[{"feature_type": "embedding", "feature_name": "pro", "embedding_dim": 8, "distance_metric": "dot"}],
        output_schema={"labels": {"type": "array"}},
        compute_profile={"batch_size": 32},
    )
    archive = read_manifest(module, package="clip_pro", source="custom")
    registry = ExtractorRegistry(ModelRegistry(default="all-MiniLM-L6-v2"), [archive])
    (index,) = registry.vector_indexes("clip_pro", "1.2.0", {})
    assert (index.name, index.dimensions, index.distance) == ("clip_pro_1_2_0_pro", 8, "dot")
    assert "labels" in registry.output_schema("clip_pro", "1.2.0", {})["properties"]


def test_a_manifest_with_the_wrong_keys_is_refused_with_every_problem() -> None:
    module = SimpleNamespace(
        feature_extractor_name="x", version="", features=[{"type": "vector", "name": "a", "dimensions": 3}]
    )
    with pytest.raises(SpecError) as error:
        read_manifest(module, package="x", source="custom")
    text = str(error.value)
    assert all(part in text for part in ("version", "features.0.feature_type", "features.0.feature_name"))


def test_a_folder_and_its_extractor_have_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "misnamed_extractor"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "manifest.py").write_text("feature_extractor_name = 'other'\nversion = 'v1'\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InternalError, match="misnamed_extractor"):
        load_archive("misnamed_extractor")
