"""`api_call` against a real HTTP server: what is sent, what is kept, and what a failure does."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.servers.http import Reply, Server, http_server
from tests.unit.retrieval.stages.calling import call
from tests.unit.retrieval.stages.running import LAWS, REGISTRY, refused

from mixpeek_operator.api.catalog import stage_discovery
from mixpeek_operator.core.errors import MixpeekError, NotFoundError, RefusedError, SpecError
from mixpeek_operator.retrieval.templating.template import compile_url

SECRET = "sk-very:secret"
DOCUMENTS = [{"document_id": f"d{index}", "metadata": {"customer": f"c{index}"}} for index in range(5)]


@pytest.fixture
def server() -> Iterator[Server]:
    with http_server(lambda asked: Reply(body={"at": asked.path, "items": [{"n": 1}, {"n": 2}]})) as server:
        yield server


def params(server: Server, **others: Any) -> dict[str, Any]:
    return {
        "url": f"{server.url}/customers/{{DOC.metadata.customer}}",
        "allowed_domains": ["127.0.0.1"],
        "output_field": "metadata.found",
        **others,
    }


async def test_each_document_gets_its_answer(server: Server) -> None:
    made = await call("api_call", DOCUMENTS, params(server))
    assert [item["metadata"]["found"]["at"] for item in made] == [f"/customers/c{index}" for index in range(5)]
    assert [item["metadata"]["customer"] for item in made] == [f"c{index}" for index in range(5)]
    assert made.metadata == {"called": 5, "failed": 0}
    assert not made.warnings


async def test_both_spellings_of_templates_and_every_part(server: Server) -> None:
    body = params(
        server,
        url=f"{server.url}/{{{{INPUT.version}}}}/x?q={{INPUT.q}}",
        method="post",
        headers={"X-Page": "{INPUT.page}", "X-Both": "{{DOC.document_id}}-{INPUT.q}"},
        body={"text": "{DOC.metadata.customer}", "page": "{{INPUT.page}}", "fixed": [1, {"a": None}]},
    )
    await call("api_call", DOCUMENTS[:1], body, {"version": "v 1/..", "q": "a&b=c#d", "page": 3})
    (asked,) = server.asked
    assert (asked.method, asked.query) == ("POST", {"q": "a&b=c#d"})
    assert asked.path == "/v%201%2F../x"
    assert asked.headers["x-page"] == "3"
    assert asked.headers["x-both"] == "d0-a&b=c#d"
    assert asked.json == {"text": "c0", "page": 3, "fixed": [1, {"a": None}]}


@pytest.mark.parametrize(
    ("auth", "seen"),
    [
        ({"type": "none"}, None),
        (None, None),
        ({"type": "bearer", "secret_ref": "key"}, ("authorization", f"Bearer {SECRET}")),
        ({"type": "api_key", "secret_ref": "key", "key": "X-API-Key"}, ("x-api-key", SECRET)),
        ({"type": "api_key", "secret_ref": "key", "key": "key", "location": "query"}, ("?", SECRET)),
        (
            {"type": "basic", "secret_ref": "key", "key": "null", "location": None},
            ("authorization", "Basic " + base64.b64encode(SECRET.encode()).decode()),
        ),
        ({"type": "custom_header", "secret_ref": "key", "key": "X-Mine", "location": "query"}, ("x-mine", SECRET)),
    ],
)
async def test_every_way_to_authenticate(server: Server, auth: Any, seen: tuple[str, str] | None) -> None:
    made = await call("api_call", DOCUMENTS[:1], params(server, auth=auth), secrets={"key": SECRET + "\n"})
    (asked,) = server.asked
    if seen is None:
        assert "authorization" not in asked.headers
    elif seen[0] == "?":
        assert asked.query == {"key": SECRET}
    else:
        assert asked.headers[seen[0]] == seen[1]
    assert SECRET not in str(made) + str(made.metadata)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"allowed_domains": ["*"]}, "no domain"),
        ({"allowed_domains": []}, "at least 1"),
        ({"url": "https://evil.test/"}, "not among allowed_domains"),
        ({"url": "gopher://127.0.0.1/"}, "no http or https"),
        ({"url": "{{DOC.x"}, "never closed"),
        ({"auth": {"type": "bearer"}}, "needs secret_ref"),
        ({"auth": {"type": "bearer", "secret": "x"}}, "did you mean 'secret_ref'"),
        ({"auth": {"type": "api_key", "secret_ref": "x"}}, "needs key"),
        ({"auth": {"type": "custom_header", "secret_ref": "x", "key": "a b"}}, "pattern"),
        ({"headers": {"authorization": "Bearer x"}}, "auth.secret_ref"),
        ({"headers": {"Host": "x"}}, "cannot be set"),
        ({"headers": {"a b": "x"}}, "cannot be set"),
        ({"body": {"a": 1}}, "GET has no body"),
        ({"method": "TRACE"}, "method"),
        ({"response_path": "a.b"}, "no JSONPath"),
        ({"response_path": "$..a..b"}, "more than once"),
        ({"response_path": "$[?match(@.a, '(a+)+')]"}, "no JSONPath"),
        ({"timeout": 0}, "timeout"),
        ({"timeot": 3}, "did you mean 'timeout'"),
        ({"rate_limit": {"requests_per_minut": 1}}, "did you mean 'requests_per_minute'"),
        ({"max_response_size": 10}, "max_response_size"),
    ],
)
def test_what_cannot_work_is_refused_at_creation(change: Mapping[str, Any], message: str) -> None:
    body = {"url": "http://127.0.0.1/{DOC.x}", "allowed_domains": ["127.0.0.1"], "output_field": "o", **change}
    refused("api_call", body, message)


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("$.items[1].n", 2),
        ("$.items[*].n", [1, 2]),
        ("$..n", [1, 2]),
        ("$.items[?@.n > 1]", [{"n": 2}]),
        ("$.none[*]", []),
    ],
)
async def test_a_part_of_the_answer(server: Server, path: str, kept: Any) -> None:
    (made,) = await call("api_call", DOCUMENTS[:1], params(server, response_path=path))
    assert made["metadata"]["found"] == kept


@pytest.mark.parametrize(
    ("reply", "kept"),
    [(Reply(204, b""), None), (Reply(200, "<b>text</b>"), "<b>text</b>"), (Reply(201, [1]), [1]), (Reply(200, 5), 5)],
)
async def test_answers_that_are_no_object(server: Server, reply: Reply, kept: Any) -> None:
    server.answer = lambda asked: reply
    (made,) = await call("api_call", DOCUMENTS[:1], params(server))
    assert made["metadata"]["found"] == kept


FAILURES = [
    (Reply(404, {"secret": "inside"}), {}, "answered 404"),
    (Reply(200, b"{", {"content-type": "application/json"}), {}, "cannot be read"),
    (Reply(200, {}), {"response_path": "$.a"}, r"nothing at \$\.a"),
    (Reply(200, "x" * 2000), {"max_response_size": 1024}, "larger than 1024"),
    (Reply(302, headers={"location": "http://localhost/"}), {}, "not among allowed_domains"),
    (Reply(200), {"auth": {"type": "bearer", "secret_ref": "none"}}, "no secret named 'none'"),
    (Reply(200), {"url": "http://127.0.0.1:1/{DOC.metadata.customer}"}, "cannot be fetched"),
    (Reply(200), {"url": "http://{DOC.document_id}.test/"}, "not among allowed_domains"),
]


@pytest.mark.parametrize(("reply", "change", "message"), FAILURES)
async def test_a_failure_keeps_drops_or_raises(
    server: Server, reply: Reply, change: Mapping[str, Any], message: str
) -> None:
    server.answer = lambda asked: Reply() if asked.path.endswith("c0") and not change else reply
    failed = 4 if not change else 5
    for on_error, left in (("skip", 5), ("remove", 5 - failed)):
        made = await call("api_call", DOCUMENTS, params(server, **change, on_error=on_error))
        assert len(made) == left
        assert sum("found" in item["metadata"] for item in made) == 5 - failed
        assert made.metadata["failed"] == failed
        (warning,) = made.warnings
        assert f"{failed} of 5 documents" in warning
        assert "inside" not in warning
    with pytest.raises((RefusedError, SpecError, NotFoundError, MixpeekError), match=message):
        await call("api_call", DOCUMENTS, params(server, **change, on_error="raise"))


async def test_a_document_without_the_value_is_not_called_for(server: Server) -> None:
    documents = [{"document_id": "d"}, {"document_id": "e", "metadata": {"customer": ".."}}, DOCUMENTS[0]]
    made = await call("api_call", documents, params(server))
    assert server.paths == ["/customers/c0"]
    assert made.metadata["failures"] == {"url_incomplete": 2}


async def test_equal_reads_are_sent_once_and_writes_each_time(server: Server) -> None:
    documents = [{"document_id": f"d{index}", "metadata": {"customer": "same"}} for index in range(6)]
    await call("api_call", documents, params(server))
    assert len(server.asked) == 1
    await call("api_call", documents, params(server, method="POST"))
    assert len(server.asked) == 7


async def test_only_documents_that_it_is_for(server: Server) -> None:
    when = {"field": "metadata.customer", "operator": "in", "value": ["c1", "c3"]}
    made = await call("api_call", DOCUMENTS, params(server, when=when, on_error="remove"))
    assert ["found" in item["metadata"] for item in made] == [False, True, False, True, False]
    assert sorted(server.paths) == ["/customers/c1", "/customers/c3"]


async def test_private_addresses_need_the_administrator(server: Server) -> None:
    made = await call("api_call", DOCUMENTS[:1], params(server), allow_cidrs="")
    assert "MIXPEEK_OUTBOUND_ALLOW_CIDRS" in made.warnings[0]
    assert server.asked == []


async def test_the_rate_is_the_organizations(server: Server) -> None:
    made = await call("api_call", DOCUMENTS, params(server, rate_limit={"requests_per_minute": 3}, timeout=1))
    assert len(server.asked) == 3
    assert made.metadata["failures"] == {"rate_limited": 2}


@LAWS
@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: text not in (".", "..")))
def test_a_value_stays_one_part_of_the_path(value: str) -> None:
    from urllib.parse import unquote, urlsplit

    made = compile_url("https://api.example/a/{{DOC.x}}/b?q={{DOC.x}}").render({"DOC": {"x": value}})
    parts = urlsplit(made)
    assert parts.hostname == "api.example"
    assert [unquote(part) for part in parts.path.split("/")] == ["", "a", value, "b"]
    assert parts.query.startswith("q=")
    assert unquote(parts.query[2:]) == value


async def test_the_example_of_the_catalogue(server: Server) -> None:
    example = stage_discovery(REGISTRY.stages()["api_call"])["example_config"]
    assert example["stage_type"] == "apply"
    shown = json.dumps(example["config"]["parameters"])
    here = json.loads(shown.replace("https://api.example.com", server.url).replace("api.example.com", "127.0.0.1"))
    server.answer = lambda asked: Reply(body={"data": {"plan": "gold"}})
    made = await call("api_call", [{"customer_id": "c 1"}], here, secrets={"crm_token": SECRET})
    assert made == [{"customer_id": "c 1", "metadata": {"customer": {"plan": "gold"}}}]
    assert server.paths == ["/v1/customers/c%201"]


def test_templates_in_single_braces_are_known_like_the_others(server: Server) -> None:
    body = {"stage_id": "api_call", "parameters": params(server, body={"a": "{INPUT.page}"}, method="POST")}
    (declared,), problems = REGISTRY.declare([body])
    assert not problems
    assert {("DOC", "metadata", "customer"), ("INPUT", "page")} <= declared.uses
    _, problems = REGISTRY.declare([body], inputs=("pages",))
    assert "did you mean 'pages'" in str(problems[0])
