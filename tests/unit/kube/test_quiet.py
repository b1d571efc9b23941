from __future__ import annotations

import logging

import pytest
from kopf._cogs.clients.errors import APIForbiddenError, APIServerError

from mixpeek_operator.kube.events import _Quiet

FORBIDDEN = APIForbiddenError('secrets "mixpeek-secrets" is forbidden', status=403, headers={})
AWAY = APIServerError(None, status=503, headers={})


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (f"Request attempt #1 failed; will retry: GET /api/v1/secrets -> {FORBIDDEN!r}", True),
        (f"Request attempt #2 failed; will retry: GET /api/v1/secrets -> {FORBIDDEN!r}", False),
        (f"Request attempt #12 failed; will retry: GET /api/v1/secrets -> {FORBIDDEN!r}", False),
        (f"Request attempt #1 failed; will retry: GET /api/v1/secrets -> {AWAY!r}", False),
        ("OS signals are ignored: running not in the main thread.", False),
        ("Unresolved resources cannot be served", True),
    ],
)
def test_a_missing_right_is_told_once_and_retries_are_not(message: str, told: bool) -> None:
    assert _Quiet().filter(logging.LogRecord("kopf", logging.ERROR, "", 0, message, None, None)) is told
