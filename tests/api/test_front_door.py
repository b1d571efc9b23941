"""What holds for every route: one error envelope, request ids, limits, scopes, metrics, a valid OpenAPI document."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Annotated, Any

import httpx
import mixpeek
import orjson
import pytest
from fastapi import Depends, Request
from openapi_spec_validator import validate as validate_openapi
from prometheus_client import CollectorRegistry
from starlette.requests import ClientDisconnect

from mixpeek_operator.api import auth, bodies, lists
from mixpeek_operator.api.app import create_app
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.scope import Namespaced
from mixpeek_operator.core import errors, logging
from mixpeek_operator.core.listing import ListPage, ListQuery
from mixpeek_operator.core.settings import Settings

_PLANTED = "planted-value-7f3a"
_RAISED: dict[str, tuple[Exception, int, str]] = {
    "spec": (
        errors.SpecError.of(
            [
                errors.Problem("a", "first", errors.Place(file="m.yaml", line=3, column=7), location=("buckets", 0)),
                errors.Problem("b", "second", errors.Place(path="stages.0")),
            ]
        ),
        422,
        "ValidationError",
    ),
    "bad": (errors.BadRequestError("no"), 400, "BadRequestError"),
    "unauthorized": (errors.UnauthorizedError("no"), 401, "UnauthorizedError"),
    "forbidden": (errors.ForbiddenError("no"), 403, "ForbiddenError"),
    "missing": (errors.NotFoundError("no"), 404, "NotFoundError"),
    "exists": (errors.AlreadyExistsError("no"), 409, "AlreadyExistsError"),
    "conflict": (errors.ConflictError("no"), 409, "ConflictError"),
    "large": (errors.TooLargeError("no"), 413, "BadRequestError"),
    "rate": (errors.RateLimitedError("no"), 429, "TooManyRequestsError"),
    "refused": (errors.RefusedError("no"), 502, "InternalServerError"),
    "away": (errors.UnavailableError("no"), 503, "InternalServerError"),
    "model": (errors.ModelUnavailableError("no"), 503, "InferenceServiceUnavailableError"),
    "bug": (errors.InternalError("no"), 500, "InternalServerError"),
    "surprise": (RuntimeError(_PLANTED), 500, "InternalServerError"),
}


@pytest.fixture
async def toy(world: Any, settings: Settings) -> AsyncIterator[Any]:
    """The app with three routes of its own, added as a routes module adds them."""
    app = create_app(replace(world.services, metrics=CollectorRegistry()), settings)
    routes = Routes(tags=["Toys"])

    @routes.get("/v1/toys/raise/{name}")
    async def fail(name: str) -> Json:
        raise _RAISED[name][0]

    @routes.post("/v1/toys/list")
    async def list_toys(scope: Namespaced, query: Annotated[ListQuery, Depends(lists.query())]) -> Json:
        page = ListPage([{"namespace": scope.namespace_id}], 41, "more")
        return Json({**lists.envelope(page, query), "limit": query.limit})

    @routes.post("/v1/toys/count/{number}")
    async def count(number: int, body: Annotated[Any, Depends(bodies.read)], size: int = 1) -> Json:
        return Json({"number": number, "size": size, "body": body})

    app.router.routes.extend(routes.routes)
    headers = {"Authorization": f"Bearer {world.admin}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server", headers=headers) as http:
        yield SimpleNamespace(app=app, http=http, world=world)


def _checked(answer: httpx.Response, status: int, type: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"success", "status", "error"}
    assert (body["success"], body["status"]) == (False, status)
    assert body["error"]["type"] == type
    assert body["error"]["message"]
    assert mixpeek.ErrorResponse.from_dict(body) is not None
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize("name", _RAISED)
async def test_every_error_leaves_in_one_envelope(toy: Any, name: str) -> None:
    _, status, type_ = _RAISED[name]
    answer = await toy.http.get(f"/v1/toys/raise/{name}")
    error = _checked(answer, status, type_)
    assert _PLANTED not in answer.text
    if name == "spec":
        assert error["details"]["validation_errors"] == [
            {
                "type": "a",
                "location": ["body", "buckets", 0],
                "message": "first",
                "place": {"file": "m.yaml", "line": 3, "column": 7},
            },
            {"type": "b", "location": ["body", "stages", "0"], "message": "second"},
        ]
    if name in ("rate", "away"):
        assert int(answer.headers["retry-after"]) >= 1
        assert error["details"]["retryable"] is True
    if name == "model":
        assert error["details"]["retryable"] is False
        assert "retry-after" not in answer.headers
    if name in ("bug", "surprise"):
        assert error["details"]["log_id"] == answer.headers["x-request-id"]


async def test_a_direct_route_fails_as_every_other(world: Any, settings: Settings) -> None:
    async def fail(scope: Any, name: str, *_: Any) -> None:
        raise _RAISED[name][0]

    world.namespaces.add(world.organization, "ns_1", "shop")
    retrieval: Any = SimpleNamespace(answer=fail)
    app = create_app(replace(world.services, retrieval=retrieval, metrics=CollectorRegistry()), settings)
    headers = {"Authorization": f"Bearer {world.admin}", "X-Request-ID": "mine"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server", headers=headers) as http:
        for name, (_, status, type_) in _RAISED.items():
            failed = await http.post(f"/v1/retrievers/{name}/execute", json={})
            _checked(failed, status, type_)
            assert failed.headers["x-request-id"] == "mine"
            assert _PLANTED not in failed.text
        _checked(await http.post("/v1/retrievers/bug/execute", content=b"{"), 400, "BadRequestError")
        _checked(await http.get("/v1/retrievers/bug/execute"), 405, "BadRequestError")
        nobody = {"Authorization": "Bearer sk_nobody"}
        _checked(await http.post("/v1/retrievers/bug/execute", headers=nobody), 401, "UnauthorizedError")
        counted = (await http.get("/metrics")).text
    assert 'method="POST",route="/v1/retrievers/{retriever_id}/execute",status="502"' in counted


@pytest.mark.parametrize(
    ("method", "path", "status", "type_"),
    [
        ("GET", "/nothing", 404, "NotFoundError"),
        ("GET", "/v1/nothing", 404, "NotFoundError"),
        ("GET", "/v1/nothing/", 404, "NotFoundError"),
        ("PUT", "/v1/me", 405, "BadRequestError"),
        ("BREW", "/v1/me", 405, "BadRequestError"),
    ],
)
async def test_what_does_not_exist_has_the_envelope_too(
    toy: Any, method: str, path: str, status: int, type_: str
) -> None:
    answer = await toy.http.request(method, path)
    _checked(answer, status, type_)
    if status == 405:
        assert answer.headers["allow"] == "GET"


async def test_a_wrong_method_hears_all_right_ones(toy: Any) -> None:
    answer = await toy.http.request("DELETE", "/v1/organizations/secrets")
    assert answer.headers["allow"] == "GET, POST"


async def test_strange_addresses_are_errors_of_the_caller(toy: Any) -> None:
    paths = [
        "/v1/organizations/users/%00",
        "/v1/organizations/users/%FF",
        "/v1/organizations/users/a%2Fb",
        "/v1/organizations/secrets/..%2F..%2Fetc",
        "/v1/organizations/users?limit=%FF",
        "/v1/organizations/users?skip=99999999999999999999999",
        "/v1/organizations/users/" + "x" * 5000,
        "/" + "a/" * 500,
    ]
    for path in paths:
        for method in ("GET", "DELETE", "PUT", "POST"):
            answer = await toy.http.request(method, path, content=b'{"secret_value": "x"}')
            assert 400 <= answer.status_code < 500, (method, path, answer.text)
            assert answer.json()["success"] is False


async def test_parameters_are_reported_all_at_once(toy: Any) -> None:
    error = _checked(await toy.http.post("/v1/toys/count/many?size=big", json={}), 422, "ValidationError")
    found = {tuple(item["location"]) for item in error["details"]["validation_errors"]}
    assert found == {("path", "number"), ("query", "size")}


async def test_every_mistake_in_a_body_is_reported(toy: Any) -> None:
    body = {"email": "nobody", "role": "king", "extra": 1}
    error = _checked(await toy.http.post("/v1/organizations/users", json=body), 422, "ValidationError")
    found = {item["location"][-1] for item in error["details"]["validation_errors"]}
    assert found == {"email", "user_name", "role", "extra"}
    assert all(item["location"][0] == "body" for item in error["details"]["validation_errors"])


@pytest.mark.parametrize("body", [b"{", b"{'a': 1}", b"\xff\xfe", b"{} {}"])
async def test_broken_json_is_a_bad_request(toy: Any, body: bytes) -> None:
    error = _checked(await toy.http.post("/v1/organizations/users", content=body), 400, "BadRequestError")
    assert error["code"] == "json_invalid"


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"1"])
async def test_a_body_that_is_no_object_is_invalid(toy: Any, body: bytes) -> None:
    _checked(await toy.http.post("/v1/organizations/users", content=body), 422, "ValidationError")


async def test_a_body_over_the_limit_is_refused_with_and_without_a_length(toy: Any, settings: Settings) -> None:
    large = b" " * (settings.max_body_bytes + 1)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield large[: len(large) // 5]

    for content in (large, chunks()):
        error = _checked(await toy.http.post("/v1/organizations/users", content=content), 413, "BadRequestError")
        assert error["details"]["limit_bytes"] == settings.max_body_bytes
    exact = json.dumps({"secret_name": "big", "secret_value": ""})
    filled = exact.replace('""', f'"{"x" * (settings.max_body_bytes - len(exact))}"')
    assert (await toy.http.post("/v1/organizations/secrets", content=filled)).status_code == 200


async def test_a_request_keeps_its_id_or_gets_one(toy: Any) -> None:
    given = await toy.http.get("/v1/me", headers={"X-Request-ID": "abc-123"})
    made = await toy.http.get("/v1/me")
    forged = await toy.http.get("/v1/me", headers={"X-Request-ID": "two words"})
    assert given.headers["x-request-id"] == "abc-123"
    assert made.headers["x-request-id"].startswith("req_")
    assert forged.headers["x-request-id"].startswith("req_")


async def test_the_namespace_may_be_left_out_only_when_there_is_one(toy: Any) -> None:
    namespaces, organization = toy.world.namespaces, toy.world.organization
    namespaces.add("int_other", "ns_theirs", "theirs")
    none = await toy.http.post("/v1/toys/list")
    assert _checked(none, 400, "BadRequestError")["code"] == "namespace_required"
    namespaces.add(organization, "ns_a", "alpha")
    only = await toy.http.post("/v1/toys/list")
    assert only.json()["results"] == [{"namespace": "ns_a"}]
    namespaces.add(organization, "ns_b", "beta")
    several = await toy.http.post("/v1/toys/list")
    assert _checked(several, 400, "BadRequestError")["details"]["namespaces"] == ["alpha", "beta"]
    for identifier in ("ns_b", "beta"):
        answer = await toy.http.post("/v1/toys/list", headers={"X-Namespace": identifier})
        assert answer.json()["results"] == [{"namespace": "ns_b"}]
    for identifier in ("ns_theirs", "theirs", "ns_none"):
        _checked(await toy.http.post("/v1/toys/list", headers={"X-Namespace": identifier}), 404, "NotFoundError")


async def test_a_list_reads_query_and_body_and_the_body_wins(toy: Any) -> None:
    toy.world.namespaces.add(toy.world.organization, "ns_a", "alpha")
    answer = await toy.http.post("/v1/toys/list?limit=5&page=3", json={"limit": 10})
    assert answer.json() == {
        "results": [{"namespace": "ns_a"}],
        "total_count": 41,
        "pagination": {
            "total": 41,
            "page": 3,
            "page_size": 10,
            "total_pages": 5,
            "next_page": "4",
            "previous_page": "2",
            "next_cursor": "more",
        },
        "limit": 10,
    }
    assert mixpeek.PaginationResponse.from_dict(answer.json()["pagination"]) is not None


async def test_health_asks_every_part(toy: Any) -> None:
    async def broken() -> None:
        raise errors.UnavailableError("the disk is full")

    async def surprising() -> None:
        raise ValueError(_PLANTED)

    checks = toy.world.services.health_checks
    fine = await toy.http.get("/v1/health")
    assert fine.status_code == 200
    read = mixpeek.HealthCheckResponse.from_dict(fine.json())
    assert read is not None
    assert read.status.value == "OK"
    checks["inference"] = broken
    degraded = await toy.http.get("/v1/health")
    assert (degraded.status_code, degraded.json()["status"]) == (200, "DEGRADED")
    checks["metadata"], checks["task_queue"] = broken, surprising
    down = await toy.http.get("/v1/health")
    assert down.status_code == 503
    assert down.json()["data"]["metadata"] is False
    assert down.json()["data"]["cache"] is True
    assert down.json()["errors"]["metadata"] == "the disk is full"
    assert "ValueError" in down.json()["errors"]["task_queue"]
    assert _PLANTED not in down.text
    assert (await toy.http.get("/v1/health/beat")).status_code == 503
    assert (await toy.http.get("/v1/health/liveness")).status_code == 200
    assert mixpeek.HealthCheckResponse.from_dict(down.json()) is not None


async def test_metrics_count_by_route_template(toy: Any) -> None:
    await toy.http.get("/v1/toys/raise/missing")
    await toy.http.get("/v1/nothing/42")
    text = (await toy.http.get("/metrics")).text
    assert 'mixpeek_http_requests_total{method="GET",route="/v1/toys/raise/{name}",status="404"} 1.0' in text
    assert 'route="unmatched",status="404"' in text
    assert "/v1/nothing/42" not in text


async def test_the_openapi_document_is_valid_and_complete(toy: Any) -> None:
    document = (await toy.http.get("/openapi.json")).json()
    validate_openapi(document)
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    ids = [operation["operationId"] for _, _, operation in operations]
    assert len(ids) == len(set(ids))
    for path, _, operation in operations:
        either = None if auth.is_public(path) else [{"BearerAuth": []}, {"ApiKeyAuth": []}]
        assert operation.get("security") == either, path
        assert operation["responses"]["default"]["content"]["application/json"]["schema"] == {
            "$ref": "#/components/schemas/ErrorResponse"
        }
    created = document["paths"]["/v1/organizations/users"]["post"]
    assert created["requestBody"]["content"]["application/json"]["schema"]["required"] == ["email", "user_name"]
    assert "HTTPValidationError" not in document["components"]["schemas"]
    listed = document["paths"]["/v1/toys/list"]["post"]["parameters"]
    assert {"X-Namespace", "limit", "cursor"} <= {item["name"] for item in listed}


async def test_a_body_in_pieces_is_read_whole_and_a_client_that_leaves_is_told() -> None:
    pieces: list[Any] = [
        {"type": "http.request", "body": b"on", "more_body": True},
        {"type": "http.request", "more_body": True},
        {"type": "http.request", "body": b"e"},
        {"type": "http.request", "body": b"tw", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        return pieces.pop(0)

    assert await bodies.raw(Request({"type": "http"}, receive)) == b"one"
    with pytest.raises(ClientDisconnect):
        await bodies.raw(Request({"type": "http"}, receive))


class _Awaited(io.StringIO):
    """Tells when something was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = asyncio.Event()

    def write(self, text: str) -> int:
        self.written.set()
        return super().write(text)


async def test_a_line_of_the_access_log_is_written_soon_by_itself(toy: Any) -> None:
    stream = _Awaited()
    logging.configure("info", "json", stream)
    try:
        await toy.http.get("/v1/me")
        async with asyncio.timeout(60):
            await stream.written.wait()
    finally:
        _quiet()
    assert '"answered"' in stream.getvalue()


async def test_logs_are_structured_and_hold_no_key(toy: Any) -> None:
    stream = io.StringIO()
    logging.configure("debug", "json", stream)
    try:
        await toy.http.get("/v1/me")
        await toy.http.get("/v1/toys/raise/surprise")
        between = datetime.now(UTC)
        toy.app.access.flush()
    finally:
        _quiet()
    lines = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    answered = [line for line in lines if line["event"] == "answered"]
    assert [line["status"] for line in answered] == [200, 500]
    assert answered[0]["route"] == "/v1/me"
    assert answered[0]["organization"] == toy.world.organization
    # A line tells when its request was answered, not when it was written.
    assert all(datetime.fromisoformat(line["timestamp"]) <= between for line in answered)
    assert "RuntimeError" in next(line for line in lines if line["level"] == "error")["exception"]
    assert toy.world.admin not in stream.getvalue()


def _quiet() -> None:
    import logging as standard

    import structlog

    structlog.reset_defaults()
    standard.getLogger().handlers.clear()
