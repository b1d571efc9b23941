"""`rag_prepare` keeps its budget; its counts are those of `retrieval.tokens`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.retrieval.stages.running import LAWS, refused, run

from mixpeek_operator.retrieval import tokens

TEXTS = st.text(st.sampled_from("ab é\n.1日_👍 "), max_size=60)
DOCUMENTS = st.lists(TEXTS, max_size=8).map(
    lambda texts: [{"document_id": f"d{index}", "content": text} for index, text in enumerate(texts)]
)
STRATEGIES = st.sampled_from(["priority_truncate", "proportional", "drop_last"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("word", 1),
        (" word", 1),
        ("words", 2),
        ("two  words\n\n", 5),
        ("1234567", 3),
        ("it's", 3),
        ("!!!", 2),
        ("größe", 3),
        ("日本", 3),
        ("👍", 4),
        ("x² + ½", 4),
    ],
)
def test_how_tokens_are_estimated(text: str, expected: int) -> None:
    assert tokens.count(text) == expected


@LAWS
@given(TEXTS, TEXTS, st.integers(0, 40))
def test_parts_have_no_less_tokens_than_the_whole(one: str, other: str, most: int) -> None:
    assert tokens.count(one + other) <= tokens.count(one) + tokens.count(other)
    start = tokens.start(one, most)
    assert one.startswith(start)
    assert tokens.count(start) <= most
    assert start == one or tokens.count(one) > most


@LAWS
@given(DOCUMENTS, STRATEGIES, st.integers(1, 80), st.sampled_from(["\n", "", " -- "]))
def test_the_budget_holds(documents: list[dict[str, Any]], strategy: str, most: int, separator: str) -> None:
    parameters = {"max_tokens": most, "truncation_strategy": strategy, "separator": separator}
    [made] = run("rag_prepare", documents, parameters)
    assert made["token_count"] == tokens.count(made["rag_context"]) <= most
    assert made["document_count"] == len(made["citations"])
    listed = run("rag_prepare", documents, {**parameters, "output_mode": "formatted_list"})
    assert sum(item["token_count"] for item in listed) <= most
    for item in listed:
        whole = f"[{item['citations'][0]['index']}] {item['original_content']}\n\n"
        assert whole.startswith(item["formatted_content"])
        assert item["truncated"] == (whole != item["formatted_content"])
    if strategy == "drop_last":
        assert not any(item["truncated"] for item in listed)
        assert [item["document_id"] for item in listed] == [item["document_id"] for item in documents[: len(listed)]]


TEXT = "one two three four five six"
PAPERS = [
    {"document_id": "p1", "collection_id": "c", "score": 0.9, "content": TEXT, "title": "First", "url": "http://x/1"},
    {"document_id": "p2", "content": TEXT, "metadata": {"title": "Second", "url": "http://x/2"}},
    {"document_id": "p3", "content": "seven"},
]


def test_context_and_citations() -> None:
    [made] = run("rag_prepare", PAPERS)
    assert made == {
        "rag_context": f"[1] {TEXT}\n\n\n[2] {TEXT}\n\n\n[3] seven\n\n",
        "citations": [
            {
                "index": 1,
                "marker": "[1]",
                "document_id": "p1",
                "collection_id": "c",
                "score": 0.9,
                "title": "First",
            },
            {"index": 2, "marker": "[2]", "document_id": "p2", "title": "Second"},
            {"index": 3, "marker": "[3]", "document_id": "p3", "title": None},
        ],
        "token_count": made["token_count"],
        "document_count": 3,
    }


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("priority_truncate", [TEXT, "one two"]),
        ("drop_last", [TEXT]),
        ("proportional", ["one two three", "one two three", "seven"]),
    ],
)
def test_what_fits(strategy: str, expected: list[str]) -> None:
    assert [tokens.count(text) for text in (TEXT, "one two three", "seven")] == [7, 4, 2]
    parameters = {"document_template": "{{DOC.content}}", "truncation_strategy": strategy, "separator": ""}
    most = 10
    listed = run("rag_prepare", PAPERS, {**parameters, "max_tokens": most, "output_mode": "formatted_list"})
    assert [item["formatted_content"] for item in listed] == expected
    assert listed.metadata["documents_in"] == 3
    assert listed.metadata["documents_included"] == len(expected)


@pytest.mark.parametrize(
    ("style", "marks"),
    [("numbered", ["[1]", "[2]"]), ("bracketed", ["[p1]", "[p2]"]), ("footnote", ["¹", "²"]), ("none", ["", ""])],
)
def test_citation_styles(style: str, marks: list[str]) -> None:
    [made] = run(
        "rag_prepare",
        PAPERS[:2],
        {
            "document_template": "{{CONTEXT.CITATION}}|{{DOC.content}}|{{INPUT.query}}",
            "content_field": "document_id",
            "separator": ";",
            "citation": {"style": style, "include_title": False, "include_url": True},
            "context_field": "context",
            "citations_field": "sources",
        },
        {"query": "q"},
    )
    assert made["context"] == ";".join(f"{mark}|p{index}|q" for index, mark in enumerate(marks, start=1))
    found = [(item["marker"], item["url"]) for item in made["sources"]]
    assert found == ([] if style == "none" else list(zip(marks, ["http://x/1", "http://x/2"], strict=True)))


def test_missing_text_is_told() -> None:
    documents: list[dict[str, Any]] = [{"document_id": "1", "content": None}, {"document_id": "2", "content": ["x", 1]}]
    found = run("rag_prepare", documents)
    assert found[0]["rag_context"] == '[1] \n\n\n[2] ["x",1]\n\n'
    assert found.warnings == ["rag_prepare: 1 documents have no 'content'; set content_field"]
    assert run("rag_prepare", [])[0] | {"token_count": 0} == {
        "rag_context": "",
        "citations": [],
        "token_count": 0,
        "document_count": 0,
    }
    assert run("rag_prepare", [], {"output_mode": "formatted_list"}) == []


def test_refused() -> None:
    refused("rag_prepare", {"max_tokens": 0}, "greater than or equal to 1")
    refused("rag_prepare", {"max_token": 5}, "did you mean 'max_tokens'")
    refused("rag_prepare", {"tokenizer": "llama"}, "cl100k_base")
    refused("rag_prepare", {"document_template": "{{DOC."}, "template")
    refused("rag_prepare", {"citation": {"styl": "none"}}, "did you mean 'style'")
