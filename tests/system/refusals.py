"""What every refusal has in common: an envelope, a place, nothing left behind."""

from __future__ import annotations

from typing import Any

import httpx
from tests.system.conftest import Library

Body = dict[str, Any]
SECRET = "s3cr3t-of-the-organization-0123456789"
DEEP = 10_000
TIMELY_S = 10.0
"""No bad input may keep a request longer, even on a busy machine."""
DOCUMENTS = "/v1/collections/sentences/documents"
ZZ = {"AND": [{"field": "category", "operator": "zz", "value": 1}]}
"""A filter with an operator that there is not."""


def export(http: httpx.Client) -> str:
    answer = http.get("/v1/manifest/export")
    assert answer.status_code == 200
    return answer.text


def refused(answer: httpx.Response, status: int | tuple[int, ...], *words: str) -> Body:
    """Check an error answer: its status, its envelope, and that it says what and where."""
    accepted = (status,) if isinstance(status, int) else status
    assert answer.status_code in accepted, f"{answer.status_code}: {answer.text[:600]}"
    body: Body = answer.json()
    assert body["success"] is False
    assert body["status"] == answer.status_code
    assert set(body["error"]) == {"message", "type", "code", "details"}
    clean(answer.text)
    for word in words:
        assert word in body["error"]["message"], f"no {word!r} in: {body['error']['message'][:600]}"
    assert answer.elapsed.total_seconds() < TIMELY_S
    return dict(body["error"])


def clean(text: str) -> None:
    assert "Traceback" not in text
    assert 'File "' not in text
    assert SECRET not in text


def state(library: Library) -> tuple[Any, ...]:
    """Return all that a bad request could leave behind in the library."""
    http = library.place.http
    lists = ["/v1/buckets", "/v1/collections", "/v1/retrievers", DOCUMENTS]
    lists += [f"/v1/buckets/texts/{plural}" for plural in ("objects", "batches", "uploads")]
    found = []
    for path in lists:
        answer = http.post(f"{path}/list", json={"limit": 1000})
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["results"])
    return (*found, export(http))
