"""The one error hierarchy.

    MixpeekError
    ├── SpecError            the user edits what they declared or sent (422, carries every problem found)
    ├── BadRequestError      the request itself cannot be read (400)
    ├── UnauthorizedError    no valid API key (401)
    ├── ForbiddenError       the key lacks a permission (403)
    ├── NotFoundError        no such resource in this namespace (404)
    ├── AlreadyExistsError   a name is taken (409)
    ├── ConflictError        the state or version does not allow it (409)
    ├── TooLargeError        a body, file or document is over its limit (413)
    ├── RateLimitedError     slow down (429)
    ├── RefusedError         an admin acts: quota, credentials, a provider's refusal (502)
    ├── UnavailableError     a backend will recover; retry with backoff (503)
    │   └── ModelUnavailableError   a model cannot be loaded or reached (503)
    ├── NotEnabledError      this server has no such ability (501)
    └── InternalError        our bug (500)

Adapters map vendor exceptions to these at the edge. A message never holds a secret's value and says
what the reader can do. Validators return `list[Problem]` and never stop at the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Place:
    """Where a problem is; every part is optional, lines and columns count from 1."""

    file: str | None = None
    line: int | None = None
    column: int | None = None
    resource: str | None = None
    path: str | None = None

    def __str__(self) -> str:
        position = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return " ".join(part for part in (position, self.resource, self.path) if part)


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding of a validator: a stable code, a message to act on, and its place."""

    code: str
    message: str
    place: Place = field(default_factory=Place)
    severity: str = "error"
    location: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        where = str(self.place)
        return f"{where}: {self.message}" if where else self.message


class MixpeekError(Exception):
    """Base of every error this product raises on purpose."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "InternalServerError"
    default_code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        place: Place | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.place = place
        self.details: dict[str, Any] = dict(details or {})

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place and str(self.place) else self.message


class SpecError(MixpeekError):
    """What the user declared or sent is wrong; `problems` holds every finding."""

    status = 422
    type = "ValidationError"
    default_code = "spec_invalid"

    def __init__(
        self,
        message: str,
        *,
        problems: Sequence[Problem] = (),
        code: str | None = None,
        place: Place | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code=code, place=place, details=details)
        self.problems = tuple(problems)

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> SpecError:
        """Build one error whose message lists every problem."""
        return cls("; ".join(str(problem) for problem in problems), problems=problems, code=problems[0].code)


class BadRequestError(MixpeekError):
    """The request cannot be read."""

    status = 400
    type = "BadRequestError"
    default_code = "bad_request"


class UnauthorizedError(MixpeekError):
    """No valid API key."""

    status = 401
    type = "UnauthorizedError"
    default_code = "unauthorized"


class ForbiddenError(MixpeekError):
    """The key is known but lacks the permission."""

    status = 403
    type = "ForbiddenError"
    default_code = "forbidden"


class NotFoundError(MixpeekError):
    """No such thing in this organization and namespace."""

    status = 404
    type = "NotFoundError"
    default_code = "not_found"


class AlreadyExistsError(MixpeekError):
    """The name is taken."""

    status = 409
    type = "AlreadyExistsError"
    default_code = "already_exists"


class ConflictError(MixpeekError):
    """The state or the version of the resource does not allow this."""

    status = 409
    type = "ConflictError"
    default_code = "conflict"


class TooLargeError(MixpeekError):
    """A body, file or document is over its limit."""

    status = 413
    type = "BadRequestError"
    default_code = "too_large"


class RateLimitedError(MixpeekError):
    """Too many requests."""

    status = 429
    type = "TooManyRequestsError"
    default_code = "rate_limited"
    retryable = True


class RefusedError(MixpeekError):
    """A backend or provider refused; an administrator has to act."""

    status = 502
    type = "InternalServerError"
    default_code = "backend_refused"


class UnavailableError(MixpeekError):
    """A backend is away and will recover."""

    status = 503
    type = "InternalServerError"
    default_code = "backend_unavailable"
    retryable = True


class ModelUnavailableError(UnavailableError):
    """A model cannot be loaded or reached; the message names the setting to change."""

    type = "InferenceServiceUnavailableError"
    default_code = "model_unavailable"
    retryable = False


class NotEnabledError(MixpeekError):
    """What is asked for is known and this server does not do it; asking again does not help."""

    status = 501
    type = "NotEnabledError"
    default_code = "not_implemented"


class InternalError(MixpeekError):
    """Our bug."""
