"""Feature URIs, `mixpeek://<extractor>@<version>/<output>`: parsed, written, and resolved to what answers them.

A URI pins the model: what it resolves to names the vector index and the model that embedded its documents, and
queries are embedded by that model and no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from mixpeek_operator.core.catalog import VectorIndex
from mixpeek_operator.core.directory import Feature
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.extraction.models.known import canonical, spelling

_URI = re.compile(r"^mixpeek://(?P<extractor>[^@/\s]+)@(?P<version>[^@/\s]+)/(?P<output>\S+)$")
_DENSE_NAMES = frozenset({"text_embedding", "embedding"})
"""Outputs that mean an extractor's dense embedding, whatever its model or its output is called."""


@dataclass(frozen=True, slots=True)
class FeatureURI:
    """The three parts of a feature URI."""

    extractor: str
    version: str
    output: str

    def __str__(self) -> str:
        return f"mixpeek://{self.extractor}@{self.version}/{self.output}"


def parse(uri: str) -> FeatureURI:
    """Return the parts of a feature URI. Raises SpecError saying what one looks like."""
    match = _URI.match(uri.strip()) if isinstance(uri, str) else None
    if match is None:
        raise SpecError(
            f"{uri!r} is no feature URI; write mixpeek://<extractor>@<version>/<output>, for example "
            "mixpeek://text_extractor@v1/text_embedding",
            code="feature_uri_invalid",
        )
    return FeatureURI(match["extractor"], match["version"], match["output"])


def features_of(extractor: str, version: str, indexes: Iterable[VectorIndex]) -> tuple[Feature, ...]:
    """The features that a collection with these vector indexes writes."""
    return tuple(
        Feature(str(FeatureURI(extractor, version, index.output)), extractor, version, index) for index in indexes
    )


def resolve(uri: str, features: Sequence[Feature]) -> Feature:
    """Return the feature that `uri` names among those of one or several collections.

    The output may be named by its own name, by its vector index or by its model; `text_embedding` is always the
    dense embedding. Raises SpecError listing what there is, or when collections embed it with different models.
    """
    wanted = parse(uri)
    written = [
        feature
        for feature in features
        if feature.extractor == wanted.extractor and normal_version(feature.version) == normal_version(wanted.version)
    ]
    found = _named(wanted.output, written)
    if not found:
        raise SpecError(_not_found(uri, features), code="feature_not_found")
    first = found[0]
    for other in found[1:]:
        if (other.index.name, other.index.inference_model) != (first.index.name, first.index.inference_model):
            raise SpecError(
                f"{uri} is ambiguous: it is {first.index.name} embedded by {first.index.inference_model} and "
                f"{other.index.name} embedded by {other.index.inference_model}; search these collections apart",
                code="feature_ambiguous",
            )
    return first


def normal_version(version: str) -> str:
    """`v1`, `1`, `1.0` and `1.0.0` are one version."""
    numbers = version.removeprefix("v").split(".")
    if not all(number.isdigit() for number in numbers) or len(numbers) > 3:
        return version
    return ".".join([*numbers, "0", "0"][:3])


def _named(output: str, written: Sequence[Feature]) -> list[Feature]:
    """The features that `output` names, by the first rule that finds any."""
    rules = (
        [feature for feature in written if feature.index.output == output],
        [feature for feature in written if feature.index.name == output],
        [feature for feature in written if _same_model(output, feature.index.inference_model)],
        [feature for feature in written if output in _DENSE_NAMES and feature.index.type == "dense"],
    )
    return next((found for found in rules if found), [])


def _same_model(output: str, model: str) -> bool:
    if not model:
        return False
    name = output.replace("__", "/")
    return canonical(name) == model or spelling(name) == spelling(model)


def _not_found(uri: str, features: Sequence[Feature]) -> str:
    available = sorted({feature.uri for feature in features})
    if not available:
        return f"{uri} is not available: these collections write no features"
    near = get_close_matches(uri, available, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    return f"{uri} is not available{hint} Available: {', '.join(available)}"
