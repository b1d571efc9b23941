"""What a web page says: its main part as text and Markdown, its links and images."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from mixpeek_operator.core.errors import RefusedError

_HTML: Final = ("text/html", "application/xhtml+xml")
_PLAIN: Final = ("text/plain", "text/markdown")
_NOT_SHOWN: Final = ["script", "style", "noscript", "template", "svg", "iframe", "object", "head"]
_AROUND: Final = ["nav", "header", "footer", "aside", "form", "[role=navigation]", "[role=banner]", "[hidden]"]
_MAIN: Final = ("main", "[role=main]", "article")
_MIN_SHARE: Final = 0.25
_BLANK_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it was read; links and images are absolute, in the order of the page, each once."""

    text: str
    markdown: str
    html: str
    title: str | None = None
    description: str | None = None
    language: str | None = None
    links: tuple[dict[str, str], ...] = ()
    images: tuple[dict[str, str], ...] = ()


def read(body: bytes, content_type: str | None, url: str) -> Page:
    """Return what a page says. Raises RefusedError for what is none; takes time, so call it in a thread."""
    kind = (content_type or "text/html").split(";")[0].strip().lower()
    if kind not in (*_HTML, *_PLAIN):
        raise RefusedError(f"{url} is no web page but {kind}", code="not_a_page")
    text = _decoded(body, content_type)
    if kind in _PLAIN:
        return Page(text, text, text)
    try:
        return _parsed(text, url)
    except RecursionError:
        raise RefusedError(f"{url} is nested too deeply", code="not_a_page") from None


def _decoded(body: bytes, content_type: str | None) -> str:
    from bs4.dammit import UnicodeDammit

    charset = re.search(r"charset=[\"']?([\w.:-]+)", content_type or "", re.IGNORECASE)
    # What the server says counts first, then what the page says of itself.
    found = UnicodeDammit(body, known_definite_encodings=[charset[1]] if charset else [], is_html=True)
    return found.unicode_markup if found.unicode_markup is not None else body.decode(errors="replace")


def _parsed(html: str, url: str) -> Page:
    from markdownify import markdownify
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(html)
    base_node = tree.css_first("base[href]")
    base = urljoin(url, base_node.attributes.get("href") or "") if base_node is not None else url
    title = _first(tree, "title") or _meta(tree, "og:title")
    description = _meta(tree, "description") or _meta(tree, "og:description")
    root = tree.css_first("html")
    language = root.attributes.get("lang") if root is not None else None
    links = _addresses(tree, "a[href]", "href", base, lambda node: {"text": _spaced(node)})
    images = _addresses(tree, "img[src]", "src", base, lambda node: {"alt": node.attributes.get("alt") or ""})
    for node in tree.css(", ".join(_NOT_SHOWN)):
        node.decompose()
    main = _main_part(tree)
    if main is None:
        return Page("", "", html, title, description, language, links, images)
    for node in main.css("a[href]"):
        node.attrs["href"] = _absolute(node.attributes.get("href") or "", base) or ""
    for node in main.css("img"):
        address = _absolute(node.attributes.get("src") or "", base)
        if address is None:
            node.decompose()
        else:
            node.attrs["src"] = address
    markdown = _BLANK_LINES.sub("\n\n", markdownify(main.html or "", heading_style="ATX")).strip()
    return Page(_spaced(main), markdown, html, title, description, language, links, images)


def _main_part(tree: Any) -> Any:
    """The part that says what the page is for: the one it marks as such, else all but what stands around it."""
    body = tree.body
    if body is None:
        return None
    whole = len(_spaced(body))
    for selector in _MAIN:
        found = tree.css(selector)
        # A page of several articles is a list of them; a marked part that is nearly empty is filled in by scripts.
        if len(found) == 1 and len(_spaced(found[0])) >= _MIN_SHARE * whole:
            return found[0]
    for node in body.css(", ".join(_AROUND)):
        node.decompose()
    return body


def _first(tree: Any, selector: str) -> str | None:
    node = tree.css_first(selector)
    return (_spaced(node) or None) if node is not None else None


def _meta(tree: Any, name: str) -> str | None:
    node = tree.css_first(f'meta[name="{name}"], meta[property="{name}"]')
    content = node.attributes.get("content") if node is not None else None
    return content.strip() or None if content else None


def _spaced(node: Any) -> str:
    return " ".join(node.text(separator=" ").split())


def _addresses(tree: Any, selector: str, name: str, base: str, more: Any) -> tuple[dict[str, str], ...]:
    found: dict[str, dict[str, str]] = {}
    for node in tree.css(selector):
        address = _absolute(node.attributes.get(name) or "", base)
        if address is not None:
            found.setdefault(address, {**more(node), name: address})
    return tuple(found.values())


def _absolute(address: str, base: str) -> str | None:
    """An http or https address without its fragment; None for anything else (mailto:, javascript:, data:)."""
    if not address.strip():
        return None
    try:
        joined = urljoin(base, address.strip())
        parts = urlsplit(joined)
    except ValueError:
        return None
    return joined.split("#")[0] if parts.scheme in ("http", "https") and parts.netloc else None
