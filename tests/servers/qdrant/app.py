"""Qdrant's REST on top of Qdrant Edge; every request and answer is checked against Qdrant's OpenAPI document."""

from __future__ import annotations

import functools
import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import qdrant_edge as edge
from openapi_schema_validator import OAS30Validator
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.servers.qdrant.conditions import (
    Unsupported,
    filter_of,
    only,
    payload_of,
    point_of,
    query_of,
    record,
)
from tests.servers.qdrant.storage import HIDDEN, Collection, Missing, Storage, Taken, Wrong

VERSION = "1.18.3"
_API = json.loads((Path(__file__).parent / "openapi.json").read_text())
_HNSW = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000, "max_indexing_threads": 0}
_OPTIMIZERS = {"default_segment_number": 0, "flush_interval_sec": 5}
_UPDATED = {"operation_id": 0, "status": "completed"}
_WRITES = ("wait", "ordering", "timeout")
_IN_PLACE = "/collections/{collection_name}/vectors/{vector_name}"


class Server:
    """The operations, by the path and method of the OpenAPI document."""

    def __init__(self, storage: Storage, *, api_key: str | None = None, version: str = VERSION) -> None:
        self._storage = storage
        self._api_key = api_key
        self._version = version

    def app(self) -> Starlette:
        """The application; a path that Qdrant has and we do not is 501, any other 404 without a body as Qdrant's."""
        operations: dict[tuple[str, str], Callable[..., Any]] = {
            ("get", "/"): self.info,
            ("get", "/collections"): self.list,
            ("get", "/aliases"): self.list_aliases,
            ("post", "/collections/aliases"): self.change_aliases,
            ("get", "/cluster"): self.cluster,
            ("get", "/collections/{collection_name}"): self.describe,
            ("put", "/collections/{collection_name}"): self.create,
            ("patch", "/collections/{collection_name}"): self.update,
            ("delete", "/collections/{collection_name}"): self.delete,
            ("get", "/collections/{collection_name}/exists"): self.exists,
            ("put", "/collections/{collection_name}/index"): self.create_index,
            ("delete", "/collections/{collection_name}/index/{field_name}"): self.delete_index,
            ("put", _IN_PLACE): self.create_vector,
            ("delete", _IN_PLACE): self.delete_vector,
            ("put", "/collections/{collection_name}/points"): self.upsert,
            ("post", "/collections/{collection_name}/points"): self.retrieve,
            ("post", "/collections/{collection_name}/points/delete"): self.delete_points,
            ("post", "/collections/{collection_name}/points/payload"): self.set_payload,
            ("post", "/collections/{collection_name}/points/scroll"): self.scroll,
            ("post", "/collections/{collection_name}/points/count"): self.count,
            ("post", "/collections/{collection_name}/points/query/batch"): self.query_batch,
            ("post", "/collections/{collection_name}/points/query"): self.query,
            ("post", "/collections/{collection_name}/facet"): self.facet,
            ("post", "/collections/{collection_name}/snapshots"): self.create_snapshot,
            ("get", "/collections/{collection_name}/snapshots"): self.list_snapshots,
            ("delete", "/collections/{collection_name}/snapshots/{snapshot_name}"): self.delete_snapshot,
        }
        raw = {
            ("get", "/collections/{collection_name}/snapshots/{snapshot_name}"): self.download,
            ("post", "/collections/{collection_name}/snapshots/upload"): self.upload,
        }
        routes = [Route(path, self._plain, methods=["GET"]) for path in ("/healthz", "/readyz", "/livez")]
        for (method, path), operation in operations.items():
            if path == _IN_PLACE and tuple(map(int, self._version.split("."))) < (1, 18):
                continue
            routes.append(Route(path, self._checked(method, path, operation), methods=[method]))
        for (method, path), operation in raw.items():
            routes.append(Route(path, self._guarded(operation), methods=[method]))
        routes.append(Route("/{path:path}", self._unknown, methods=["GET", "PUT", "POST", "PATCH", "DELETE"]))
        return Starlette(routes=routes)

    def info(self, _: Any) -> Any:
        return {"title": "qdrant - vector search engine", "version": self._version}

    def cluster(self, _: Any) -> Any:
        return {"status": "disabled"}

    def list(self, _: Any) -> Any:
        return {"collections": [{"name": name} for name in self._storage.collections]}

    def list_aliases(self, _: Any) -> Any:
        found = self._storage.aliases.items()
        return {"aliases": [{"alias_name": alias, "collection_name": to} for alias, to in found]}

    def change_aliases(self, body: Any) -> Any:
        self._storage.change_aliases(body["actions"])
        return True

    def describe(self, _: Any, collection_name: str) -> Any:
        found = self._storage.get(collection_name)
        count = found.edge.count(edge.CountRequest(exact=True))
        config = {"params": _params(found), "hnsw_config": _HNSW, "optimizer_config": _OPTIMIZERS}
        schema = {
            path: {"data_type": index if isinstance(index, str) else index["type"], "points": 0}
            | ({} if isinstance(index, str) else {"params": index})
            for path, index in found.config["indexes"].items()
        }
        return {
            "status": "green",
            "optimizer_status": "ok",
            "points_count": count,
            "indexed_vectors_count": 0,
            "segments_count": 1,
            "config": config | {"metadata": found.config["metadata"]},
            "payload_schema": schema,
        }

    def create(self, body: Any, collection_name: str) -> Any:
        self._storage.create(collection_name, body)
        return True

    def update(self, body: Any, collection_name: str) -> Any:
        only(body, "metadata")
        self._storage.really(collection_name).merge(body.get("metadata") or {})
        return True

    def delete(self, _: Any, collection_name: str) -> Any:
        return self._storage.delete(collection_name)

    def exists(self, _: Any, collection_name: str) -> Any:
        return {"exists": self._storage.aliases.get(collection_name, collection_name) in self._storage.collections}

    def create_index(self, body: Any, collection_name: str) -> Any:
        only(body, "field_name", "field_schema")
        self._storage.really(collection_name).create_index(body["field_name"], body["field_schema"])
        return _UPDATED

    def delete_index(self, _: Any, collection_name: str, field_name: str) -> Any:
        self._storage.really(collection_name).delete_index(field_name)
        return _UPDATED

    def create_vector(self, body: Any, collection_name: str, vector_name: str) -> Any:
        self._storage.really(collection_name).add_vector(vector_name, body)
        return _UPDATED

    def delete_vector(self, _: Any, collection_name: str, vector_name: str) -> Any:
        self._storage.really(collection_name).delete_vector(vector_name)
        return _UPDATED

    def upsert(self, body: Any, collection_name: str) -> Any:
        only(body, "points")
        found = self._storage.get(collection_name)
        for point in body["points"]:
            unknown = set(point["vector"]) - found.names
            if unknown:
                raise Wrong(f"Wrong input: Not existing vector name error: {sorted(unknown)[0]}")
        found.edge.update(edge.UpdateOperation.upsert_points([point_of(point) for point in body["points"]]))
        return _UPDATED

    def set_payload(self, body: Any, collection_name: str) -> Any:
        only(body, "payload", "points", "filter")
        found = self._storage.get(collection_name)
        if body.get("filter") is not None:
            where = filter_of(body["filter"])
            found.edge.update(edge.UpdateOperation.set_payload_by_filter(where, body["payload"]))
        else:
            found.edge.update(edge.UpdateOperation.set_payload(body["points"], body["payload"]))
        return _UPDATED

    def delete_points(self, body: Any, collection_name: str) -> Any:
        only(body, "points", "filter")
        found = self._storage.get(collection_name)
        if "points" in body:
            found.edge.update(edge.UpdateOperation.delete_points(body["points"]))
        else:
            found.edge.update(edge.UpdateOperation.delete_points_by_filter(filter_of(body["filter"])))
        return _UPDATED

    def retrieve(self, body: Any, collection_name: str) -> Any:
        only(body, "ids", "with_payload", "with_vector")
        found, vectors = self._storage.get(collection_name), body.get("with_vector") or False
        records = found.edge.retrieve(
            body["ids"], with_payload=payload_of(body.get("with_payload", True)), with_vector=vectors
        )
        return [record(one, found.names, vectors=vectors) for one in records]

    def scroll(self, body: Any, collection_name: str) -> Any:
        only(body, "filter", "limit", "offset", "with_payload", "with_vector")
        found, vectors = self._storage.get(collection_name), body.get("with_vector") or False
        records, offset = found.edge.scroll(
            edge.ScrollRequest(
                offset=body.get("offset"),
                limit=body.get("limit") or 10,
                filter=filter_of(body.get("filter")),
                with_payload=payload_of(body.get("with_payload", True)),
                with_vector=vectors,
            )
        )
        points = [record(one, found.names, vectors=vectors) for one in records]
        return {"points": points, "next_page_offset": None if offset is None else str(offset)}

    def count(self, body: Any, collection_name: str) -> Any:
        only(body, "filter", "exact")
        request = edge.CountRequest(exact=body.get("exact", True), filter=filter_of(body.get("filter")))
        return {"count": self._storage.get(collection_name).edge.count(request)}

    def query(self, body: Any, collection_name: str) -> Any:
        return self.query_batch({"searches": [body]}, collection_name)[0]

    def query_batch(self, body: Any, collection_name: str) -> Any:
        found = self._storage.get(collection_name)
        for one in body["searches"]:
            if one.get("using") not in found.names:
                raise Wrong(f"Wrong input: Not existing vector name error: {one.get('using')}")
        answers = found.edge.query_batch(edge.QueryBatchRequest([query_of(one) for one in body["searches"]]))
        return [
            {"points": [record(hit, found.names, vectors=one.get("with_vector")) for hit in answer]}
            for one, answer in zip(body["searches"], answers, strict=True)
        ]

    def facet(self, body: Any, collection_name: str) -> Any:
        only(body, "key", "limit", "filter", "exact")
        where, limit = filter_of(body.get("filter")), body.get("limit") or 10
        request = edge.FacetRequest(body["key"], limit=limit, exact=bool(body.get("exact")), filter=where)
        answer = self._storage.get(collection_name).edge.facet(request)
        return {"hits": [{"value": hit.value, "count": hit.count} for hit in answer]}

    def create_snapshot(self, _: Any, collection_name: str) -> Any:
        return _described(self._storage.snapshot(collection_name))

    def list_snapshots(self, _: Any, collection_name: str) -> Any:
        return [_described(path) for path in self._storage.snapshots(collection_name)]

    def delete_snapshot(self, _: Any, collection_name: str, snapshot_name: str) -> Any:
        self._storage.find_snapshot(collection_name, snapshot_name).unlink()
        return True

    async def download(self, request: Request) -> Response:
        return FileResponse(self._storage.find_snapshot(*request.path_params.values()))

    async def upload(self, request: Request) -> Response:
        async with request.form() as form:
            given: Any = form["snapshot"]
            with tempfile.NamedTemporaryFile() as file:
                while block := await given.read(1 << 20):
                    file.write(block)
                file.flush()
                self._storage.recover(request.path_params["collection_name"], Path(file.name))
        return JSONResponse({"result": True, "status": "ok", "time": 0.0})

    async def _plain(self, _: Request) -> Response:
        return PlainTextResponse("healthz check passed")

    async def _unknown(self, request: Request) -> Response:
        path = request.url.path
        if path.startswith("/collections/") and re.fullmatch(r"/collections/[^/]+/vectors/[^/]+", path):
            return Response(status_code=404)
        return _failed(501, f"the stand-in does not implement {request.method} {path}")

    def _guarded(self, operation: Any) -> Any:
        async def handle(request: Request) -> Response:
            if self._api_key is not None and request.headers.get("api-key") != self._api_key:
                return PlainTextResponse("Must provide an API key or an Authorization bearer token", 401)
            try:
                return await operation(request)  # type: ignore[no-any-return]
            except Missing as error:
                return _failed(404, str(error))
            except Taken as error:
                return _failed(409, str(error))
            except Unsupported as error:
                return _failed(501, f"the stand-in does not implement {error} of {request.method} {request.url.path}")
            except (Wrong, ValueError, TypeError) as error:
                return _failed(400, str(error))
            except Exception as error:
                known = "Wrong input" in str(error) or "dimension" in str(error) or "index" in str(error)
                return _failed(400 if known else 500, str(error))

        return handle

    def _checked(self, method: str, path: str, operation: Callable[..., Any]) -> Any:
        async def handle(request: Request) -> Response:
            content = await request.body()
            body = json.loads(content) if content else None
            wrong = _problem(_asked(method, path), body) if content else None
            if wrong:
                return _failed(400, f"Format error in JSON body: {wrong}")
            unknown = set(request.query_params) - {*_WRITES, "consistency"}
            if unknown:
                raise Unsupported(f"the parameter {sorted(unknown)[0]}")
            began = time.perf_counter()
            result = operation(body, **request.path_params)
            answer = {"result": result, "status": "ok", "time": time.perf_counter() - began}
            if path == "/":
                answer = result
            wrong = _problem(_answered(method, path), answer)
            if wrong:
                return _failed(500, f"the stand-in's answer does not fit Qdrant's OpenAPI: {wrong}")
            return Response(json.dumps(answer, allow_nan=False), media_type="application/json")

        return self._guarded(handle)


def _failed(status: int, message: str) -> Response:
    return JSONResponse({"status": {"error": message}, "time": 0.0}, status)


def _described(path: Path) -> dict[str, Any]:
    return {"name": path.name, "size": path.stat().st_size, "creation_time": None, "checksum": None}


def _params(found: Collection) -> dict[str, Any]:
    sparse = {name: params for name, params in found.config["sparse_vectors"].items() if name != HIDDEN}
    return {"vectors": found.config["vectors"], "sparse_vectors": sparse, "shard_number": 1, "replication_factor": 1}


@functools.cache
def _asked(method: str, path: str) -> Any:
    return _validator(_API["paths"][path][method]["requestBody"])


@functools.cache
def _answered(method: str, path: str) -> Any:
    return _validator(_API["paths"][path][method]["responses"]["200"])


def _validator(holder: Mapping[str, Any]) -> Any:
    schema = holder["content"]["application/json"]["schema"]
    return OAS30Validator({**schema, "components": _API["components"]})


def _problem(validator: Any, body: Any) -> str | None:
    """What is wrong with a body, None when nothing is."""
    error = next(validator.iter_errors(body), None)
    return None if error is None else f"{error.json_path}: {error.message[:300]}"
