"""A client that costs next to nothing, so that a benchmark times the server and not the client."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping


class Client:
    """One kept connection to a server on loopback."""

    def __init__(self, port: int, headers: Mapping[str, str]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        self._headers = {**headers, "Content-Type": "application/json"}

    def post(self, path: str, body: str) -> bytes:
        """Return the body of the answer; raises RuntimeError unless its status is 200."""
        self._connection.request("POST", path, body, self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path} answered {answer.status}: {content[:500]!r}")
        return content

    def wait_for_model(self, path: str) -> None:
        """Ask once by text, so that the model is loaded and its loading disturbs no measurement."""
        self.post(path, json.dumps({"inputs": {"query": "a lamp"}}))
