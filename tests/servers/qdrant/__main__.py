"""Run the stand-in: `python -m tests.servers.qdrant --port 6333 --data DIR [--api-key KEY] [--version 1.18.3]`."""

from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn

from tests.servers.qdrant.app import VERSION, Server
from tests.servers.qdrant.storage import Storage

parser = argparse.ArgumentParser()
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--api-key")
parser.add_argument("--version", default=VERSION, help="below 1.18 vectors cannot be added in place")
given = parser.parse_args()
app = Server(Storage(given.data), api_key=given.api_key, version=given.version).app()
uvicorn.run(app, host=given.host, port=given.port, log_level="warning", access_log=False)
