"""pymongo's exceptions as ours. No message holds credentials: hosts are named by the client, never by its URI."""

from __future__ import annotations

from bson.errors import BSONError
from pymongo import errors

from mixpeek_operator.core.errors import (
    InternalError,
    MixpeekError,
    RefusedError,
    SpecError,
    TooLargeError,
    UnavailableError,
)

_REFUSED = frozenset({8000, 11, 13, 18, 31, 33, 334})
"""Codes of authentication and authorization (and Atlas' own)."""
_PASSING = frozenset({24, 46, 50, 89, 91, 112, 133, 134, 189, 202, 251, 262, 290, 14031, 10107, 11600, 11602, 13435})
"""Codes of a server that is busy, full, or changing its primary."""


def translate(error: Exception, place: str) -> MixpeekError:
    """Return our error for one of pymongo's, the most specific that fits."""
    if isinstance(error, errors.DocumentTooLarge):
        return TooLargeError("a record is larger than MongoDB takes (16 MiB)")
    if isinstance(error, BSONError | errors.InvalidOperation | errors.InvalidName) or not isinstance(
        error, errors.PyMongoError
    ):
        return InternalError(f"MongoDB: {error}")
    if isinstance(error, errors.ConfigurationError):
        return SpecError(f"the URI of MongoDB does not fit: {error}")
    if isinstance(error, errors.OperationFailure):
        code = error.code or 0
        if code in _REFUSED:
            return RefusedError(f"MongoDB at {place} refuses these credentials (code {code})")
        if error.has_error_label("UnknownTransactionCommitResult"):
            return UnavailableError(f"MongoDB at {place} does not tell whether it wrote; read again (code {code})")
        if code in _PASSING or error.timeout or isinstance(error, errors.WriteConcernError):
            return UnavailableError(f"MongoDB at {place} cannot do this now (code {code})")
        return InternalError(f"MongoDB at {place} refused what we sent (code {code}): {error}")
    return UnavailableError(f"MongoDB at {place} does not answer ({type(error).__name__})")
