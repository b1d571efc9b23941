"""`external_web_search` against a server that speaks Exa's protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from pydantic import SecretStr
from tests.servers.http import Asked, Reply, Server, http_server
from tests.unit.retrieval.stages.calling import call
from tests.unit.retrieval.stages.running import REGISTRY, Outcome, refused

from mixpeek_operator.adapters.exa import ExaSearch
from mixpeek_operator.adapters.outbound import GuardedClient
from mixpeek_operator.api.catalog import stage_discovery
from mixpeek_operator.core.errors import MixpeekError
from mixpeek_operator.ports.web_search import WebQuery, WebResults

KEY = "exa-verysecret"
PAGES = [
    {
        "id": "https://a.example/1",
        "url": "https://a.example/1",
        "title": "One",
        "score": 0.9,
        "publishedDate": "2026-01-02T00:00:00.000Z",
        "author": "Ann",
        "text": "The first.",
        "image": "https://a.example/1.png",
    },
    {"id": "x", "url": "https://b.example/2", "highlights": ["a", "b"], "summary": "Short."},
]


def exa(asked: Asked) -> Reply:
    """What Exa does: the key in x-api-key, camelCase, as many results as asked for."""
    if asked.headers.get("x-api-key") != KEY:
        return Reply(401, {"error": f"Invalid API key {asked.headers.get('x-api-key')}"})
    if (asked.method, asked.path) != ("POST", "/search"):
        return Reply(404, {"error": "no such route"})
    if not asked.json.get("query"):
        return Reply(400, {"error": f"query is required ({KEY})"})
    return Reply(
        200,
        {
            "requestId": "r",
            "resolvedSearchType": "neural",
            "results": PAGES[: asked.json["numResults"]],
            "costDollars": {"total": 0.007},
        },
    )


@pytest.fixture
def server() -> Iterator[Server]:
    with http_server(exa) as server:
        yield server


class At:
    """The provider at a test's server; its connections are the stage's own client's."""

    def __init__(self, url: str, key: str | None) -> None:
        self._url, self._key = url, key

    async def search(self, query: WebQuery, *, key: str | None, tenant: str) -> WebResults:
        outbound = GuardedClient(allow_cidrs="127.0.0.0/8")
        try:
            own = SecretStr(self._key) if self._key else None
            return await ExaSearch(outbound, self._url, own).search(query, key=key, tenant=tenant)
        finally:
            await outbound.close()


async def search(
    server: Server,
    params: Mapping[str, Any],
    documents: Sequence[Mapping[str, Any]] = (),
    *,
    key: str | None = KEY,
    **options: Any,
) -> Outcome:
    inputs = {"query": "lamps", "since": "2026-01-01"}
    return await call("external_web_search", documents, params, inputs, web_search=At(server.url, key), **options)


async def test_pages_become_documents_behind_the_others(server: Server) -> None:
    made = await search(server, {"query": "{INPUT.query}"}, [{"document_id": "own"}])
    assert made[0] == {"document_id": "own"}
    assert [item["score"] for item in made[1:]] == [0.9, 0.0]
    one, two = made[1]["metadata"], made[2]["metadata"]
    assert one == {
        "url": "https://a.example/1",
        "title": "One",
        "text": "The first.",
        "published_date": "2026-01-02T00:00:00.000Z",
        "author": "Ann",
        "domain": "a.example",
        "category": None,
        "search_query": "lamps",
        "search_position": 0,
    }
    assert (two["search_position"], two["highlights"], two["summary"]) == (1, ["a", "b"], "Short.")
    assert "text" not in two
    assert (made[1]["content"], made[1]["source"], made[1]["url"]) == ("The first.", "web", "https://a.example/1")
    assert made[1]["document_id"].startswith("web_")
    assert made.metadata == {"queries": 1, "found": 2}
    again = await search(server, {})
    assert [item["document_id"] for item in again] == [item["document_id"] for item in made[1:]]


async def test_everything_that_can_be_asked_for(server: Server) -> None:
    await search(
        server,
        {
            "query": "new {{INPUT.query}}",
            "num_results": 1,
            "use_autoprompt": False,
            "start_published_date": "{{INPUT.since}}",
            "category": "Research_Paper",
            "include_domains": ["arxiv.org"],
            "exclude_domains": ["x.test"],
            "contents": {"text": True, "highlights": {"numSentences": 2}},
        },
    )
    assert server.asked[0].json == {
        "query": "new lamps",
        "numResults": 1,
        "useAutoprompt": False,
        "startPublishedDate": "2026-01-01T00:00:00.000Z",
        "category": "research paper",
        "includeDomains": ["arxiv.org"],
        "excludeDomains": ["x.test"],
        "contents": {"text": True, "highlights": {"numSentences": 2}},
    }
    await search(server, {"include_text": False})
    assert server.asked[1].json == {"query": "lamps", "numResults": 10, "useAutoprompt": True}


async def test_one_search_for_each_different_query_of_documents(server: Server) -> None:
    documents = [{"maker": "a"}, {"maker": "b"}, {"maker": "a"}]
    made = await search(server, {"query": "by {DOC.maker}"}, documents)
    assert sorted(asked.json["query"] for asked in server.asked) == ["by a", "by b"]
    assert len(made) == 3 + 2
    assert await search(server, {"query": "by {DOC.maker}"}, []) == []


@pytest.mark.parametrize(
    ("secrets", "key", "params", "works"),
    [
        ({"exa_api_key": KEY}, None, {}, True),
        ({"exa_api_key": KEY}, "the server's", {}, True),
        ({"mine": KEY}, None, {"secret_ref": "mine"}, True),
        ({}, KEY, {}, True),
        ({}, None, {}, "store one of Exa as the secret exa_api_key"),
        ({}, KEY, {"secret_ref": "mine"}, "no secret named 'mine'"),
        ({"exa_api_key": "wrong"}, KEY, {}, "Exa refused the key"),
    ],
)
async def test_whose_key_is_used(
    server: Server, secrets: Mapping[str, str], key: str | None, params: Mapping[str, Any], works: bool | str
) -> None:
    if works is True:
        assert len(await search(server, params, key=key, secrets=secrets)) == 2
        return
    with pytest.raises(MixpeekError, match=str(works)) as caught:
        await search(server, params, key=key, secrets=secrets)
    assert "wrong" not in str(caught.value)


async def test_without_the_web_the_documents_stay(server: Server) -> None:
    for status in (429, 503):
        server.answer = lambda asked, status=status: Reply(status, headers={"retry-after": "0"})
        made = await search(server, {}, [{"document_id": "own"}])
        assert made == [{"document_id": "own"}]
        assert "found nothing" in made.warnings[0]
    assert len(server.asked) == 6
    server.answer = lambda asked: Reply(200, {"unexpected": 1})
    assert (await search(server, {})).metadata == {"failed": "backend_unavailable"}


async def test_a_query_that_is_refused(server: Server) -> None:
    with pytest.raises(MixpeekError, match=r"400 query is required \(\*\*\*\)"):
        await search(server, {"query": ""})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"num_results": 0}, "num_results"),
        ({"num_results": 101}, "num_results"),
        ({"category": "cats"}, "category"),
        ({"start_published_date": "yesterday"}, "start_published_date"),
        ({"contents": {"txt": True}}, "did you mean 'text'"),
        ({"querry": "x"}, "did you mean 'query'"),
    ],
)
def test_what_cannot_work_is_refused_at_creation(params: Any, message: str) -> None:
    refused("external_web_search", params, message)


async def test_the_example_of_the_catalogue(server: Server) -> None:
    example = stage_discovery(REGISTRY.stages()["external_web_search"])["example_config"]
    assert len(await search(server, example["config"]["parameters"])) == 2


async def test_it_begins_a_pipeline_without_collections(server: Server, world: Any) -> None:
    world.retrieval._web_search = At(server.url, KEY)
    answer = await world.run([{"stage_id": "external_web_search"}], {"inputs": {"query": "q"}}, collections=())
    assert [item["source"] for item in answer["documents"]] == ["web", "web"]
    assert answer["budget"]["credits_used"] == pytest.approx(7.0)
