"""One request to execute a retriever, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import orjson

from mixpeek_operator import __version__
from mixpeek_operator.core.filters import Filter, to_wire
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.retrieval import pagination
from mixpeek_operator.retrieval.compile import Pipeline
from mixpeek_operator.retrieval.keeping import digest


class Asked(dict[str, Any]):
    """The body of a request that may come again, byte for byte, with the query that was made of it last.

    Nobody changes it, and stages get inputs of their own; see Query.own.
    """

    query: Query | None = None


_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


@dataclass(frozen=True)
class Query:
    """What is asked of which pipeline."""

    scope: Scope
    pipeline: Pipeline
    request: Mapping[str, Any]
    page: pagination.PageRequest
    filter: Filter | None
    inputs: dict[str, Any]

    @cached_property
    def encoded(self) -> bytes:
        """The inputs as JSON: vectors and files make them the largest part of a request, to be encoded once."""
        return orjson.dumps(self.inputs, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=repr)

    @property
    def fresh(self) -> bool:
        """Whether nothing that is kept may be used."""
        return bool(self.request.get("skip_cache"))

    @property
    def user_id(self) -> str | None:
        """Who asks, when the request says so."""
        user = self.request.get("user_id")
        return user if isinstance(user, str) else None

    @property
    def links(self) -> bool:
        """Whether links to files are asked for."""
        return bool(self.request.get("return_presigned_urls") or self.request.get("return_urls"))

    def own(self) -> Query:
        """The same with inputs that no other execution has."""
        if not isinstance(self.request, Asked):
            return self
        return replace(self, inputs={name: _copied(value) for name, value in self.inputs.items()})

    def key(self, stamp: str) -> str:
        """What the answer depends on: equal keys, equal answers. `stamp` is that of the retriever and what it reads."""
        if self._last_key[:1] != [stamp]:
            self._last_key[:] = [stamp, self._key(stamp)]
        return self._last_key[1]

    @cached_property
    def _last_key(self) -> list[str]:
        return []

    def _key(self, stamp: str) -> str:
        page = self.page
        parts = [
            __version__,
            stamp,
            orjson.Fragment(self.encoded),
            to_wire(self.filter),
            [page.method, page.limit, page.offset, page.token, page.after],
            self.links,
            bool(self.request.get("return_vectors")),
            # Only what may come out differently every time may also depend on who asks.
            None if self.pipeline.answers.repeatable else self.request.get("user_id"),
        ]
        return digest(parts)

    def token(self) -> str:
        """What page tokens are bound to: everything that decides the result, but not the state of the collections."""
        retriever = self.pipeline.retriever
        parts: list[Any] = [
            self.pipeline.namespace.id,
            retriever.id,
            retriever.version,
            self.inputs,
            self.request.get("filters"),
        ]
        if not retriever.id:
            parts += [list(retriever.stages), list(retriever.collection_ids)]
        return pagination.query_hash(parts)


def _copied(value: Any) -> Any:
    if type(value) is list and _SCALARS.issuperset(map(type, value)):
        return value.copy()
    return deepcopy(value)
