"""`taxonomy_enrich` on the real stores: labels are documents of other collections, found by real retrievers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tests.unit.retrieval.stages.running import REGISTRY, refused

from mixpeek_operator.api.catalog import stage_discovery
from mixpeek_operator.core.directory import TaxonomyInfo, TaxonomyLevel
from mixpeek_operator.core.errors import NotFoundError, SpecError

URI = "mixpeek://text_extractor@v1/text_embedding"
BY_TITLE = {"input_key": "query", "source_type": "payload", "path": "title"}
LABELS = {
    "departments": ["home lamp", "audio radio", "zzzz"],
    "rooms": ["home lamp study", "qqqq"],
    "desks": ["home lamp study oak", "xxxx"],
}
DOCUMENTS = [
    {"document_id": "d1", "title": "home lamp", "tags": ["old"]},
    {"document_id": "d2", "title": "home lamp study"},
    {"document_id": "d3", "title": "home lamp study oak"},
    {"document_id": "d4", "title": "!!!!!!!!"},
    {"document_id": "d5", "text": "nothing to ask by"},
    {"document_id": "d6", "title": "home lamp"},
]


def level(name: str, parent: str | None = None, **changes: Any) -> TaxonomyLevel:
    parts = {
        "collection_id": f"col_{name}", "name": name.title(), "parent_id": parent and f"col_{parent}",
        "retriever_id": "lookup", "inputs": (BY_TITLE,), "fields": (),
    }  # fmt: skip
    return TaxonomyLevel(**{**parts, **changes})


def taxonomy(*levels: TaxonomyLevel, **changes: Any) -> TaxonomyInfo:
    parts = {"id": "tax_1", "name": "topics", "hierarchical": len(levels) > 1, "levels": levels}
    return TaxonomyInfo(**{"path_field": None, "path_separator": "/", **parts, **changes})


@pytest.fixture
async def labelled(world: Any) -> Any:
    """Runs the stage over DOCUMENTS and returns (documents by id, statistics, whole answer)."""
    for name, titles in LABELS.items():
        world.add_collection(name)
        bodies = [
            {"document_id": f"{name}{number}", "title": title, "rank": number, "text": f"about {title}"}
            for number, title in enumerate(titles)
        ]
        await world.put(name, bodies)
    world.add_collection("articles")
    await world.put("articles", DOCUMENTS)
    search = {"searches": [{"feature_uri": URI, "query": "{{INPUT.query}}"}], "final_top_k": 25}
    world.declare(
        [{"stage_id": "feature_search", "parameters": search}],
        name="lookup",
        collections=tuple(LABELS),
        inputs={"query": {"type": "string", "required": True}, "extra": {"type": "string"}},
    )

    async def run(info: TaxonomyInfo, **parameters: Any) -> tuple[Mapping[str, Any], Any, Any]:
        world.taxonomies = {"topics": info}
        given = {"taxonomy_id": "topics", "min_confidence": 0.999, **parameters}
        answer = await world.run([{"stage_id": "taxonomy_enrich", "parameters": given}], collections=("articles",))
        by_id = {item["document_id"]: item for item in answer["documents"]}
        assert by_id.keys() == {item["document_id"] for item in DOCUMENTS}
        return by_id, answer["stage_statistics"]["stages"]["taxonomy_enrich"]["metadata"], answer

    return run


async def test_flat(labelled: Any) -> None:
    found, statistics, _ = await labelled(taxonomy(level("departments")))
    label = {
        "id": "home_lamp", "name": "home lamp", "confidence": pytest.approx(1.0), "level": 1,
        "document_id": "departments0", "collection_id": "col_departments",
    }  # fmt: skip
    assert found["d1"]["taxonomy"] == {"primary": label, "all": [label]}
    assert found["d1"]["tags"] == ["old"]
    for nothing in ("d4", "d5"):
        assert found[nothing]["taxonomy"]["primary"] is None
        assert found[nothing]["taxonomy"]["all"] == []
    # d1 and d6 ask the same, d5 asks nothing.
    assert statistics == {"labelled": 2, "searches": 4}


async def test_the_best_labels_and_no_more(labelled: Any) -> None:
    found, _, _ = await labelled(taxonomy(level("departments")), min_confidence=0.0, top_k=2)
    labels = found["d1"]["taxonomy"]["all"]
    assert labels[0]["name"] == "home lamp"
    assert len(labels) == 2
    assert labels[0]["confidence"] >= labels[1]["confidence"]


HIERARCHY = (level("departments"), level("rooms", "departments"), level("desks", "rooms"))


async def test_a_hierarchy_is_walked_down_as_far_as_labels_match(labelled: Any) -> None:
    found, _, _ = await labelled(taxonomy(*HIERARCHY), min_confidence=0.9, top_k=1)
    deepest = found["d3"]["taxonomy"]
    assert deepest["primary"]["id"] == "home_lamp.home_lamp_study.home_lamp_study_oak"
    assert deepest["primary"]["level"] == 3
    assert [label["level"] for label in deepest["ancestors"]] == [2, 1]
    assert deepest["path"] == "home lamp > home lamp study > home lamp study oak"
    shallow, _, _ = await labelled(taxonomy(*HIERARCHY), min_confidence=0.9, top_k=1, max_depth=2)
    assert shallow["d3"]["taxonomy"]["primary"]["level"] == 2
    bare, _, _ = await labelled(taxonomy(*HIERARCHY), min_confidence=0.9, include_ancestors=False)
    assert bare["d3"]["taxonomy"].keys() == {"primary", "all"}
    strict, statistics, _ = await labelled(taxonomy(*HIERARCHY))
    assert strict["d1"]["taxonomy"]["path"] == "home lamp"
    assert strict["d3"]["taxonomy"]["primary"] is None
    # Four distinct titles ask at the root; of them only one goes down, and ends there.
    assert statistics["searches"] == 5


async def test_fields_of_all_levels_are_copied(labelled: Any) -> None:
    copied = (
        level("departments", fields=({"field_path": "rank", "target_field": "department.rank"},)),
        level(
            "rooms", "departments", fields=({"field_path": "title", "target_field": "tags", "merge_mode": "append"},)
        ),
    )
    found, _, _ = await labelled(taxonomy(*copied), min_confidence=0.8, top_k=1)
    assert found["d1"]["department"] == {"rank": 0}
    assert found["d1"]["tags"] == ["old", "home lamp study"]
    assert "fields" not in found["d1"]["taxonomy"]
    whole, _, _ = await labelled(taxonomy(level("departments", fields=None)))
    assert whole["d1"]["taxonomy"]["fields"] == {"title": "home lamp", "rank": 0, "text": "about home lamp"}
    assert whole["d1"]["title"] == "home lamp"
    assert "text" not in whole["d1"]
    chosen, _, _ = await labelled(taxonomy(level("departments", fields=None)), fields=[{"field_path": "rank"}])
    assert chosen["d1"]["rank"] == 0


async def test_what_is_labelled(labelled: Any) -> None:
    when = {"field": "title", "operator": "eq", "value": "home lamp"}
    found, _, _ = await labelled(taxonomy(level("departments")), when=when, result_field="meta.topic")
    assert found["d1"]["meta"]["topic"]["primary"]["name"] == "home lamp"
    assert "meta" not in found["d2"]
    no_mapping = taxonomy(level("departments", inputs=()))
    assert (await labelled(no_mapping))[0]["d1"]["taxonomy"]["primary"] is None
    assert (await labelled(no_mapping, content_field="title"))[0]["d1"]["taxonomy"]["primary"]["id"] == "home_lamp"
    literal = ({"input_key": "extra", "source_type": "literal", "override": "x"}, BY_TITLE)
    found, statistics, _ = await labelled(taxonomy(level("departments", inputs=literal)))
    assert found["d1"]["taxonomy"]["primary"]["id"] == "home_lamp"
    assert statistics["searches"] == 4


async def test_by_stored_vectors(labelled: Any, world: Any) -> None:
    search = {"searches": [{"feature_uri": URI, "query": "{{INPUT.vector}}"}]}
    world.declare(
        [{"stage_id": "feature_search", "parameters": search}],
        name="by_vector",
        collections=tuple(LABELS),
        inputs={"vector": {"type": "array"}},
    )
    by_vector = ({"input_key": "vector", "source_type": "vector", "path": URI},)
    found, _, _ = await labelled(taxonomy(level("departments", inputs=by_vector, retriever_id="by_vector")))
    assert found["d1"]["taxonomy"]["primary"]["id"] == "home_lamp"


async def test_a_path_that_documents_hold(labelled: Any) -> None:
    written = taxonomy(path_field="title", path_separator=" ", hierarchical=True)
    found, _, _ = await labelled(written)
    assert found["d2"]["taxonomy"]["path"] == "home > lamp > study"
    assert found["d2"]["taxonomy"]["primary"]["id"] == "home.lamp.study"
    assert found["d5"]["taxonomy"]["primary"] is None


async def test_the_example_runs(labelled: Any) -> None:
    example = stage_discovery(REGISTRY.stages()["taxonomy_enrich"])["example_config"]
    assert example["stage_type"] == "enrich"
    found, _, answer = await labelled(taxonomy(*HIERARCHY), **example["config"]["parameters"])
    assert answer["status"] == "completed"
    assert found["d3"]["taxonomy"]["path"]


async def test_refused(labelled: Any) -> None:
    with pytest.raises(NotFoundError, match="other"):
        await labelled(taxonomy(level("departments")), taxonomy_id="other")
    with pytest.raises(SpecError, match="no nodes"):
        await labelled(taxonomy())
    with pytest.raises(SpecError, match="no retriever"):
        await labelled(taxonomy(level("departments", retriever_id=None)))
    with pytest.raises(SpecError, match="from a blob"):
        await labelled(taxonomy(level("departments", inputs=({"input_key": "q", "source_type": "blob"},))))
    refused("taxonomy_enrich", {}, "'taxonomy_id' is required")
    refused("taxonomy_enrich", {"taxonomy_id": "x", "topk": 1}, "did you mean 'top_k'")


async def test_in_parts_it_labels_the_same(labelled: Any, world: Any) -> None:
    info = taxonomy(level("departments"), level("rooms", "departments"))
    whole, statistics, _ = await labelled(info)
    stage = {"stage_id": "taxonomy_enrich", "parameters": {"taxonomy_id": "topics", "min_confidence": 0.999}}
    answer = await world.run([{**stage, "batch_size": 2}], collections=("articles",))
    assert {item["document_id"]: item for item in answer["documents"]} == whole, "the first stage has no parts"
    keeping = {"stage_id": "limit", "parameters": {"limit": 100}}
    answer = await world.run([keeping, {**stage, "batch_size": 2}], collections=("articles",))
    assert {item["document_id"]: item for item in answer["documents"]} == whole
    told = answer["stage_statistics"]["stages"]["taxonomy_enrich"]["metadata"]
    assert told["labelled"] == statistics["labelled"] and told["searches"] >= statistics["searches"]
