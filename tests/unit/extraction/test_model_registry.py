"""The model registry: one name, one set of weights, and a clear error when they are not here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixpeek_operator.core.errors import ModelUnavailableError, SpecError
from mixpeek_operator.extraction.models.registry import ModelRegistry


def put_model(folder: Path, weights: bytes = b"weights", size: int = 8) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"hidden_size": size}))
    (folder / "model.safetensors").write_bytes(weights)
    return folder


@pytest.mark.parametrize(
    "spelling",
    [
        "default",
        "all-MiniLM-L6-v2",
        "sentence-transformers/all-MiniLM-L6-v2",
        "all_minilm_l6_v2_v1",
        "all_minilm_l6_v2",
    ],
)
def test_a_model_has_one_name_however_it_is_spelled(spelling: str) -> None:
    facts = ModelRegistry(default="all-MiniLM-L6-v2").facts(spelling)
    assert (facts.name, facts.kind, facts.dimensions) == ("all-MiniLM-L6-v2", "dense", 384)


def test_the_packaged_weights_are_the_known_ones() -> None:
    weights = ModelRegistry(default="all-MiniLM-L6-v2").weights("default")
    assert weights.id == "all-MiniLM-L6-v2@53aa51172d14"


def test_a_folder_comes_first_and_its_weights_are_its_identity(tmp_path: Path) -> None:
    folder = put_model(tmp_path / "house-model")
    registry = ModelRegistry(default="house-model", model_path=tmp_path)
    assert registry.facts("default").dimensions == 8
    weights = registry.weights("house-model")
    assert weights.folder == folder
    (folder / "model.safetensors").write_bytes(b"others")
    assert ModelRegistry(default="house-model", model_path=tmp_path).weights("default").id != weights.id


def test_other_weights_under_a_known_name_are_refused(tmp_path: Path) -> None:
    put_model(tmp_path / "all-MiniLM-L6-v2")
    with pytest.raises(ModelUnavailableError, match="are not those of all-MiniLM-L6-v2"):
        ModelRegistry(default="all-MiniLM-L6-v2", model_path=tmp_path).weights("default")


def test_a_model_that_is_not_here_names_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError) as error:
        ModelRegistry(default="x").facts("house-model")
    assert "MIXPEEK_MODEL_PATH" in str(error.value)
    assert "MIXPEEK_MODEL_HUB=true" in str(error.value)


def test_a_known_model_whose_package_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelUnavailableError, match=r"mixpeek-operator\[models\]"):
        ModelRegistry(default="all-MiniLM-L6-v2").weights("default")


def test_the_hub_needs_a_pinned_revision() -> None:
    with pytest.raises(ModelUnavailableError, match="names no revision"):
        ModelRegistry(default="x", model_hub=True).facts("organization/model")


def test_a_name_does_not_leave_the_model_folder(tmp_path: Path) -> None:
    put_model(tmp_path / "secret")
    (tmp_path / "models").mkdir()
    with pytest.raises(ModelUnavailableError):
        ModelRegistry(default="x", model_path=tmp_path / "models").facts("../secret")


def test_an_unknown_bm25_language_lists_the_languages() -> None:
    assert ModelRegistry(default="x").facts("bm25-english").kind == "sparse"
    with pytest.raises(SpecError, match="german"):
        ModelRegistry(default="x").facts("bm25-klingon")


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    folder = put_model(tmp_path / "half")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailableError, match="half"):
        ModelRegistry(default="half", model_path=tmp_path).weights("half")
