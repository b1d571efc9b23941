"""`cross_compare` against a reference collection in the store."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.retrieval.stages.running import LAWS, refused

from mixpeek_operator.core.errors import NotFoundError, SpecError
from mixpeek_operator.retrieval.stages import _elements

TEXTS = st.lists(st.text("abc ", min_size=1, max_size=8).filter(str.strip), max_size=6)


@LAWS
@given(TEXTS, TEXTS, st.sampled_from([0.0, 0.3, 0.75, 1.0]))
def test_the_nearest_is_what_comparing_all_finds(wanted: list[str], offered: list[str], least: float) -> None:
    found = _elements.nearest(wanted, offered, least)
    for text in wanted:
        one = _elements.normal(text)
        ratios = [SequenceMatcher(None, _elements.normal(other), one, False).ratio() for other in offered]
        if not ratios or max(ratios) < least:
            assert text not in found
        else:
            assert found[text] == (ratios.index(max(ratios)), max(ratios))


def test_it_takes_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_elements, "MAX_SECONDS", -1.0)
    with pytest.raises(SpecError, match="leave out the tier fuzzy"):
        _elements.nearest(["a"], ["b"], 0.5)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("raw", " One\nTwo ", ["One\nTwo"]),
        ("raw", ["a", "b", 5, "a"], ["a", "b"]),
        ("lines", "one\n\n two \none", ["one", "two"]),
        ("list", ["a", " b"], ["a", "b"]),
        ("list", "a", ["a"]),
        ("raw", None, []),
        ("raw", 7, []),
        (
            "labels",
            "Click **API Keys**, then **Save**.\nRate Limits — how often.\nIt is time: Configure Alert Rules now.",
            ["API Keys", "Rate Limits", "Alert Rules"],
        ),
    ],
)
def test_elements(mode: str, value: Any, expected: list[str]) -> None:
    assert _elements.elements(value, mode, skip_generic=True) == expected


def test_generic_labels_stay_when_asked() -> None:
    assert _elements.elements("**Save** **Rules**", "labels", skip_generic=False) == ["Save", "Rules"]


DOCS = [
    {"document_id": "r1", "title": "API Key Configuration", "url": "http://docs/1", "doc_type": "page"},
    {"document_id": "r2", "title": "Billing", "metadata": {"url": "http://docs/2"}, "doc_type": "page"},
    {"document_id": "r3", "title": "zzzz", "doc_type": "note"},
]
SCENES = [
    {"document_id": "s1", "title": "billing ", "start_time": 1.5, "doc_type": "scene"},
    {"document_id": "s2", "title": "API Keys Configuration", "doc_type": "scene"},
    {"document_id": "s3", "title": "Nothing alike", "doc_type": "scene"},
    {"document_id": "s4", "doc_type": "scene"},
    {"document_id": "s5", "title": "zzz", "doc_type": "other"},
]


async def compare(world: Any, **parameters: Any) -> Any:
    for name, documents in (("reference", DOCS), ("scenes", SCENES)):
        if name not in world.declared:
            world.add_collection(name)
            await world.put(name, documents)
    fields = {"reference_collection_id": "reference", "source_field": "title", "reference_field": "title"}
    order = {"stage_id": "sort_attribute", "parameters": {"field": "document_id", "direction": "asc"}}
    stage = {"stage_id": "cross_compare", "parameters": {**fields, **parameters}}
    return await world.run([order, stage], collections=("scenes",))


async def test_findings(world: Any) -> None:
    documents = (await compare(world))["documents"]
    assert [(item["document_id"], item["match_tier"], item["classification"]) for item in documents] == [
        ("s1", "exact", "exact_match"),
        ("s2", "fuzzy", "exact_match"),
        ("s3", "none", "no_match"),
        ("s5", "fuzzy", "close_match"),
    ]
    assert documents[0] == {
        "document_id": "s1",
        "collection_id": "col_scenes",
        "element_type": "text",
        "source_content": "billing",
        "source_location": 1.5,
        "reference_match": "Billing",
        "reference_url": "http://docs/2",
        "reference_document_id": "r2",
        "match_tier": "exact",
        "match_score": 1.0,
        "classification": "exact_match",
        "confidence": 1.0,
    }
    assert documents[3]["match_score"] == pytest.approx(6 / 7)
    assert documents[3]["reference_url"] == "r3"


async def test_documents_with_their_findings(world: Any) -> None:
    answer = await compare(
        world,
        output_mode="enrich",
        output_field="check.results",
        source_doc_type_filter="scene",
        reference_doc_type="page",
        match_tiers=["exact"],
        classifications=[{"min_score": 1, "label": "current"}],
        no_match_label="outdated",
    )
    found = {item["document_id"]: item for item in answer["documents"]}
    assert list(found) == ["s1", "s2", "s3", "s4", "s5"]
    labels = {
        id: [one["classification"] for one in item["check"]["results"]] for id, item in found.items() if "check" in item
    }
    assert labels == {"s1": ["current"], "s2": ["outdated"], "s3": ["outdated"]}
    assert answer["stage_statistics"]["stages"]["cross_compare"]["metadata"] == {"elements": 3, "matched": 1}


async def test_by_meaning(world: Any) -> None:
    # The vectors of these tests hold the letters of a text: those of an anagram are the same.
    world.add_collection("scenes")
    await world.put("scenes", [{"document_id": "a", "title": "gnillib"}, {"document_id": "b", "title": "qqqq"}])
    documents = (await compare(world, match_tiers=["exact", "semantic"], semantic_threshold=0.99))["documents"]
    assert [(item["match_tier"], item["reference_match"]) for item in documents] == [
        ("semantic", "Billing"),
        ("none", None),
    ]
    assert documents[0]["match_score"] == pytest.approx(1.0, abs=1e-5)
    other = await compare(
        world, match_tiers=["semantic"], text_vector_index="text_embedding", reference_doc_type="note"
    )
    assert {item["reference_document_id"] for item in other["documents"]} <= {"r3", None}


async def test_only_so_many_references(world: Any) -> None:
    answer = await compare(world, reference_limit=1)
    assert "the first 1 documents" in answer["warnings"][0]
    assert len([item for item in answer["documents"] if item["match_tier"] != "none"]) <= 1


async def test_what_is_not_there(world: Any) -> None:
    with pytest.raises((NotFoundError, SpecError), match="nowhere"):
        await compare(world, reference_collection_id="nowhere")
    with pytest.raises(SpecError, match="no dense feature 'image'"):
        await compare(world, match_tiers=["semantic"], text_vector_index="image")
    with pytest.raises(SpecError, match="no dense feature 'text_sparse_embedding'"):
        await compare(world, match_tiers=["semantic"], text_vector_index="text_sparse_embedding")


def test_refused() -> None:
    refused_parameters: list[tuple[dict[str, Any], str]] = [
        ({"match_tiers": ["visual"]}, "there is no tier visual"),
        ({"include_visual_comparison": True}, "there is no tier visual"),
        ({"fuzzy_threshold": float("nan")}, "number"),
        ({"fuzzy_treshold": 0.5}, "did you mean 'fuzzy_threshold'"),
        ({"match_tiers": []}, "at least 1"),
        ({"classifications": [{"min_score": 2, "label": "x"}]}, "less than or equal to 1"),
    ]
    for parameters, match in refused_parameters:
        refused("cross_compare", {"reference_collection_id": "x", **parameters}, match)
    refused("cross_compare", {}, "'reference_collection_id' is required")
