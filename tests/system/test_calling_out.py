"""A whole server whose stages call out: a pipeline of them all, and where the secrets in it do not appear."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr
from tests.servers.http import Asked, Reply, http_server

from mixpeek_operator.core.settings import Settings
from mixpeek_operator.main import System, system

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


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[tuple[System, httpx.AsyncClient]]:
    """A whole server, and a client of it in the namespace `shop`."""
    async with (
        system(settings) as running,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(running.app),
            base_url="http://server",
            headers={"Authorization": "Bearer sk_admin", "X-Namespace": "shop"},
        ) as http,
    ):
        yield running, http


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
        async with serving(settings) as (running, http):

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


async def test_what_a_stage_names_has_to_be_there_when_it_is_declared(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "stock.db").close()
    settings = Settings(
        data=tmp_path / "data", api_key=SecretStr("sk_admin"), preload_model=False, sqlite_path=tmp_path
    )
    calls = {"url": "https://crm.example/", "allowed_domains": ["crm.example"], "output_field": "crm"}
    stages: list[dict[str, Any]] = [
        {"stage_id": "api_call", "parameters": {**calls, "auth": {"type": "bearer", "secret_ref": "crm_token"}}},
        {"stage_id": "sql_lookup", "parameters": {"connection_id": "stock", "query": "SELECT 1 AS one"}},
        {"stage_id": "external_web_search", "parameters": {"query": "lamps", "secret_ref": "exa"}},
        {"stage_id": "rerank", "parameters": {"query": "lamps", "model": "cohere/rerank-v3.5", "secret_ref": "cohere"}},
    ]
    named = [{"stage_name": f"s{number}", **stage} for number, stage in enumerate(stages)]
    wanted = ["crm_token", "stock", "exa", "cohere"]
    places = ["[0].parameters.auth.secret_ref", "[1].parameters.connection_id", "[2]", "[3].parameters.secret_ref"]
    async with serving(settings) as (_, http):
        body = {"retriever_name": "r", "stages": named}
        declared = {"name": "r", "namespace": "shop", "stages": named}
        text = json.dumps({"version": "1.0", "metadata": {"name": "m"}, "retrievers": [declared]})
        await http.post("/v1/namespaces", json={"namespace_name": "shop", "feature_extractors": []})
        refused = await http.post("/v1/retrievers", json=body)
        checked = await http.post("/v1/manifest/validate", content=text)
        assert refused.status_code == 422
        for name, place in zip(wanted, places, strict=True):
            assert repr(name) in refused.text and f"stages{place}" in refused.text
            assert any(repr(name) in error and f"stages{place}" in error for error in checked.json()["errors"])
        assert checked.json()["missing_secrets"] == ["cohere", "crm_token", "exa"]

        for name in ("crm_token", "exa", "cohere"):
            await http.post("/v1/organizations/secrets", json={"secret_name": name, "secret_value": SECRET})
        config = {"name": "stock", "provider_type": "sqlite", "provider_config": {"database": "stock.db"}}
        made = (await http.post("/v1/organizations/connections", json=config)).json()
        assert (await http.post("/v1/manifest/validate", content=text)).json()["errors"] == []
        named[1]["parameters"]["connection_id"] = made["connection_id"]
        assert (await http.post("/v1/retrievers", json=body)).status_code == 200

        assert (await http.delete("/v1/organizations/secrets/exa")).status_code == 200
        copied = await http.post("/v1/retrievers/r/clone", json={"retriever_name": "copy"})
        assert copied.status_code == 422 and "'exa'" in copied.text

        async def ready() -> dict[str, Any]:
            shown = (await http.get("/v1/resources/retrievers/r", params={"namespace": "shop"})).json()
            return next(dict(item) for item in shown["status"]["conditions"] if item["type"] == "Ready")

        changed = await http.patch("/v1/retrievers/r", json={"description": "goes on working where it can"})
        assert changed.status_code == 200
        told = await ready()
        assert told["reason"] == "SecretMissing" and "'exa', which stage 's2' names" in told["message"]
        await http.post("/v1/organizations/secrets", json={"secret_name": "exa", "secret_value": SECRET})
        for _ in range(600):
            told = await ready()
            if told["status"] == "True":
                break
            await asyncio.sleep(0.1)
        assert told["status"] == "True"
