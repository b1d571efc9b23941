"""Documents of a collection, their lineage, and the features that made them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Query

from mixpeek_operator.api import lists
from mixpeek_operator.api.bodies import JsonObject, wants_links
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.scope import Namespaced
from mixpeek_operator.api.services import Services
from mixpeek_operator.core.errors import NotFoundError, Problem, SpecError
from mixpeek_operator.core.listing import ListQuery
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.core.shapes import COUNT, expect

COLLECTION = "/v1/collections/{collection_identifier}"
ROOT = f"{COLLECTION}/documents"
ONE = f"{ROOT}/{{document_id}}"
Listing = Annotated[ListQuery, Depends(lists.query(default_limit=10))]


def router(services: Services) -> Routes:
    """Return the routes of documents."""
    routes = Routes(tags=["Collection Documents"])
    _reading(routes, services)
    _writing(routes, services)
    _lineage(routes, services)
    _anywhere(routes, services)
    return routes


def _reading(routes: Routes, services: Services) -> None:
    async def listed(
        where: Any, collection: str, query: ListQuery, body: dict[str, Any], vectors: bool, links: bool
    ) -> Json:
        group_by = body.get("group_by")
        page = await services.documents.list(
            where,
            collection,
            query,
            return_vectors=bool(body.get("return_vectors", vectors)),
            return_presigned_urls=wants_links(body, links),
            group_by=group_by if isinstance(group_by, str) else None,
        )
        shown = lists.envelope(page, query)
        if group_by:
            return Json({**shown, "results": [], "groups": shown["results"], "group_by_field": group_by})
        return Json(shown)

    @routes.post(f"{ROOT}/list", summary="List documents")
    async def list_documents(
        where: Namespaced,
        collection_identifier: str,
        query: Listing,
        body: JsonObject,
        return_vectors: bool = False,
        return_presigned_urls: bool = False,
    ) -> Json:
        return await listed(where, collection_identifier, query, body, return_vectors, return_presigned_urls)

    @routes.get(ROOT, summary="List documents")
    async def get_documents(
        where: Namespaced,
        collection_identifier: str,
        query: Listing,
        return_vectors: bool = False,
        return_presigned_urls: bool = False,
    ) -> Json:
        return await listed(where, collection_identifier, query, {}, return_vectors, return_presigned_urls)

    @routes.get(f"{ROOT}/count", summary="Count documents")
    async def count_documents(where: Namespaced, collection_identifier: str) -> Json:
        return Json(await services.documents.count(where, collection_identifier))

    @routes.get(ONE, summary="Get a document")
    async def get_document(
        where: Namespaced,
        collection_identifier: str,
        document_id: str,
        return_vectors: bool = False,
        return_presigned_urls: bool = False,
    ) -> Json:
        found = await services.documents.get(
            where,
            collection_identifier,
            document_id,
            return_vectors=return_vectors,
            return_presigned_urls=return_presigned_urls,
        )
        return Json(found)

    @routes.post(f"{ROOT}/aggregate", summary="Group and aggregate documents")
    async def aggregate_documents(where: Namespaced, collection_identifier: str, body: JsonObject) -> Json:
        return Json(await services.documents.aggregate(where, collection_identifier, body))

    @routes.post(f"{ROOT}/distinct", summary="Distinct values of a field", permission="read")
    async def distinct_values(where: Namespaced, collection_identifier: str, body: JsonObject) -> Json:
        field = body.get("field")
        if not isinstance(field, str):
            raise SpecError.of([Problem("missing", "name the field", location=("body", "field"))])
        expect(body, {"limit": COUNT})
        found = await services.documents.distinct(
            where, collection_identifier, field, filters=body.get("filters"), limit=body.get("limit") or 100
        )
        return Json(found)

    @routes.get(f"{COLLECTION}/features", tags=["Collections"], summary="Features a collection writes")
    async def get_features(where: Namespaced, collection_identifier: str) -> Json:
        return Json(await services.documents.features(where, collection_identifier))


def _writing(routes: Routes, services: Services) -> None:
    @routes.post(ROOT, summary="Write a document by hand")
    async def create_document(where: Namespaced, collection_identifier: str, body: JsonObject) -> Json:
        return Json(await services.documents.create(where, collection_identifier, body))

    @routes.put(ONE, summary="Replace the fields of a document")
    async def update_document(
        where: Namespaced, collection_identifier: str, document_id: str, body: JsonObject
    ) -> Json:
        return Json(await services.documents.update(where, collection_identifier, document_id, body))

    @routes.patch(ONE, summary="Change fields of a document")
    async def patch_document(where: Namespaced, collection_identifier: str, document_id: str, body: JsonObject) -> Json:
        return Json(await services.documents.patch(where, collection_identifier, document_id, body))

    @routes.delete(ONE, summary="Delete a document")
    async def delete_document(where: Namespaced, collection_identifier: str, document_id: str) -> Json:
        return Json(await services.documents.delete(where, collection_identifier, document_id))

    @routes.post(f"{ROOT}/batch", summary="Change many documents, each its own way")
    async def batch_update_documents(where: Namespaced, collection_identifier: str, body: JsonObject) -> Json:
        return Json(await services.documents.batch_update(where, collection_identifier, body))

    @routes.delete(f"{ROOT}/batch", summary="Delete many documents")
    async def batch_delete_documents(where: Namespaced, collection_identifier: str, body: JsonObject) -> Json:
        return Json(await services.documents.batch_delete(where, collection_identifier, body))

    @routes.patch(f"{ROOT}/bulk", summary="Change all documents that match a filter")
    async def bulk_update_documents(where: Namespaced, collection_identifier: str, body: JsonObject) -> Json:
        return Json(await services.documents.bulk_update(where, collection_identifier, body))


def _lineage(routes: Routes, services: Services) -> None:
    async def known(where: Scope, object_id: str) -> None:
        if not await services.objects.exists(where, object_id):
            raise NotFoundError(f"namespace {where.namespace!r} has no object {object_id!r}")

    @routes.get(f"{ONE}/lineage", tags=["Document Lineage"], summary="Where a document comes from")
    async def get_document_lineage(where: Namespaced, collection_identifier: str, document_id: str) -> Json:
        return Json(await services.documents.lineage(where, collection_identifier, document_id))

    @routes.get("/v1/objects/{object_id}/documents", tags=["Document Lineage"], summary="What was made of an object")
    async def get_documents_of_object(
        where: Namespaced, object_id: str, collection_ids: Annotated[list[str] | None, Query()] = None
    ) -> Json:
        found = await services.derived.of_object(where, object_id, collection_ids or ())
        if not found["documents"]:
            await known(where, object_id)
        return Json(found)

    @routes.get("/v1/objects/{object_id}/decomposition-tree", tags=["Document Lineage"])
    async def get_decomposition_tree(where: Namespaced, object_id: str, include_document_ids: bool = False) -> Json:
        """The tree of documents that were made of an object."""
        found = await services.derived.decomposition_tree(where, object_id, include_document_ids=include_document_ids)
        if not found["total_documents"]:
            await known(where, object_id)
        return Json(found)


def _anywhere(routes: Routes, services: Services) -> None:
    """Documents by id alone, in whichever collection of the namespace they are."""

    async def home(where: Scope, document_id: str) -> str:
        found = await services.documents.homes(where, [document_id])
        if document_id not in found:
            raise NotFoundError(f"no collection of namespace {where.namespace!r} has document {document_id!r}")
        return found[document_id]

    tags: list[Any] = ["Documents"]

    @routes.get("/v1/documents/{document_id}", tags=tags, summary="Get a document of any collection")
    async def get_any_document(where: Namespaced, document_id: str, return_vectors: bool = False) -> Json:
        collection = await home(where, document_id)
        return Json(await services.documents.get(where, collection, document_id, return_vectors=return_vectors))

    @routes.put("/v1/documents/{document_id}", tags=tags, summary="Replace the fields of a document")
    async def update_any_document(where: Namespaced, document_id: str, body: JsonObject) -> Json:
        return Json(await services.documents.update(where, await home(where, document_id), document_id, body))

    @routes.patch("/v1/documents/{document_id}", tags=tags, summary="Change fields of a document")
    async def patch_any_document(where: Namespaced, document_id: str, body: JsonObject) -> Json:
        return Json(await services.documents.patch(where, await home(where, document_id), document_id, body))

    @routes.post("/v1/documents/batch-get", tags=tags, summary="Get many documents", permission="read")
    async def get_documents_by_id(where: Namespaced, body: JsonObject) -> Json:
        ids = body.get("document_ids")
        if not isinstance(ids, list) or not all(isinstance(id, str) for id in ids) or len(ids) > lists.MAX_LIMIT:
            message = f"send at most {lists.MAX_LIMIT} ids as a list"
            raise SpecError.of([Problem("list_type", message, location=("body", "document_ids"))])
        homes = await services.documents.homes(where, ids)
        found = [await services.documents.get(where, homes[id], id) for id in ids if id in homes]
        return Json({"documents": found, "not_found": [id for id in ids if id not in homes]})
