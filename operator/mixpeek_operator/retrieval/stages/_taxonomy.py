"""The labels of a document: what the retrievers of a taxonomy find for it, from the roots down."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mixpeek_operator.core.directory import TaxonomyInfo, TaxonomyLevel
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.filters import equals
from mixpeek_operator.retrieval import embeddings
from mixpeek_operator.retrieval.stage import Context, Documents
from mixpeek_operator.retrieval.stages import _values

_NAMES: Final = ("label", "name", "title")
_OWN: Final = ("document_id", "collection_id", "score", "_internal", "vectors")
_DEFAULT_INPUT: Final = "query"
_DEFAULT_FIELD: Final = "content"

Inputs = Mapping[str, Mapping[str, Any]]
"""Inputs of the retriever of each level, by the level's collection; {} where the document has nothing to ask by."""


@dataclass(frozen=True, slots=True)
class Label:
    """A document of a taxonomy's collection, as the label of another."""

    id: str
    """Names from the root down, in lower case, joined by dots."""
    name: str
    confidence: float
    level: int
    """From 1."""
    document: Mapping[str, Any]
    fields: Sequence[Mapping[str, Any]] | None
    """Which of its fields the taxonomy copies."""

    def shown(self) -> dict[str, Any]:
        """The label as the stage tells it."""
        shown = {"id": self.id, "name": self.name, "confidence": self.confidence, "level": self.level}
        return shown | {key: self.document[key] for key in ("document_id", "collection_id") if key in self.document}

    def body(self) -> dict[str, Any]:
        """Its own fields."""
        return {key: value for key, value in self.document.items() if key not in _OWN}


Way = tuple[Label, ...]
"""A label with those above it, the root first."""


class Labelling:
    """Finds labels by one taxonomy in one execution."""

    def __init__(self, taxonomy: TaxonomyInfo, context: Context, *, least: float, most: int, depth: int | None) -> None:
        """Raises SpecError for a taxonomy that has no levels to search."""
        self._taxonomy = taxonomy
        self._context = context
        self._least = least
        self._most = most
        self._depth = depth or len(taxonomy.levels) or None
        self.searches = 0
        """Retrievers that were run."""
        for level in taxonomy.levels:
            if level.retriever_id is None:
                raise SpecError(
                    f"the taxonomy {taxonomy.name!r} names no retriever for {level.name!r}", code="taxonomy_incomplete"
                )
        if not taxonomy.levels and taxonomy.path_field is None:
            raise SpecError(
                f"the taxonomy {taxonomy.name!r} names no nodes; write its hierarchical_nodes",
                code="taxonomy_incomplete",
            )

    async def inputs(self, documents: Documents, content_field: str | None) -> list[dict[str, Any]]:
        """What each document asks by; `content_field` stands for the path of every mapping that reads a field.

        Raises SpecError for a mapping that a search cannot follow.
        """
        if not self._taxonomy.levels:
            field = self._taxonomy.path_field or ""
            return [{"path": _values.present(document, field)} for document in documents]
        asked: list[dict[str, Any]] = [{} for _ in documents]
        for level in self._taxonomy.levels:
            mappings = level.inputs or ({"input_key": _DEFAULT_INPUT, "path": content_field or _DEFAULT_FIELD},)
            columns = {item["input_key"]: await self._values(item, documents, content_field) for item in mappings}
            for position, inputs in enumerate(asked):
                values = {key: column[position] for key, column in columns.items()}
                # Who lacks what the retriever is asked by has no label here.
                if None not in values.values():
                    inputs[level.collection_id] = values
        return asked

    async def ways(self, inputs: Inputs) -> list[Way]:
        """The best ways through the taxonomy, each to its last label; the most confident last label first."""
        if not self._taxonomy.levels:
            return self._written(inputs)
        ways = await self._below(None, (), inputs)
        ways.sort(key=lambda way: -way[-1].confidence)
        return ways[: self._most]

    async def _below(self, parent_id: str | None, above: Way, inputs: Inputs) -> list[Way]:
        ways: list[Way] = []
        if self._depth is not None and len(above) >= self._depth:
            return ways
        for level in self._taxonomy.levels:
            if level.parent_id != parent_id:
                continue
            labels = await self._labels(level, above, inputs)
            if not labels:
                continue
            deeper = await self._below(level.collection_id, (*above, labels[0]), inputs)
            # A label that has one below it is told as the way to it.
            ways += deeper + [(*above, label) for label in (labels[1:] if deeper else labels)]
        return ways

    async def _labels(self, level: TaxonomyLevel, above: Way, inputs: Inputs) -> list[Label]:
        asked = inputs.get(level.collection_id)
        if not asked:
            return []
        self.searches += 1
        assert level.retriever_id is not None
        found = await self._context.nested(
            level.retriever_id, asked, filter=equals("collection_id", level.collection_id), limit=self._most
        )
        return [self._label(document, level, above) for document in found if _values.score(document) >= self._least]

    def _label(self, document: dict[str, Any], level: TaxonomyLevel, above: Way) -> Label:
        named = [entry["field_path"] for entry in level.fields or ()]
        names = (_values.present(document, path) for path in (*_NAMES, *named))
        name = next((name for name in names if isinstance(name, str) and name), level.name)
        slug = _slug(name)
        id = f"{above[-1].id}.{slug}" if above else slug
        return Label(id, name, _values.score(document), len(above) + 1, document, level.fields)

    def _written(self, inputs: Inputs) -> list[Way]:
        """The way that a document has written down itself."""
        value: Any = inputs.get("path")
        parts = value if isinstance(value, list) else str(value or "").split(self._taxonomy.path_separator)
        names = [name for name in (str(part).strip() for part in parts) if name][: self._depth]
        way: Way = ()
        for name in names:
            id = f"{way[-1].id}.{_slug(name)}" if way else _slug(name)
            way = (*way, Label(id, name, 1.0, len(way) + 1, {}, ()))
        return [way] if way else []

    async def _values(
        self, mapping: Mapping[str, Any], documents: Documents, content_field: str | None
    ) -> Sequence[Any]:
        source = mapping.get("source_type") or "payload"
        if source == "literal":
            return [mapping.get("override")] * len(documents)
        if source == "vector":
            found = await embeddings.of(documents, mapping.get("path"), self._context, "taxonomy_enrich")
            rows = zip(found.rows.tolist(), found.known, strict=True)
            return [row if is_known else None for row, is_known in rows]
        if source == "payload":
            path = content_field or mapping.get("path") or _DEFAULT_FIELD
            return [_values.present(document, path) for document in documents]
        raise SpecError(
            f"the taxonomy {self._taxonomy.name!r} reads the input {mapping['input_key']!r} from a {source}, which a "
            "search does not have; map it from a payload or a vector",
            code="taxonomy_incomplete",
        )


def _slug(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.lower()).strip("_") or "_"
