"""Manifests: validate, lint, diff, apply, export and generate."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Request
from starlette.responses import Response

from mixpeek_operator.api import bodies
from mixpeek_operator.api.responses import Json, Yaml
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.scope import OfOrganization
from mixpeek_operator.api.services import Services
from mixpeek_operator.api.uploads import ManifestUpload, read_manifest
from mixpeek_operator.core.errors import Problem, SpecError

Mode = Literal["upsert", "create_missing", "create_only"]
Detail = Literal["config", "stats"]
_TEXT = {"type": "string", "description": "The manifest, in YAML or JSON."}
_FORM = {
    "type": "object",
    "required": ["manifest_file"],
    "properties": {
        "manifest_file": _TEXT,
        "parameters": {"type": "string", "description": "Values of the declared parameters, a JSON object."},
    },
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": _FORM}, "application/yaml": {"schema": _TEXT}},
    }
}
_NAMES = {"type": "array", "items": {"type": "string"}}
_EXPORT_BODY = {
    "requestBody": {
        "required": False,
        "content": {
            "application/json": {
                "schema": {"anyOf": [_NAMES, {"type": "object", "properties": {"namespace_ids": _NAMES}}]}
            }
        },
    }
}


def router(services: Services) -> Routes:
    """Routes of `/v1/manifest`."""
    routes = Routes(tags=["Manifest"])

    async def upload(request: Request) -> ManifestUpload:
        return await read_manifest(request, max_bytes=services.settings.max_manifest_bytes)

    _checks(routes, services, upload)
    _apply(routes, services, upload)
    _export(routes, services)
    return routes


Reader = Callable[[Request], Awaitable[ManifestUpload]]


def _checks(routes: Routes, services: Services, upload: Reader) -> None:
    @routes.post("/v1/manifest/validate", openapi_extra=_BODY)
    async def validate_manifest(scope: OfOrganization, request: Request) -> Json:
        given = await upload(request)
        return Json(await services.manifest.validate(scope.organization, given.files, values=given.values))

    @routes.post("/v1/manifest/lint", openapi_extra=_BODY)
    async def lint_manifest(
        scope: OfOrganization, request: Request, skip_rules: Annotated[list[str] | None, Query()] = None
    ) -> Json:
        given = await upload(request)
        skipped = [rule.strip() for item in skip_rules or () for rule in item.split(",") if rule.strip()]
        answer = await services.manifest.lint(scope.organization, given.files, values=given.values, skip_rules=skipped)
        return Json(answer)

    @routes.post("/v1/manifest/diff", openapi_extra=_BODY)
    async def diff_manifest(scope: OfOrganization, request: Request) -> Json:
        given = await upload(request)
        return Json(await services.manifest.diff(scope.organization, given.files, values=given.values))


def _apply(routes: Routes, services: Services, upload: Reader) -> None:
    @routes.post("/v1/manifest/apply", openapi_extra=_BODY)
    async def apply_manifest(
        scope: OfOrganization,
        request: Request,
        mode: Mode = "upsert",
        dry_run: bool = False,
        deadline_seconds: Annotated[float | None, Query(ge=1, le=1800)] = None,
        wait_for_seed: bool = False,
        run_acceptance: bool = False,
        wait_timeout_seconds: Annotated[float | None, Query(ge=0, le=1800)] = None,
    ) -> Json:
        given = await upload(request)
        answer = await services.manifest.apply(
            scope.organization,
            given.files,
            values=given.values,
            mode=mode,
            dry_run=dry_run,
            deadline_s=deadline_seconds if deadline_seconds is not None else wait_timeout_seconds,
            wait_for_seed=wait_for_seed,
            run_acceptance=run_acceptance,
        )
        return Json(answer)


def _export(routes: Routes, services: Services) -> None:
    async def answer(
        organization: str, namespaces: list[str] | None, form: str, name: str | None, detail: Detail
    ) -> Response:
        text: str = await services.manifest.export(
            organization, namespaces=namespaces, format=form, manifest_name=name, detail=detail
        )
        return Yaml(text) if form == "yaml" else Json(text.encode())

    @routes.get("/v1/manifest/export")
    async def export_manifest(
        scope: OfOrganization,
        namespace_id: Annotated[list[str] | None, Query()] = None,
        format: Literal["yaml", "json"] = "yaml",
        manifest_name: str | None = None,
        detail: Detail = "config",
    ) -> Response:
        return await answer(scope.organization, namespace_id or None, format, manifest_name, detail)

    @routes.post("/v1/manifest/export", openapi_extra=_EXPORT_BODY)
    async def export_manifest_of_namespaces(
        scope: OfOrganization,
        body: Annotated[Any, Depends(bodies.read)],
        format: Literal["yaml", "json"] = "yaml",
        manifest_name: str | None = None,
        detail: Detail = "config",
    ) -> Response:
        names = _namespaces(body)
        return await answer(scope.organization, names, format, manifest_name, detail)

    @routes.post("/v1/manifest/generate")
    async def generate_manifest(
        scope: OfOrganization,
        description: Annotated[str, Query(min_length=1, max_length=10_000)],
        manifest_name: str = "generated",
    ) -> Response:
        return Yaml(await services.manifest.generate(scope.organization, description, manifest_name=manifest_name))


def _namespaces(body: Any) -> list[str] | None:
    """The public API takes a bare list, newer clients an object with `namespace_ids`."""
    given = body.get("namespace_ids", body.get("namespace_id")) if isinstance(body, dict) else body
    if given is None:
        return None
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and all(isinstance(item, str) for item in given):
        return given or None
    message = "the body must be a list of namespace ids or names, or {namespace_ids: [...]}"
    raise SpecError.of([Problem("namespace_ids_invalid", message, location=("body", "namespace_ids"))])
