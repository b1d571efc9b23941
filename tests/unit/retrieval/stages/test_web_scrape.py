"""`web_scrape` against a real HTTP server: what a page says, and where it does not go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.servers.http import Asked, Reply, Server, http_server
from tests.unit.retrieval.stages.calling import call
from tests.unit.retrieval.stages.running import LAWS, REGISTRY, refused

from mixpeek_operator.api.catalog import stage_discovery
from mixpeek_operator.core.errors import MixpeekError
from mixpeek_operator.retrieval.stages import _page

PAGE = """<!doctype html><html lang="en"><head><title> A  lamp </title>
<meta name="description" content="All about it"><style>p {}</style></head><body>
<header>Shop <nav><a href="/cart">Cart</a></nav></header>
<main><h1>Lamp</h1><p>It <b>shines</b>, see <a href="more?x=1#part">more</a>.</p>
<img src="../lamp.png" alt="A lamp"><img src="data:image/png;base64,AA"><ul><li>one</li><li>two</li></ul>
<script>alert(1)</script></main>
<footer>Imprint <a href="mailto:a@b.example">mail</a> <a href="javascript:x()">x</a></footer></body></html>"""


def site(asked: Asked) -> Reply:
    pages = {
        "/": '<main><a href="/a">a</a> <a href="/b/x">b</a> <a href="http://other.test/">o</a></main>',
        "/a": '<main><a href="/">home</a><a href="/c">c</a></main>',
        "/b/x": "<main>b</main>",
        "/c": '<main><a href="/d">d</a></main>',
        "/d": "<main>d</main>",
    }
    if asked.path in pages:
        return Reply(200, pages[asked.path])
    return Reply(200, PAGE) if asked.path.startswith("/shop") else Reply(404, "no")


@pytest.fixture
def server() -> Iterator[Server]:
    with http_server(site) as server:
        yield server


async def scraped(server: Server, path: str = "/shop/lamp", **params: Any) -> Any:
    made = await call("web_scrape", [{"u": server.url + path}], {"url_field": "u", **params})
    return made[0]["scraped_content"] if made else made


async def test_what_a_page_says(server: Server) -> None:
    page = await scraped(server)
    assert page == {
        "status": "success",
        "url": f"{server.url}/shop/lamp",
        "final_url": f"{server.url}/shop/lamp",
        "title": "A lamp",
        "description": "All about it",
        "language": "en",
        "text": "Lamp It shines , see more . one two",
        "content_length": 35,
        "markdown": (
            f"# Lamp\n\nIt **shines**, see [more]({server.url}/shop/more?x=1).\n\n"
            f"![A lamp]({server.url}/lamp.png)\n\n* one\n* two"
        ),
    }


async def test_everything_that_can_be_included(server: Server) -> None:
    page = await scraped(server, include_html=True, include_links=True, include_images=True, include_markdown=False)
    assert page["html"] == PAGE
    assert "markdown" not in page
    assert page["links"] == [
        {"text": "Cart", "href": f"{server.url}/cart"},
        {"text": "more", "href": f"{server.url}/shop/more?x=1"},
    ]
    assert page["images"] == [{"alt": "A lamp", "src": f"{server.url}/lamp.png"}]


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(200, "<p>a<br>b</p><div><p>c</div><nav>menu</nav>"), "a b c"),
        (Reply(200, "<article>one</article><article>two</article>"), "one two"),
        (Reply(200, "<main></main><div>filled in elsewhere</div>"), "filled in elsewhere"),
        (Reply(200, "just text", {"content-type": "text/plain"}), "just text"),
        (Reply(200, "<p>é</p>".encode("latin-1"), {"content-type": "text/html; charset=iso-8859-1"}), "é"),
        (Reply(200, '<meta charset="windows-1252"><p>“é”</p>'.encode("cp1252"), {"content-type": "text/html"}), "“é”"),
        (Reply(200, ""), ""),
        (Reply(200, b"\xff\xfe\x00"), None),
    ],
)
async def test_pages_of_every_kind(server: Server, reply: Reply, text: str | None) -> None:
    server.answer = lambda asked: reply
    page = await scraped(server)
    assert page["status"] == ("error" if text is None else "success")
    assert page.get("text") == text


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(404, "x"), "answered 404"),
        (Reply(200, b"%PDF", {"content-type": "application/pdf"}), "no web page but application/pdf"),
        (Reply(200, "x" * (5 * 1024 * 1024 + 1)), "larger than"),
        (Reply(302, headers={"location": "http://10.0.0.1/"}), "private"),
    ],
)
async def test_a_page_that_cannot_be_read(server: Server, reply: Reply, reason: str) -> None:
    server.answer = lambda asked: reply
    page = await scraped(server)
    assert page["status"] == "error"
    assert reason in page["error"]
    assert page["markdown"] is None
    assert await scraped(server, on_error="remove") == []
    with pytest.raises(MixpeekError, match=reason):
        await scraped(server, on_error="raise")


async def test_documents_share_a_page_and_may_have_none(server: Server) -> None:
    documents = [{"u": f"{server.url}/shop/x"}, {"u": f"{server.url}/shop/x"}, {}, {"u": "file:///etc/passwd"}]
    made = await call("web_scrape", documents, {"url_field": "u", "output_field": "page.deep"})
    assert server.paths == ["/shop/x"]
    assert made[0]["page"] == made[1]["page"]
    assert made[2] == {}
    assert "only http and https" in made[3]["page"]["deep"]["error"]
    assert (made.metadata["failures"], made.metadata["unreadable"]) == ({"url_incomplete": 1}, 1)


async def test_one_page_becomes_a_document(server: Server) -> None:
    params = {"url": "{{INPUT.u}}", "url_field": "metadata.url", "strategy": "auto"}
    made = await call("web_scrape", [{"document_id": "d"}], params, {"u": f"{server.url}/shop/x"})
    assert made[0] == {"document_id": "d"}
    assert made[1]["url"] == f"{server.url}/shop/x"
    assert (made[1]["title"], made[1]["source"]) == ("A lamp", "web")
    assert made[1]["scraped_content"]["status"] == "success"
    again = await call("web_scrape", [], params, {"u": f"{server.url}/shop/x"})
    assert again[0]["document_id"] == made[1]["document_id"]


@pytest.mark.parametrize(
    ("params", "visited"),
    [
        ({}, ["/"]),
        ({"max_depth": 0}, ["/"]),
        ({"max_depth": 1}, ["/", "/a", "/b/x"]),
        ({"max_depth": 2}, ["/", "/a", "/b/x", "/c"]),
        ({"max_pages": 3}, ["/", "/a", "/b/x"]),
        ({"max_pages": 9}, ["/", "/a", "/b/x", "/c", "/d"]),
        ({"max_depth": 5, "url_patterns": {"exclude": ["/a$"]}}, ["/", "/b/x"]),
        ({"max_depth": 1, "url_patterns": {"include": ["/b/"]}}, ["/", "/b/x"]),
    ],
)
async def test_links_are_followed_as_far_as_allowed(server: Server, params: Any, visited: list[str]) -> None:
    params = {"delay_between_requests": 0, **params}
    made = await call("web_scrape", [], {"url": server.url + "/", **params})
    assert [page["scraped_content"]["url"].removeprefix(server.url) for page in made] == visited
    assert server.paths == visited
    page = await scraped(server, "/", **params)
    pages = [item["url"].removeprefix(server.url) for item in page.get("pages", [])]
    assert pages == visited[1:]


async def test_links_to_other_hosts_only_when_asked_and_allowed(server: Server) -> None:
    params = {"max_depth": 1, "delay_between_requests": 0, "same_domain_only": False, "allowed_domains": ["127.0.0.1"]}
    made = await call("web_scrape", [], {"url": server.url + "/", **params})
    assert "not among allowed_domains" in made[3]["scraped_content"]["error"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "give url_field or url"),
        ({"url_field": "a", "url": "http://x.test/"}, "give url_field or url"),
        ({"url": "{{DOC.u}}"}, "knows no DOC"),
        ({"url_field": "a", "strategy": "javascript"}, "not run here"),
        ({"url_field": "a", "allowed_domains": ["*"]}, "no domain"),
        ({"url_field": "a", "url_patterns": {"include": ["("]}}, "missing )"),
        ({"url_fild": "a"}, "did you mean 'url_field'"),
    ],
)
def test_what_cannot_work_is_refused_at_creation(params: Any, message: str) -> None:
    refused("web_scrape", params, message)


async def test_the_example_of_the_catalogue(server: Server) -> None:
    example = stage_discovery(REGISTRY.stages()["web_scrape"])["example_config"]
    made = await call(
        "web_scrape", [{"metadata": {"source_url": f"{server.url}/shop/x"}}], example["config"]["parameters"]
    )
    assert made[0]["page"]["title"] == "A lamp"


TAGS = st.sampled_from(["div", "p", "a", "table", "td", "li", "main", "article", "script", "b", "svg", "template"])
HTML = st.recursive(
    st.text(max_size=8),
    lambda inner: st.tuples(TAGS, st.lists(inner, max_size=3)).map(
        lambda pair: f"<{pair[0]} href='//[x'>{''.join(pair[1])}</{pair[0]}>"
    ),
    max_leaves=12,
)


@LAWS
@given(st.one_of(HTML.map(str.encode), st.binary(max_size=200)))
def test_any_bytes_are_a_page(body: bytes) -> None:
    page = _page.read(body, "text/html", "http://a.example/b")
    assert json.dumps([page.text, page.markdown])
    assert all(link["href"].startswith("http") for link in page.links)


def test_a_page_nested_deeply() -> None:
    with pytest.raises(MixpeekError, match="nested too deeply"):
        _page.read(b"<div>" * 20_000 + b"x", "text/html", "http://a.example/")
