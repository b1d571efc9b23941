"""Retrievers over the real embedded stores, compared with what brute force finds."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mixpeek_operator.core.errors import BadRequestError, NotFoundError, SpecError, UnavailableError
from mixpeek_operator.core.filters import matches, parse
from mixpeek_operator.core.listing import ListQuery
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.ports.vectors import Search
from mixpeek_operator.retrieval.registry import StageRegistry

URI = "mixpeek://text_extractor@v1/text_embedding"
SPARSE_URI = "mixpeek://text_extractor@v1/text_sparse_embedding"
SIZE = 8


def stage(stage_id: str, name: str | None = None, **parameters: Any) -> dict[str, Any]:
    options = {key: parameters.pop(key) for key in ("on_error", "when", "pre_filters") if key in parameters}
    return {"stage_name": name or stage_id, "stage_id": stage_id, "parameters": parameters, **options}


def by_vector(top: int = 10, **extra: Any) -> dict[str, Any]:
    query = {"input_mode": "vector", "value": "{{INPUT.vector}}"}
    return stage(
        "feature_search", searches=[{"feature_uri": URI, "query": query, "top_k": 100, **extra}], final_top_k=top
    )


def a_vector(seed: int = 1) -> list[float]:
    chance = random.Random(seed)
    return [chance.gauss(0, 1) for _ in range(SIZE)]


def nearest(world: Any, vector: list[float], filter: Any = None) -> list[str]:
    def cosine(other: list[float]) -> float:
        dot = sum(a * b for a, b in zip(vector, other, strict=True))
        return dot / sum(b * b for b in other) ** 0.5

    tree = parse(filter)
    chosen = [document for document in world.products if matches(tree, document)]
    return [d["document_id"] for d in sorted(chosen, key=lambda d: -cosine(d["vector"]))]


def found(answer: dict[str, Any]) -> list[str]:
    return [document["document_id"] for document in answer["documents"]]


FILTERS: list[dict[str, Any]] = [
    {"field": "category", "operator": "eq", "value": "audio"},
    {"field": "price", "operator": "lte", "value": 60},
    {"field": "title", "operator": "regex", "value": "[13579] lamp$"},
    {"field": "title", "operator": "ends_with", "value": "CHAIR", "case_insensitive": True},
    {
        "NOT": [
            {"field": "category", "operator": "eq", "value": "home"},
            {"field": "price", "operator": "gt", "value": 150},
        ]
    },
    {
        "OR": [
            {"field": "tags", "operator": "contains", "value": "t1"},
            {"field": "metadata.rank", "operator": "lt", "value": 9},
        ]
    },
    {"field": "missing", "operator": "exists", "value": False},
]


@pytest.mark.parametrize("filter", FILTERS, ids=str)
async def test_every_place_of_a_filter_means_the_same(world: Any, filter: dict[str, Any]) -> None:
    vector = a_vector()
    expected = nearest(world, vector, filter)[:10]
    inputs = {"inputs": {"vector": vector}}
    behind = stage("attribute_filter", conditions=filter if "field" not in filter else {"AND": [filter]})
    assert found(await world.run([by_vector(filters=filter)], inputs)) == expected
    assert found(await world.run([by_vector()], {**inputs, "filters": filter})) == expected
    assert found(await world.run([by_vector(), behind], inputs)) == expected
    assert found(await world.run([behind, by_vector()], inputs)) == expected
    plain = await world.run([by_vector(100), stage("sort_relevance"), behind, stage("limit")], inputs)
    assert found(plain) == expected


class NothingPushed:
    """A store that evaluates no filter but the collection's: everything else has to be evaluated outside."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.rounds = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def can_push_down(self, filter: Any) -> bool:
        return getattr(filter, "field", "") in ("collection_id", "document_id")

    async def search(self, collection: str, searches: list[Search], **options: Any) -> Any:
        self.rounds += 1
        return await self._inner.search(collection, searches, **options)


@pytest.mark.parametrize("filter", FILTERS, ids=str)
async def test_pushed_down_and_evaluated_outside_agree(world: Any, filter: dict[str, Any]) -> None:
    stages = [by_vector(), stage("attribute_filter", conditions={"AND": [filter]})]
    for seed in range(3):
        inputs = {"inputs": {"vector": a_vector(seed)}}
        pushed = await world.run(stages, inputs)
        world.retrieval._vectors = NothingPushed(world.vectors)
        outside = await world.run(stages, inputs)
        world.retrieval._vectors = world.vectors
        assert found(pushed) == found(outside)


async def test_all_searches_are_one_round_trip(world: Any) -> None:
    store = NothingPushed(world.vectors)
    world.retrieval._vectors = store
    searches = [
        {"feature_uri": URI, "query": {"input_mode": "text", "value": "{{INPUT.q}}"}},
        {"feature_uri": SPARSE_URI, "query": "{{INPUT.q}}"},
    ]
    answer = await world.run([stage("feature_search", searches=searches)], {"inputs": {"q": "radio"}})
    assert store.rounds == 1
    assert {model for model, _, purpose in world.inference.calls if purpose == "query"} == {"letters", "bm25"}
    assert len(answer["documents"]) == 25
    assert URI in answer["documents"][0]["features"]


async def test_answer_is_whole(world: Any) -> None:
    answer = await world.run([by_vector()], {"inputs": {"vector": a_vector()}, "return_vectors": True, "limit": 4})
    assert answer["execution_id"].startswith("exec_")
    assert answer["retriever_id"] == "ret_r"
    assert answer["status"] == "completed"
    assert answer["cached_at"] is None
    assert answer["pagination"]["returned"] == 4
    assert answer["pagination"]["total"] == 10
    assert answer["pagination"]["has_next"]
    assert answer["budget"]["credits_used"] == 1.0
    entry = answer["stage_statistics"]["stages"]["feature_search"]
    assert entry["input_count"] == 0
    assert entry["output_count"] == 10
    scores = [document["score"] for document in answer["documents"]]
    assert scores == sorted(scores, reverse=True)
    assert len(answer["documents"][0]["vectors"]["text_extractor_v1_embedding"]) == SIZE
    assert answer["documents"][0]["collection_id"] == "col_products"


@pytest.mark.parametrize("fusion", ["rrf", "dbsf", "weighted", "max"])
async def test_fusion_finds_what_both_agree_on(world: Any, fusion: str) -> None:
    target = world.products[17]
    searches = [
        {"feature_uri": URI, "query": {"input_mode": "vector", "value": target["vector"]}, "weight": 0.5},
        {"feature_uri": URI, "query": {"input_mode": "document", "document_ref": {"document_id": "doc_017"}}},
    ]
    answer = await world.run([stage("feature_search", searches=searches, fusion=fusion, final_top_k=5)])
    assert found(answer)[0] == "doc_017"


async def test_every_form_of_a_query(world: Any) -> None:
    vector = world.products[3]["vector"]
    forms: list[Any] = [
        {"feature_uri": URI, "query": vector, "top_k": 1},
        {"feature_uri": URI, "query": {"input_mode": "vector", "value": vector}},
        {"feature_uri": URI, "query": {"vector": vector}},
        {"feature_uri": URI, "query": {"input_mode": "document", "document_ref": {"document_id": "doc_003"}}},
        {"feature_uri": URI, "query": {"document_id": "doc_003"}},
    ]
    for form in forms:
        answer = await world.run([stage("feature_search", searches=[form], final_top_k=1)])
        assert found(answer) == ["doc_003"]
    await world.put("products", [{"document_id": "doc_text", "title": "zzz bottle"}])
    texts: list[dict[str, Any]] = [
        {"feature_uri": URI, "input": {"text": "zzz bottle"}, "limit": 1},
        {"searches": [{"feature_uri": URI, "query": "zzz bottle"}], "final_top_k": 1},
        {
            "searches": [
                {
                    "feature_uri": URI,
                    "query": {"input_mode": "content", "value": "data:text/plain;base64,enp6IGJvdHRsZQ=="},
                }
            ],
            "final_top_k": 1,
        },
        {"searches": [{"feature_uri": URI, "query": "zzz bottle", "lexical": True}], "final_top_k": 1},
        {
            "searches": [
                {"feature_uri": "mixpeek://text_extractor@v1/text_extractor_v1_embedding", "query": "zzz bottle"}
            ],
            "final_top_k": 1,
        },
    ]
    for parameters in texts:
        assert found(await world.run([stage("feature_search", **parameters)])) == ["doc_text"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ([1.0] * 3, "has 3 numbers, the feature has 8"),
        ([float("nan")] * SIZE, "finite"),
        (["a"] * SIZE, "finite"),
        ({"input_mode": "smell", "value": 1}, "unknown input_mode"),
        ("", "is empty"),
        ({"input_mode": "content", "value": "https://x/y.png"}, "address"),
        ({"input_mode": "document", "document_ref": {"document_id": "doc_none"}}, "no document"),
    ],
)
async def test_a_wrong_query_is_refused(world: Any, query: Any, message: str) -> None:
    with pytest.raises((SpecError, NotFoundError), match=message):
        await world.run(
            [stage("feature_search", searches=[{"feature_uri": URI, "query": "{{INPUT.q}}"}])], {"inputs": {"q": query}}
        )


async def test_min_score_groups_and_facets(world: Any) -> None:
    vector = a_vector()
    everything = await world.run([by_vector(100)], {"inputs": {"vector": vector}})
    border = everything["documents"][4]["score"]
    strict = await world.run([by_vector(100, min_score=min(border, 1.0))], {"inputs": {"vector": vector}})
    assert found(strict) == found(everything)[:5]
    grouped = by_vector(100)
    grouped["parameters"] |= {
        "group_by": {"field": "supplier", "group_size": 2, "limit": 3},
        "facets": ["category", "supplier"],
    }
    answer = await world.run([grouped], {"inputs": {"vector": vector}})
    assert len(answer["documents"]) == 6
    assert [d["group_key"] for d in answer["documents"][::2]] == [d["group_key"] for d in answer["documents"][1::2]]
    for facet in answer["facets"]:
        assert sum(item["count"] for item in facet["values"]) == 120


async def test_optional_input_filters_only_when_given(world: Any) -> None:
    stages = [by_vector(100), stage("attribute_filter", field="price", operator="lte", value="{{INPUT.max_price}}")]
    inputs = {"vector": {"type": "array"}, "max_price": {"type": "number"}}
    all_of_them = await world.run(stages, {"inputs": {"vector": a_vector()}}, inputs=inputs)
    assert len(all_of_them["documents"]) == 100
    some = await world.run(stages, {"inputs": {"vector": a_vector(), "max_price": 50}}, inputs=inputs)
    assert found(some) == nearest(world, a_vector(), {"field": "price", "operator": "lte", "value": 50})[:100]


async def test_join_and_transform(world: Any) -> None:
    template = '{"id": "{{DOC.document_id}}", "by": "{{DOC.from.name}}", "note": "{{DOC.metadata.note}}"}'
    stages = [
        by_vector(20),
        stage(
            "document_enrich",
            target_collection_id="suppliers",
            source_field="supplier",
            target_field="supplier_id",
            fields_to_merge=["name"],
            output_field="from",
        ),
        stage("json_transform", template=template),
    ]
    answer = await world.run(stages, {"inputs": {"vector": a_vector()}})
    names = {document["document_id"]: document["supplier"] for document in world.products}
    assert len(answer["documents"]) == 20
    for document in answer["documents"]:
        supplier = names[document["id"]]
        assert document["by"] == (f"Supplier {supplier[1]}" if supplier != "s3" else "")
        assert document["note"] == 'says "hi"\n'
    assert answer["stage_statistics"]["stages"]["document_enrich"]["metadata"]["matched_count"] > 0


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (
            {"target_collection_id": "suppliers", "target_field": "supplier_id"},
            {"name": "Supplier 1", "document_id": "doc_001"},
        ),
        (
            {"collection_id": "suppliers", "lookup_field": "supplier_id", "select_fields": ["name"]},
            {"enriched_data": {"name": "Supplier 1"}},
        ),
        (
            {
                "target_collection_id": "suppliers",
                "target_field": "supplier_id",
                "multiple": True,
                "output_field": "a.b",
                "fields_to_merge": ["name"],
            },
            {"a": {"b": [{"name": "Supplier 1"}]}},
        ),
        (
            {
                "target_collection_id": "suppliers",
                "target_field": "supplier_id",
                "strategy": "append",
                "output_field": "s",
                "fields_to_merge": ["name"],
            },
            {"s": {"name": "Supplier 1"}},
        ),
        (
            {
                "target_collection_id": "suppliers",
                "target_field": "supplier_id",
                "when": {"field": "category", "value": "none"},
            },
            {"name": None},
        ),
    ],
)
async def test_ways_to_join(world: Any, parameters: dict[str, Any], expected: dict[str, Any]) -> None:
    stages = [
        stage("attribute_filter", field="document_id", value="doc_001"),
        stage("document_enrich", source_field="supplier", **parameters),
    ]
    document = (await world.run(stages))["documents"][0]
    assert {key: document.get(key) for key in expected} == expected


async def test_join_without_match_can_drop(world: Any) -> None:
    join = stage(
        "document_enrich",
        target_collection_id="suppliers",
        source_field="supplier",
        target_field="supplier_id",
        allow_missing=False,
    )
    answer = await world.run([join])
    assert len(answer["documents"]) == 90


async def test_join_through_a_retriever(world: Any) -> None:
    inner = [stage("attribute_filter", field="supplier_id", value="{{INPUT.s}}")]
    world.declare(
        inner, name="suppliers_of", collections=("suppliers",), inputs={"s": {"type": "text", "required": True}}
    )
    for way in (
        {"retriever_id": "suppliers_of"},
        {"retriever_config": {"stages": inner}, "target_collection_id": "suppliers"},
    ):
        join = stage(
            "document_enrich", retriever_inputs={"s": "{{DOC.supplier}}"}, output_field="who", strategy="append", **way
        )
        answer = await world.run([stage("limit", limit=5), join])
        for document in answer["documents"]:
            who = document.get("who")
            expected = None if document["supplier"] == "s3" else document["supplier"]
            assert (who and who[0]["supplier_id"]) == expected


async def test_a_retriever_that_joins_itself_ends(world: Any) -> None:
    join = stage("document_enrich", retriever_id="r", output_field="again")
    with pytest.raises(SpecError, match="nested"):
        await world.run([stage("limit", limit=1), join])


async def test_sorting(world: Any) -> None:
    by_price = await world.run(
        [stage("sort_attribute", sort_field="{{INPUT.by}}", order="asc")], {"inputs": {"by": "price"}}
    )
    prices = [document["price"] for document in by_price["documents"]]
    assert prices == sorted(prices)
    nulls = await world.run(
        [stage("sort_attribute", field="nothing", nulls_last=False), stage("limit", limit=3, offset=2)]
    )
    assert found(nulls) == found(await world.run([stage("limit", limit=3, offset=2)]))
    ranked = await world.run(
        [by_vector(30), stage("sort_attribute", field="price"), stage("sort_relevance", normalize=True)],
        {"inputs": {"vector": a_vector()}},
    )
    assert found(ranked) == nearest(world, a_vector())[:30]
    assert ranked["documents"][0]["score"] == 1.0
    assert ranked["documents"][-1]["score"] == 0.0


async def test_stage_and_context_in_templates(world: Any) -> None:
    stages = [
        by_vector(7),
        stage("limit", limit="{{STAGE.feature_search.count - 4}}"),
        stage(
            "json_transform",
            template='{"n": {{STAGE.limit.count}}, "ns": "{{CONTEXT.namespace_id}}", '
            '"left": {{context.budget_remaining}}}',
        ),
    ]
    answer = await world.run(stages, {"inputs": {"vector": a_vector()}}, budget={"max_credits": 5})
    assert answer["documents"] == [{"n": 3, "ns": "ns_test000001", "left": 4.0}] * 3


async def test_budget_stops_cleanly(world: Any) -> None:
    second = {**by_vector(3), "stage_name": "second"}
    answer = await world.run([by_vector(5), second], {"inputs": {"vector": a_vector()}}, budget={"max_credits": 1})
    assert answer["status"] == "degraded"
    assert len(answer["documents"]) == 5
    assert [entry["stage"] for entry in answer["degraded"]] == ["second"]
    late = await world.run([by_vector(5)], {"inputs": {"vector": a_vector()}}, budget={"max_time_ms": 0.0001})
    assert late["documents"] == []
    assert late["status"] == "degraded"


async def test_on_error_skip_goes_on(world: Any) -> None:
    broken = stage("json_transform", template='{"a": {{ 1 / 0 }}}', fail_on_error=True, on_error="skip")
    answer = await world.run([by_vector(5), broken], {"inputs": {"vector": a_vector()}})
    assert answer["status"] == "degraded"
    assert len(answer["documents"]) == 5
    assert "division" in answer["stage_statistics"]["stages"]["json_transform"]["error"]
    with pytest.raises(SpecError, match="division"):
        await world.run([by_vector(5), {**broken, "on_error": "error"}], {"inputs": {"vector": a_vector()}})


async def test_pages_of_an_execution(world: Any) -> None:
    name = world.declare([by_vector(30)])
    request: dict[str, Any] = {"inputs": {"vector": a_vector()}, "pagination": {"method": "cursor", "limit": 12}}
    seen: list[str] = []
    while True:
        answer = await world.retrieval.execute(world.scope, name, request)
        seen += found(answer)
        if not answer["pagination"]["has_next"]:
            break
        request = {**request, "pagination": {**request["pagination"], "cursor": answer["pagination"]["cursor"]}}
    assert seen == nearest(world, a_vector())[:30]


async def test_history_and_explain(world: Any) -> None:
    name = world.declare([by_vector(5), stage("attribute_filter", field="category", value="audio")])
    for seed in range(3):
        await world.retrieval.execute(world.scope, name, {"inputs": {"vector": a_vector(seed)}})
    with pytest.raises(SpecError):
        await world.retrieval.execute(world.scope, name, {"inputs": {"vector": [1.0]}})
    page = await world.retrieval.executions(world.scope, name, ListQuery())
    assert page.total == 4
    assert sorted(item["status"] for item in page.items) == ["completed"] * 3 + ["failed"]
    first = await world.retrieval.executions(world.scope, None, ListQuery(limit=3))
    rest = await world.retrieval.executions(world.scope, None, ListQuery(limit=3, cursor=first.next_cursor))
    assert [item["execution_id"] for item in (*first.items, *rest.items)] == [
        item["execution_id"] for item in page.items
    ]
    assert rest.next_cursor is None
    with pytest.raises(BadRequestError, match="another query"):
        await world.retrieval.executions(world.scope, name, ListQuery(limit=3, cursor=first.next_cursor))
    one = await world.retrieval.execution(world.scope, page.items[0]["execution_id"])
    assert one["retriever_id"] == "ret_r"
    before = len(world.inference.calls)
    plan = await world.retrieval.explain(world.scope, name, {})
    assert plan["total_estimated_stages"] == 2
    assert plan["execution_plan"][0]["estimated_input"] == 120
    assert plan["optimization_applied"]
    assert len(world.inference.calls) == before


async def test_adhoc_accepts_any_form_of_a_stage(world: Any) -> None:
    body = {
        "collection_ids": ["products"],
        "input_schema": {"properties": {"vector": {"type": "array", "required": True}}},
        "stages": [{"stage_name": "feature_search", "config": {"parameters": by_vector(3)["parameters"]}}],
        "inputs": {"vector": a_vector()},
    }
    answer = await world.retrieval.execute_adhoc(world.scope, body)
    assert found(answer) == nearest(world, a_vector())[:3]


async def test_nothing_of_another_namespace(world: Any) -> None:
    name = world.declare([by_vector()])
    with pytest.raises(NotFoundError):
        await world.retrieval.execute(Scope("int_test", "ns_other"), name, {"inputs": {"vector": a_vector()}})
    with pytest.raises(NotFoundError):
        await world.retrieval.execute(Scope("int_other", world.info.id), name, {"inputs": {"vector": a_vector()}})
    only = await world.run([by_vector(100)], {"inputs": {"vector": a_vector()}}, collections=("suppliers",))
    assert {document["collection_id"] for document in only["documents"]} == {"col_suppliers"}


async def test_a_store_that_is_away_is_said_so(world: Any) -> None:
    class Away(NothingPushed):
        async def search(self, collection: str, searches: Any, **options: Any) -> Any:
            raise UnavailableError("the vector store does not answer")

    world.retrieval._vectors = Away(world.vectors)
    with pytest.raises(UnavailableError):
        await world.run([by_vector()], {"inputs": {"vector": a_vector()}})


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"stage_id": "feature_serach"}], "did you mean 'feature_search'"),
        ([{}], "needs a stage_id"),
        ([], "at least one stage"),
        ([stage("limit", limti=5)], "unknown parameter 'limti'; did you mean 'limit'"),
        ([stage("limit", limit=0)], "greater than or equal to 1"),
        ([stage("limit", limit="{{INPUT.n")], "never closed"),
        ([stage("limit", limit="{{INPUT.n +}}")], "INPUT.n"),
        ([stage("limit"), stage("limit")], "is taken by"),
        ([stage("json_transform", template="{% if %}")], "line 1"),
        ([stage("json_transform")], "'template' is required"),
        ([stage("attribute_filter", field="a", operator="like", value=1)], "unknown operator 'like'"),
        ([stage("attribute_filter")], "either field"),
        ([stage("document_enrich", target_collection_id="x")], "source_field"),
        ([stage("feature_search", searches=[])], "at least 1 item"),
        ([stage("feature_search", searches=[{"feature_uri": URI}])], "'query' is required"),
        ([stage("feature_search", searches=[{"feature_uri": URI, "query": "a", "topk": 4}])], "did you mean 'top_k'"),
        ([stage("feature_search", searches=[{"feature_uri": URI, "query": "{{ a ? }}"}])], "value"),
    ],
)
def test_declaration_problems(stages: list[Any], message: str) -> None:
    problems = StageRegistry().check_stages(stages, {})
    assert problems
    assert message in "; ".join(str(problem) for problem in problems)
    assert all(problem.location[0] == "stages" for problem in problems)


async def test_compiling_names_what_does_not_exist(world: Any) -> None:
    with pytest.raises(SpecError, match="image_extractor"):
        await world.run(
            [
                stage(
                    "feature_search", searches=[{"feature_uri": "mixpeek://image_extractor@v1/embedding", "query": "a"}]
                )
            ]
        )
    join = stage("document_enrich", target_collection_id="nowhere", source_field="a", target_field="b")
    with pytest.raises(SpecError, match="nowhere"):
        await world.run([by_vector(), join], {"inputs": {"vector": a_vector()}})


def test_what_a_client_library_fills_in_is_no_mistake() -> None:
    filled = stage("attribute_filter", field="metadata.status", natural_language="null", batch_size=100)
    filled["parameters"]["conditions"] = {"AND": [{"field": "a", "value": 1}], "case_sensitive": False}
    join = stage("document_enrich", retriever_id="r", target_collection_id="{{COLLECTION_ID}}", output_field="null")
    assert StageRegistry().check_stages([filled, join], {}) == []


def test_catalogue() -> None:
    entries = {entry["stage_id"]: entry for entry in StageRegistry().catalog()}
    assert {"feature_search", "attribute_filter", "sort_attribute", "limit", "json_transform"} < entries.keys()
    for entry in entries.values():
        assert entry["parameter_schema"]["properties"]
        assert entry["category"] in ("filter", "sort", "reduce", "group", "apply", "enrich")
    for category in ("sort", "reduce", "group"):
        found = [entry["stage_id"] for entry in StageRegistry().catalog(category)]
        assert found == [id for id, entry in entries.items() if entry["category"] == category] != []
