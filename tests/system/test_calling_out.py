"""A whole server whose stages call out: a pipeline of them all, and where the secrets in it do not appear."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr
from tests.servers.http import Asked, Reply, http_server

from mixpeek_operator.core.settings import Settings
from mixpeek_operator.main import system

SECRET = "sk-verysecret"
EXA = "exa-verysecret"


def world_wide_web(asked: Asked) -> Reply:
    if asked.path == "/search":
        assert asked.headers["x-api-key"] == EXA
        found = [{"url": f"http://127.0.0.1:{asked.headers['host'].rpartition(':')[2]}/page/{n}"} for n in (1, 2)]
        return Reply(200, {"results": found})
    if asked.path.startswith("/page/"):
        return Reply(200, f"<title>Page {asked.path[-1]}</title><main>Text</main>")
    if asked.headers.get("authorization") != f"Bearer {SECRET}":
        return Reply(401, {"sent": asked.headers.get("authorization")})
    return Reply(200, {"plan": "gold", "of": asked.query["of"]})


def pipeline(web: str, **api_call: Any) -> list[dict[str, Any]]:
    return [
        {"stage_type": "apply", "stage_id": "external_web_search", "parameters": {"query": "{INPUT.query}"}},
        {"stage_type": "apply", "stage_id": "web_scrape", "parameters": {"url_field": "metadata.url"}},
        {
            "stage_type": "apply",
            "stage_id": "api_call",
            "parameters": {
                "url": web + "/api?of={DOC.scraped_content.title}",
                "allowed_domains": ["127.0.0.1"],
                "auth": {"type": "bearer", "secret_ref": "crm_token"},
                "output_field": "metadata.crm",
                **api_call,
            },
        },
        {
            "stage_type": "apply",
            "stage_id": "sql_lookup",
            "parameters": {
                "connection_id": "stock",
                "query": "SELECT pieces FROM stock WHERE title = :title",
                "parameters": {"title": "{{DOC.scraped_content.title}}"},
            },
        },
    ]


async def test_all_of_them_in_one_pipeline(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "stock.db")) as file:
        file.executescript("CREATE TABLE stock (title, pieces); INSERT INTO stock VALUES ('Page 1', 7);")
    with http_server(world_wide_web) as web:
        settings = Settings(
            data=tmp_path / "data",
            api_key=SecretStr("sk_admin"),
            preload_model=False,
            outbound_allow_cidrs="127.0.0.0/8",
            exa_base_url=web.url,
            exa_api_key=SecretStr(EXA),
            sqlite_path=tmp_path,
        )
        async with (
            system(settings) as running,
            httpx.AsyncClient(
                transport=httpx.ASGITransport(running.app),
                base_url="http://server",
                headers={"Authorization": "Bearer sk_admin", "X-Namespace": "shop"},
            ) as http,
        ):

            async def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
                answer = await http.post(path, json=body)
                assert answer.status_code == 200, answer.text
                return dict(answer.json())

            await post("/v1/namespaces", {"namespace_name": "shop", "feature_extractors": []})
            await post("/v1/organizations/secrets", {"secret_name": "crm_token", "secret_value": SECRET})
            config = {"name": "stock", "provider_type": "sqlite", "provider_config": {"database": "stock.db"}}
            await post("/v1/organizations/connections", config)
            inputs = {"inputs": {"query": "lamps"}}
            answer = await post("/v1/retrievers/execute", {**inputs, "stages": pipeline(web.url)})
            assert answer["status"] == "completed"
            one, two = answer["documents"]
            assert one["metadata"]["crm"] == {"plan": "gold", "of": "Page 1"}
            assert [one["sql_result"], two["sql_result"]] == [{"pieces": 7}, None]
            assert "warnings" not in answer

            wrong = pipeline(web.url, auth={"type": "bearer", "secret_ref": "exa"}, on_error="raise")
            refused = await http.post("/v1/retrievers/execute", json={**inputs, "stages": wrong})
            assert refused.status_code == 404
            assert "no secret named 'exa'" in refused.text
            outside = pipeline(web.url, url="http://10.0.0.1/", allowed_domains=["10.0.0.1"])
            answer = await post("/v1/retrievers/execute", {**inputs, "stages": outside})
            assert "MIXPEEK_OUTBOUND_ALLOW_CIDRS" in answer["warnings"][0]
            await running.services.retrieval.flush()
            history = await post("/v1/retrievers/executions/list", {})
            assert len(history["results"]) == 3
            assert SECRET not in str(history)
            assert EXA not in str(history)
    at_rest = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert SECRET.encode() not in at_rest
    assert EXA.encode() not in at_rest
