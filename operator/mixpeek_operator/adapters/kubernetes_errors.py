"""What the API server answers, as errors that say who has to act."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixpeek_operator.core.errors import (
    AlreadyExistsError,
    BadRequestError,
    ConflictError,
    MixpeekError,
    NotFoundError,
    Place,
    Problem,
    RateLimitedError,
    RefusedError,
    SpecError,
    TooLargeError,
    UnavailableError,
)


class Expired(UnavailableError):
    """A watch or a page wants a version that the API server has forgotten: begin with a new listing."""

    default_code = "expired"


def error_of(status: int, body: Mapping[str, Any], request: str, retry_after: str | None = None) -> MixpeekError:
    """Return the error of an answer: NotFoundError, AlreadyExistsError, ConflictError, SpecError with the API server's
    causes, TooLargeError, BadRequestError, RefusedError for what credentials or RBAC lack, RateLimitedError, Expired,
    UnavailableError.
    """
    message = str(body.get("message") or f"status {status}")
    reason = str(body.get("reason") or "")
    details: Mapping[str, Any] = body.get("details") or {}
    causes = [item for item in details.get("causes") or () if isinstance(item, dict)]
    match status:
        case 401:
            return RefusedError(
                "the Kubernetes API server does not accept our credentials; check service account or kubeconfig",
                code="kubernetes_unauthorized",
            )
        case 403 if any(item.get("reason") == "NamespaceTerminating" for item in causes):
            return ConflictError(f"the Kubernetes namespace is being deleted: {message}", code="namespace_terminating")
        case 403:
            return RefusedError(
                f"the Kubernetes API server refuses: {message}; let an administrator grant it or lift the quota",
                code="kubernetes_forbidden",
            )
        case 404:
            return NotFoundError(message)
        case 405:
            return BadRequestError(f"{request}: {message}")
        case 409 if reason == "AlreadyExists":
            return AlreadyExistsError(message)
        case 409 if causes:
            listed = "; ".join(f"{item.get('field')}: {item.get('message')}" for item in causes)
            return ConflictError(
                f"others have these fields: {listed}", code="field_conflict", details={"causes": causes}
            )
        case 409:
            return ConflictError(message)
        case 410:
            return Expired(message)
        case 413:
            return TooLargeError(message)
        case 422:
            return _invalid(message, causes)
        case 400 if "strict decoding error" in message or "unknown field" in message:
            return SpecError(message, problems=[Problem("unknown_field", message)])
        case 400:
            return BadRequestError(f"{request}: {message}")
        case 429:
            after = (details.get("retryAfterSeconds") or retry_after) or 1
            return RateLimitedError(message, details={"retry_after_s": float(after)})
        case 500 if "field not declared in schema" in message:
            # Server-side apply tells of an unknown field in this way.
            return SpecError(message, problems=[Problem("unknown_field", message)])
        case _:
            return UnavailableError(f"the Kubernetes API server answers {status}: {message}")


def _invalid(message: str, causes: list[dict[str, Any]]) -> MixpeekError:
    problems = [
        Problem(
            "immutable_field" if "cannot change" in str(item.get("message")) else "invalid_value",
            str(item.get("message")),
            Place(path=str(item.get("field") or "") or None),
        )
        for item in causes
    ]
    if problems and all(problem.code == "immutable_field" for problem in problems):
        fields = [str(problem.place.path) for problem in problems]
        text = "; ".join(str(problem) for problem in problems)
        return ConflictError(text, code="immutable_field", details={"fields": fields})
    return SpecError.of(problems) if problems else SpecError(message)
