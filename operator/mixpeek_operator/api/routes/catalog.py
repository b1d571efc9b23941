"""What can be used in a declaration: stages and extractors, as the public SDK asks for them."""

from __future__ import annotations

from fastapi import Request

from mixpeek_operator.api import scope
from mixpeek_operator.api.catalog import extractor_item, in_category, stage_item
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.services import Services
from mixpeek_operator.core.catalog import ExtractorInfo
from mixpeek_operator.core.errors import NotFoundError


def router(services: Services) -> Routes:
    """Return the routes of stages and extractors."""
    routes = Routes(tags=["Feature Extractors"])

    def named(identifier: str) -> ExtractorInfo:
        for info in services.catalog.extractors().values():
            if identifier in (info.id, info.name):
                return info
        known = ", ".join(info.id for info in services.catalog.extractors().values())
        raise NotFoundError(f"no extractor {identifier!r}; there are {known}")

    @routes.get("/v1/retrievers/stages", tags=["Retriever Stages"], summary="Stages a retriever can have")
    async def list_retriever_stages(category: str | None = None) -> Json:
        found = [info for _, info in sorted(services.catalog.stages().items())]
        return Json([stage_item(info) for info in found if in_category(info, category)])

    @routes.get("/v1/collections/features/extractors", summary="Extractors a collection can use")
    async def list_feature_extractors() -> Json:
        return Json([extractor_item(info) for _, info in sorted(services.catalog.extractors().items())])

    @routes.get("/v1/collections/features/extractors/{feature_extractor_id}", summary="Get an extractor")
    async def get_feature_extractor(feature_extractor_id: str) -> Json:
        return Json(extractor_item(named(feature_extractor_id)))

    @routes.get("/v1/namespaces/{namespace_id}/extractors", tags=["Namespace Extractors"])
    async def list_extractors_of_namespace(request: Request, namespace_id: str, source: str | None = None) -> Json:
        """Extractors that can be used in a namespace."""
        where = await scope.resolve(request, namespace_id)
        found = [extractor_item(info) for _, info in sorted(services.catalog.extractors().items())]
        shown = [item for item in found if source in (None, item["source"])]
        builtin = sum(item["source"] == "builtin" for item in found)
        return Json(
            {
                "success": True,
                "extractors": shown,
                "total": len(shown),
                "namespace_id": where.namespace_id,
                "builtin_count": builtin,
                "custom_count": len(found) - builtin,
            }
        )

    @routes.get("/v1/namespaces/{namespace_id}/extractors/{extractor_id}", tags=["Namespace Extractors"])
    async def get_extractor_of_namespace(request: Request, namespace_id: str, extractor_id: str) -> Json:
        """One extractor that can be used in a namespace."""
        await scope.resolve(request, namespace_id)
        return Json(extractor_item(named(extractor_id)))

    return routes
