"""A FastAPI endpoint that returns the same bytes always: what a framework costs that does nothing.

BYTES=<file> uvicorn tests.benchmarks.bare:app
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from fastapi import FastAPI, Request, Response

from tests.servers.mixpeek import free_port

PATH = "/answer"
app = FastAPI(openapi_url=None)
_content = Path(os.environ["BYTES"]).read_bytes() if "BYTES" in os.environ else b""


@app.post(PATH)
async def answer(request: Request) -> Response:
    """Read the request, as every endpoint has to, and return the bytes."""
    await request.body()
    return Response(_content, media_type="application/json")


@contextlib.contextmanager
def answering(content: bytes) -> Iterator[int]:
    """Serve `content` from a process of its own, as our server is; yields the port."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "tests.benchmarks.bare:app", "--port", str(port), "--no-access-log"]
        environment = {**os.environ, "BYTES": file.name}
        process = subprocess.Popen([*command, "--log-level", "warning"], env=environment, start_new_session=True)
        try:
            _wait(f"http://127.0.0.1:{port}{PATH}", process)
            yield port
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.post(url, timeout=2).status_code == 200:
                return
        time.sleep(0.02)
    raise RuntimeError("the bare endpoint does not answer")
