"""A client that costs next to nothing, so that a benchmark times the server and not the client."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping


class Client:
    """One kept connection to a server on loopback; a request is one write."""

    def __init__(self, port: int, headers: Mapping[str, str]) -> None:
        lines = ["Host: 127.0.0.1", "Content-Type: application/json", *(f"{name}: {headers[name]}" for name in headers)]
        self._head = "\r\n".join(lines)
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=600)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path: str, body: str) -> bytes:
        """Return the body of the answer; raises RuntimeError unless its status is 200."""
        content = body.encode()
        head = f"POST {path} HTTP/1.1\r\n{self._head}\r\nContent-Length: {len(content)}\r\n\r\n"
        self._connection.sendall(head.encode() + content)
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._receive(path)
        answered = received[:end].lower()
        length = int(answered.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        parts = [received[end + 4 :]]
        missing = length - len(parts[0])
        while missing > 0:
            parts.append(self._receive(path))
            missing -= len(parts[-1])
        answer = b"".join(parts)
        if not answered.startswith(b"http/1.1 200"):
            raise RuntimeError(f"{path} answered {answered[:30]!r}: {answer[:500]!r}")
        return answer

    def wait_for_model(self, path: str) -> None:
        """Ask once by text, so that the model is loaded and its loading disturbs no measurement."""
        self.post(path, json.dumps({"inputs": {"query": "a lamp"}}))

    def _receive(self, path: str) -> bytes:
        received = self._connection.recv(1 << 18)
        if not received:
            raise RuntimeError(f"{path}: the server closed the connection")
        return received
