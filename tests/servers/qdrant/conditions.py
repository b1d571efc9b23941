"""Qdrant's JSON as objects of Qdrant Edge, and back. What Edge or this file does not know is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import qdrant_edge as edge


class Unsupported(Exception):
    """Part of Qdrant's API that the stand-in does not have."""


class bool_:
    """A boolean the binding does not take for an integer: it accepts NumPy's by type name."""

    __slots__ = ("_value",)
    __module__ = "numpy"

    def __init__(self, value: bool) -> None:
        self._value = value

    def __bool__(self) -> bool:
        return self._value


def only(body: Mapping[str, Any], *known: str) -> None:
    """Raise Unsupported for a key that is given and not `known`."""
    for key, value in body.items():
        if key not in known and value is not None:
            raise Unsupported(f"{key!r}")


def listed(value: Any) -> list[Any]:
    """One or several."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def filter_of(body: Mapping[str, Any] | None) -> Any:
    """A `Filter`."""
    if body is None:
        return None
    only(body, "must", "should", "must_not")
    made = {key: [_condition(item) for item in listed(body[key])] for key in body if body[key] is not None}
    return edge.Filter(**cast(Any, made))


def _condition(body: Mapping[str, Any]) -> Any:
    if "has_id" in body:
        return edge.HasIdCondition(set(body["has_id"]))
    if "is_empty" in body:
        return edge.IsEmptyCondition(body["is_empty"]["key"])
    if "is_null" in body:
        return edge.IsNullCondition(body["is_null"]["key"])
    if "key" not in body:
        return filter_of(body)
    only(body, "key", "match", "range")
    return edge.FieldCondition(
        body["key"],
        match=None if body.get("match") is None else _match(body["match"]),
        range=None if body.get("range") is None else _range(body["range"]),
    )


def _match(body: Mapping[str, Any]) -> Any:
    only(body, "value", "any")
    if "any" in body:
        return edge.MatchAny(body["any"])
    value = body["value"]
    return edge.MatchValue(cast(bool, bool_(value)) if isinstance(value, bool) else value)


def _range(body: Mapping[str, Any]) -> Any:
    only(body, "gt", "gte", "lt", "lte")
    bounds = {key: value for key, value in body.items() if value is not None}
    if any(isinstance(value, str) for value in bounds.values()):
        return edge.RangeDateTime(**bounds)
    return edge.RangeFloat(**bounds)


def query_of(body: Mapping[str, Any]) -> Any:
    """A `QueryRequest` for nearest neighbours."""
    only(body, "query", "using", "filter", "params", "score_threshold", "limit", "with_payload", "with_vector")
    query = body.get("query")
    if not isinstance(query, Mapping) or set(query) != {"nearest"} or not body.get("using"):
        raise Unsupported("a query that is not {'nearest': vector} with 'using'")
    params = body.get("params") or {}
    only(params, "exact")
    return edge.QueryRequest(
        limit=body.get("limit") or 10,
        query=edge.Query.Nearest(vector_of(query["nearest"]), using=body["using"]),
        filter=filter_of(body.get("filter")),
        score_threshold=body.get("score_threshold"),
        with_payload=payload_of(body.get("with_payload", False)),
        with_vector=body.get("with_vector") or False,
        params=edge.SearchParams(exact=True) if params.get("exact") else None,
    )


def payload_of(value: Any) -> bool | list[str]:
    """`with_payload`: all, none, or keys."""
    if isinstance(value, Mapping):
        raise Unsupported("with_payload as an object")
    return value if isinstance(value, list) else bool(value)


def vector_of(value: Any) -> Any:
    """A dense or sparse vector."""
    if isinstance(value, Mapping):
        only(value, "indices", "values")
        return edge.SparseVector(value["indices"], value["values"])
    if not isinstance(value, list) or (value and isinstance(value[0], list)):
        raise Unsupported("a vector that is neither a list of numbers nor sparse")
    return value


def point_of(body: Mapping[str, Any]) -> Any:
    """A `PointStruct` with named vectors."""
    only(body, "id", "vector", "payload")
    if not isinstance(body["vector"], Mapping):
        raise Unsupported("a vector without a name")
    vectors = {name: vector_of(vector) for name, vector in body["vector"].items()}
    return edge.Point(body["id"], vectors, body.get("payload") or {})


def index_of(schema: Any) -> Any:
    """A payload index: a type by name, or keyword parameters."""
    if isinstance(schema, str):
        return getattr(edge.PayloadSchemaType, schema.capitalize())
    if schema.get("type") != "keyword":
        raise Unsupported(f"parameters of a {schema.get('type')} index")
    only(schema, "type", "is_tenant")
    return edge.KeywordIndexParams(is_tenant=schema.get("is_tenant"))


def record(found: Any, names: set[str], *, vectors: Any) -> dict[str, Any]:
    """A `Record` or `ScoredPoint`."""
    body: dict[str, Any] = {"id": str(found.id) if not isinstance(found.id, int) else found.id}
    if found.payload is not None:
        body["payload"] = found.payload
    if hasattr(found, "score"):
        body |= {"score": found.score, "version": found.version}
    if vectors:
        given = found.vector if isinstance(found.vector, Mapping) else {}
        body["vector"] = {name: _vector(vector) for name, vector in given.items() if name in names}
    return body


def _vector(vector: Any) -> Any:
    if isinstance(vector, edge.SparseVector):
        return {"indices": list(vector.indices), "values": list(vector.values)}
    return list(vector)
