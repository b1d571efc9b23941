"""The one model registry: a name becomes weights on this machine, and nothing else ever stands in for them.

Looked at in this order: the folder `MIXPEEK_MODEL_PATH`, an installed package, the hub (only with
`MIXPEEK_MODEL_HUB=true`, only at a pinned revision). Dimensions are read from small JSON files or the table of
known models, so that the catalog needs neither torch nor the weights.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixpeek_operator.core.errors import ModelUnavailableError, SpecError
from mixpeek_operator.extraction.models.known import (
    BM25_LANGUAGES,
    KNOWN_MODELS,
    RERANKERS,
    KnownModel,
    bm25_language,
    canonical,
)

DEFAULT = "default"
"""Stands for the server's default embedding model in parameters."""

_HUB_NAME = re.compile(r"^(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})$")
_WEIGHTS = "model.safetensors"
_HUB_FILES = ["*.json", "*/*.json", "*.txt", "*.model", _WEIGHTS]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the catalog needs to know of a model."""

    name: str
    """Canonical name, the one stored in `VectorIndex.inference_model`."""
    kind: str
    """`dense` or `sparse`."""
    dimensions: int | None


@dataclass(frozen=True, slots=True)
class Weights:
    """A model folder on this machine."""

    name: str
    id: str
    """`<name>@<12 hex of the weights' SHA-256>`: embeddings are comparable only under the same id."""
    folder: Path
    dimensions: int


class ModelRegistry:
    """Resolves names. Cheap to make; reads files only when asked."""

    def __init__(self, *, default: str, model_path: Path | None = None, model_hub: bool = False) -> None:
        self._default = default
        self._model_path = model_path
        self._model_hub = model_hub
        self._weights: dict[str, Weights] = {}
        self._dimensions: dict[str, int] = {}

    def canonical(self, name: str) -> str:
        """The name a model goes by, whatever its spelling; `default` is the server's default."""
        return canonical(self._default if name == DEFAULT else name)

    def facts(self, name: str) -> ModelFacts:
        """Kind and dimensions, without loading anything.

        Raises SpecError for a name that can mean no model, ModelUnavailableError for a model that is not here.
        """
        resolved = self.canonical(name)
        if bm25_language(resolved):
            return ModelFacts(resolved, "sparse", None)
        if resolved.lower().startswith("bm25"):
            raise SpecError(
                f"no BM25 model {resolved!r}; there is one for each of {', '.join(sorted(BM25_LANGUAGES))}, "
                "written bm25-<language>",
                code="model_unknown",
            )
        known = KNOWN_MODELS.get(resolved)
        if known is not None:
            return ModelFacts(resolved, "dense", known.dimensions)
        if resolved not in self._dimensions:
            self._dimensions[resolved] = _dimensions(self._folder(resolved, None, metadata_only=True))
        return ModelFacts(resolved, "dense", self._dimensions[resolved])

    def locate(self, name: str) -> Path:
        """The folder of a model, its weights unread. Raises ModelUnavailableError naming what to set."""
        resolved = self.canonical(name)
        return self._folder(resolved, KNOWN_MODELS.get(resolved), metadata_only=True)

    def is_cross_encoder(self, name: str) -> bool:
        """Whether a model reads a query and a text together. Raises ModelUnavailableError naming what to set."""
        architectures = read_json(self.locate(name) / "config.json").get("architectures") or ()
        return any(str(item).endswith("ForSequenceClassification") for item in architectures)

    def weights(self, name: str) -> Weights:
        """The folder with the weights, checked. Blocks: hashes the weights once, downloads if allowed to.

        Raises ModelUnavailableError naming what to set.
        """
        resolved = self.canonical(name)
        if resolved not in self._weights:
            known = KNOWN_MODELS.get(resolved)
            folder = self._folder(resolved, known, metadata_only=False)
            digest = _sha256(folder / _WEIGHTS, resolved)
            if known is not None and digest != known.weights_sha256:
                raise ModelUnavailableError(
                    f"the weights in {folder} are not those of {resolved}; give that folder another name, or "
                    "remove it from MIXPEEK_MODEL_PATH"
                )
            dimensions = known.dimensions if known else _dimensions(folder)
            self._weights[resolved] = Weights(resolved, f"{resolved}@{digest[:12]}", folder, dimensions)
        return self._weights[resolved]

    def _folder(self, name: str, known: KnownModel | None, *, metadata_only: bool) -> Path:
        repository = known.repository if known else RERANKERS.get(name)
        candidates = [name, *([repository] if repository else [])]
        if self._model_path is not None:
            for candidate in candidates:
                folder = (self._model_path / candidate).resolve()
                if folder.is_relative_to(self._model_path.resolve()) and (folder / "config.json").is_file():
                    return folder
        if known is not None and known.package is not None:
            folder_or_none = _package_folder(known.package)
            if folder_or_none is not None:
                return folder_or_none
        if self._model_hub:
            return self._from_hub(name, known, metadata_only=metadata_only)
        raise ModelUnavailableError(_how_to_get(name, known, self._model_path))

    def _from_hub(self, name: str, known: KnownModel | None, *, metadata_only: bool) -> Path:
        match = _HUB_NAME.match(name)
        if known is not None:
            repository, revision = known.repository, known.revision
        elif match is not None:
            repository, revision = match["repository"], match["revision"]
        else:
            shown = RERANKERS.get(name, "<organization>/<model>")
            raise ModelUnavailableError(
                f"the model {name!r} names no revision; write {shown}@<40 hexadecimal digits of the "
                "commit>, or put the model into MIXPEEK_MODEL_PATH"
            )
        try:
            from huggingface_hub import snapshot_download
        except ImportError:
            raise ModelUnavailableError(_how_to_get(name, known, self._model_path)) from None
        patterns = ["*.json", "*/*.json"] if metadata_only else _HUB_FILES
        try:
            return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
        except Exception as error:
            raise ModelUnavailableError(
                f"the model {name!r} could not be downloaded from the hub ({type(error).__name__}); put it into "
                "MIXPEEK_MODEL_PATH, or check the network"
            ) from error


def read_json(path: Path) -> Any:
    """A JSON file of a model folder. Raises ModelUnavailableError naming the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailableError(f"cannot read {path}: {error}") from error


def _package_folder(package: str) -> Path | None:
    """`model/` of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / "model"
        if (folder / "config.json").is_file():
            return folder
    return None


def _dimensions(folder: Path) -> int:
    modules = folder / "modules.json"
    for module in read_json(modules) if modules.is_file() else []:
        if str(module.get("type", "")).rpartition(".")[2] == "Pooling":
            pooling = read_json(folder / module["path"] / "config.json")
            size = pooling.get("word_embedding_dimension") or pooling.get("embedding_dimension")
            if size:
                return int(size)
    size = read_json(folder / "config.json").get("hidden_size")
    if not isinstance(size, int):
        raise ModelUnavailableError(f"{folder / 'config.json'} names no hidden_size; it is no text model")
    return size


def _sha256(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelUnavailableError(
            f"the model {name!r} has no readable {_WEIGHTS} in {path.parent}: {error.strerror}"
        ) from error


def _how_to_get(name: str, known: KnownModel | None, model_path: Path | None) -> str:
    ways = [
        f"put its folder into {model_path}/{name}"
        if model_path
        else f"set MIXPEEK_MODEL_PATH to a folder that holds {name}/",
        "set MIXPEEK_MODEL_HUB=true to download it",
    ]
    if known is not None and known.package:
        ways.insert(0, "install mixpeek-operator[models]")
    return f"the model {name!r} is not on this machine; {', or '.join(ways)}"
