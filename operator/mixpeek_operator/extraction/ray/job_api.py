"""Ray's job submission API over HTTP.

Plain HTTP, because Ray's own client would bring all of Ray into the server, and blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from mixpeek_operator.core.errors import RefusedError, UnavailableError
from mixpeek_operator.extraction.ray.endpoints import Endpoints

ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
_LOG_LINES = 5


class JobApi:
    """Jobs of one cluster. Raises UnavailableError when it is away, RefusedError when it refuses us."""

    def __init__(self, http: httpx.AsyncClient, endpoints: Endpoints) -> None:
        self._http = http
        self._url = f"{endpoints.dashboard_url.rstrip('/')}/api/jobs/"
        self._headers = {"Authorization": f"Bearer {endpoints.token}"} if endpoints.token else {}

    async def submit(
        self, id: str, entrypoint: str, environment: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        """Start a job. Its environment is shown to nobody: Ray's own answers leave it out."""
        body = {
            "submission_id": id,
            "entrypoint": entrypoint,
            "runtime_env": {"env_vars": dict(environment)},
            "metadata": dict(metadata),
        }
        answer = await self._call("POST", "", json=body)
        self._check(answer)

    async def status(self, id: str) -> tuple[str, str] | None:
        """Status and message of a job, None when there is no such job."""
        answer = await self._call("GET", id)
        if answer.status_code == 404:
            return None
        self._check(answer)
        found: dict[str, Any] = answer.json()
        return str(found["status"]), str(found.get("message") or "")

    async def log(self, id: str) -> str:
        """The last lines that a job printed."""
        answer = await self._call("GET", f"{id}/logs")
        if answer.status_code == 404:
            return ""
        self._check(answer)
        lines = [line for line in str(answer.json().get("logs") or "").splitlines() if line.strip()]
        return "\n".join(line[:300] for line in lines[-_LOG_LINES:])

    async def stop(self, id: str) -> None:
        """Have a job ended; it takes a moment."""
        answer = await self._call("POST", f"{id}/stop")
        if answer.status_code != 404:
            self._check(answer)

    async def _call(self, method: str, path: str, json: Any = None) -> httpx.Response:
        try:
            return await self._http.request(method, self._url + path, json=json, headers=self._headers)
        except httpx.HTTPError as error:
            raise UnavailableError(
                f"the Ray cluster at {self._url} cannot be reached: {type(error).__name__}"
            ) from error

    def _check(self, answer: httpx.Response) -> None:
        if answer.status_code in (401, 403):
            raise RefusedError(f"the Ray cluster at {self._url} refuses our token; set MIXPEEK_RAY_TOKEN")
        if answer.is_error:
            lines = answer.text.strip().splitlines() or [""]
            raise UnavailableError(f"the Ray cluster at {self._url} answered {answer.status_code}: {lines[-1][:300]}")
