"""How stages run: on parts, beside each other, within budgets; and always to the same answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import Field
from tests.unit.retrieval.conftest import World

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.core.errors import InternalError
from mixpeek_operator.retrieval import compile as compiling
from mixpeek_operator.retrieval import paths
from mixpeek_operator.retrieval import stages as builtin
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.registry import StageRegistry
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State

URI = "mixpeek://text_extractor@v1/text_embedding"
SEARCH = {
    "stage_id": "feature_search",
    "parameters": {"searches": [{"feature_uri": URI, "query": {"input_mode": "text", "value": "abc"}}]},
}


class Params(StageParams):
    """Parameters of `note`, a stage that writes one field."""

    into: str = Field(description="Field to write.")
    of: str = Field(default="document_id", description="Field to read.")
    text: Late[str] | None = Field(default=None, description="What to write instead.")
    lose: bool = Field(default=False, description="Whether it loses a document, which it must not.")
    cost: float = Field(default=0.0, description="Credits for each document.")


class Meeting:
    """Whether stages meet: each waits for the others that are expected, if they can come."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = []
        self.parties = 1
        self.barrier: asyncio.Barrier | None = None
        self.slow = False

    async def attend(self, documents: Documents) -> None:
        self.runs.append([str(document["document_id"]) for document in documents])
        if self.slow and len(self.runs) > 1:
            await asyncio.Event().wait()
        if self.parties > 1:
            self.barrier = self.barrier or asyncio.Barrier(self.parties)
            await self.barrier.wait()


MEETING = Meeting()


async def run(state: State, params: Params, context: Context) -> Documents:
    """Write a field into every document."""
    await MEETING.attend(state.documents)
    state.credits += params.cost * len(state.documents)
    made = []
    for document in state.documents:
        value = paths.read(document, params.of)
        if params.text is not None:
            value = known(params.text, {**context.names, "DOC": document})
        made.append(paths.write(document, params.into, f"<{None if value is paths.ABSENT else value}>"))
    return made[1:] if params.lose else made


NOTE = Stage(
    StageInfo("note", "apply", "Write a field.", "pencil", Params),
    run,
    repeatable=True,
    by_document=True,
    writes=lambda params: (params.into,),
    reads=lambda params: (params.of,),
    estimate=lambda params, documents: (documents, params.cost * documents, 0.1),
)


@pytest.fixture(autouse=True)
def meeting() -> Iterator[Meeting]:
    global MEETING
    MEETING = Meeting()
    yield MEETING


@pytest.fixture
def noted(world: World) -> World:
    """A world whose registry has one stage more."""
    package = ModuleType("stages_of_a_test")
    package.__path__ = []
    registry = StageRegistry(builtin)
    registry._stages = {**registry._stages, "note": NOTE}
    world.use_registry(registry)
    return world


_NAMES = itertools.count()


def note(into: str, of: str = "document_id", **more: Any) -> dict[str, Any]:
    config = {key: more.pop(key) for key in ("when", "batch_size", "on_error", "budget_limits") if key in more}
    return {
        "stage_name": f"note{next(_NAMES)}",
        "stage_id": "note",
        "parameters": {"into": into, "of": of, **more},
        **config,
    }


async def test_stages_that_do_not_touch_each_other_run_together(noted: World) -> None:
    MEETING.parties = 3  # without each other none of them would end
    answer = await noted.run([SEARCH, note("a"), note("b.c"), note("b.d", "title")])
    for document in answer["documents"]:
        id = document["document_id"]
        assert (document["a"], document["b"]["c"]) == (f"<{id}>", f"<{id}>")
        assert document["b"]["d"] == f"<{document.get('title')}>"
    plan = await noted.retrieval.explain(noted.scope, "r", {})
    assert [bool(row["optimization_notes"]) for row in plan["execution_plan"]] == [False, False, True, True]
    assert [item["rule_type"] for item in plan["optimization_details"]["decisions"]] == ["run_together"] * 2


@pytest.mark.parametrize(
    "second",
    [
        note("b", "a"),
        note("b", "a.x"),
        note("a"),
        note("a.x"),
        note("b", text="{{DOC.a}}"),
        note("b", text="of {{DOC}}"),
        note("b", text="of {{STAGE.feature_search.count}}"),
        note("document_id", "title"),
        note("b", when={"field": "a", "operator": "exists", "value": True}),
    ],
    ids=lambda item: str({**item["parameters"], "when": item.get("when")})[:60],
)
async def test_a_stage_that_needs_or_changes_what_another_one_writes_waits_for_it(
    noted: World, second: dict[str, Any]
) -> None:
    noted.declare([SEARCH, note("a"), second])
    await noted.retrieval.execute(noted.scope, "r", {})
    plan = await noted.retrieval.explain(noted.scope, "r", {})
    assert not plan["optimization_applied"]


async def test_the_first_stage_finds_the_documents_before_others_run(noted: World) -> None:
    answer = await noted.run([note("a"), note("b"), note("c")])
    assert len(answer["documents"]) == 120
    for document in answer["documents"]:
        assert {document["a"], document["b"], document["c"]} == {f"<{document['document_id']}>"}
    plan = await noted.retrieval.explain(noted.scope, "r", {})
    assert [bool(row["optimization_notes"]) for row in plan["execution_plan"]] == [False, False, True]


@pytest.mark.parametrize(
    ("parameters", "together"),
    [
        ({"url_field": "link"}, True),
        ({"url_field": "a"}, False),
        ({"url_field": "link", "on_error": "remove"}, False),
        ({"url": "https://shop.example/"}, False),
    ],
)
async def test_pages_are_read_beside_other_stages(noted: World, parameters: dict[str, Any], together: bool) -> None:
    noted.declare([SEARCH, note("a"), {"stage_id": "web_scrape", "parameters": parameters}])
    plan = await noted.retrieval.explain(noted.scope, "r", {})
    assert plan["optimization_applied"] == together


async def test_a_stage_that_breaks_its_promise_is_our_bug(noted: World) -> None:
    with pytest.raises(InternalError, match="note"):
        await noted.run([SEARCH, note("a"), note("b", lose=True)])


STAGES = st.one_of(
    st.builds(
        lambda into, of, size: note(into, of, **({} if size is None else {"batch_size": size})),
        st.sampled_from(["a", "b", "c.d", "c.e", "price"]),
        st.sampled_from(["document_id", "a", "c.d", "category", "price"]),
        st.none() | st.integers(1, 7) | st.just("{{3 + 2}}"),
    ),
    st.builds(
        lambda into, value: note(into, when={"field": "category", "operator": "eq", "value": value}),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["audio", "home", "none"]),
    ),
    st.builds(
        lambda value: {
            "stage_id": "attribute_filter",
            "parameters": {"field": "category", "operator": "eq", "value": value},
        },
        st.sampled_from(["audio", "home"]),
    ),
    st.builds(
        lambda field: {"stage_id": "sort_attribute", "parameters": {"field": field}},
        st.sampled_from(["price", "a", "document_id"]),
    ),
    st.builds(
        lambda most: {"stage_id": "limit", "parameters": {"limit": most}},
        st.integers(1, 30),
    ),
)
IS_AUDIO = {"field": "category", "operator": "eq", "value": "audio"}
WHOLE = {
    "stage_id": "feature_search",
    "parameters": {
        "searches": [{"feature_uri": URI, "query": {"input_mode": "text", "value": "abc"}, "top_k": 500}],
        "final_top_k": 500,
    },
}


@example(before=[], after=[note("a"), note("b", "a"), note("c.d", when=IS_AUDIO), note("c.e", "category")])
@given(before=st.lists(STAGES, max_size=1), after=st.lists(STAGES, max_size=5))
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_optimized_and_plain_pipelines_agree(
    noted: World, monkeypatch: pytest.MonkeyPatch, before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> None:
    leading = [stage for stage in before if stage["stage_id"] == "attribute_filter"]
    stages = [{**item, "stage_name": f"stage{n}"} for n, item in enumerate([*leading, WHOLE, *after])]
    optimized = await noted.run(stages)
    with monkeypatch.context() as patched:
        # Plain: every stage by itself, in the order of the declaration, on all documents at once.
        patched.setattr(compiling, "_movable", lambda item: False)
        patched.setattr(compiling, "_independent", lambda step, running: False)
        plain = await noted.run([{key: item[key] for key in item if key != "batch_size"} for item in stages])
    assert optimized["documents"] == plain["documents"]
    assert list(optimized["stage_statistics"]["stages"]) == list(plain["stage_statistics"]["stages"])


async def test_a_batch_size_may_be_a_template(noted: World) -> None:
    inputs = {"page": {"type": "integer", "default": 2}}
    await noted.run([SEARCH, note("a", batch_size="{{5 * inputs.page}}")], {"inputs": {"page": 2}}, inputs=inputs)
    assert [len(part) for part in MEETING.runs] == [10, 10, 5]
    problems = StageRegistry().check_stages([{**SEARCH, "batch_size": 0}, {**SEARCH, "batch_size": "{{INPUT.x"}], {})
    assert {problem.location for problem in problems} == {("stages", 0, "batch_size"), ("stages", 1, "batch_size")}


async def test_credits_stop_between_parts_with_what_is_done(noted: World) -> None:
    stages = [SEARCH, note("a", cost=1.0, batch_size=5), note("b")]
    answer = await noted.run(stages, budget={"max_credits": 12})
    assert (answer["status"], len(answer["documents"])) == ("degraded", 25)
    assert ["a" in document for document in answer["documents"]] == [False] * 25, "not even the first part was started"
    MEETING.runs.clear()
    stages[1]["parameters"]["cost"] = 0.1
    stages[1]["budget_limits"] = {"max_credits": 1.2}
    answer = await noted.run(stages)
    assert ["a" in document for document in answer["documents"]] == [False] * 25
    assert {item["stage"] for item in answer["degraded"]} == {stages[1]["stage_name"], stages[2]["stage_name"]}
    assert "1.2 are left" in answer["degraded"][0]["reason"]


async def test_time_stops_a_stage_and_keeps_the_parts_that_are_done(noted: World) -> None:
    MEETING.slow = True
    stages = [SEARCH, note("a", batch_size=10, cost=0.5, budget_limits={"max_time_ms": 300}), note("b", "a")]
    answer = await noted.run(stages)
    done = ["a" in document for document in answer["documents"]]
    assert done == [True] * 10 + [False] * 15, "the first part is done, the second never ends"
    assert answer["budget"]["credits_used"] == 1.0 + 5.0
    assert [item["stage"] for item in answer["degraded"]] == [stages[1]["stage_name"], stages[2]["stage_name"]]
    assert stages[1]["stage_name"] in answer["degraded"][0]["reason"]


async def test_the_time_of_an_execution_stops_it_too(noted: World) -> None:
    MEETING.slow = True
    stages = [SEARCH, note("a", batch_size=10), note("b", "a")]
    answer = await noted.run(stages, budget={"max_time_ms": 400})
    assert sum("a" in document for document in answer["documents"]) == 10
    assert answer["degraded"][0]["reason"] == "the execution's time is used up"


async def test_who_stops_listening_stops_the_execution(noted: World) -> None:
    MEETING.slow = True
    noted.declare([SEARCH, note("a"), note("b", "a")], cache={"enabled": False})
    events = await noted.retrieval.events(noted.scope, "r", {})
    told = [orjson.loads(await anext(events)) for _ in range(4)]
    assert [item["event_type"] for item in told] == ["stage_start", "stage_complete"] * 2
    assert (await anext(events)).startswith(b'{"event_type":"stage_start"')
    running = asyncio.all_tasks()
    await events.aclose()
    assert len(asyncio.all_tasks()) < len(running)


async def test_explain_tells_what_is_kept(noted: World) -> None:
    inputs = {"query": {"type": "text"}}
    search = {**SEARCH, "parameters": {"searches": [{"feature_uri": URI, "query": "{{INPUT.query}}"}]}}
    noted.declare([search, note("a")], inputs=inputs)
    request = {"inputs": {"query": "red"}}

    async def state(asked: dict[str, Any]) -> tuple[str, list[bool]]:
        plan = await noted.retrieval.explain(noted.scope, "r", asked)
        return plan["cache"]["state"], [row["cache_likely"] for row in plan["execution_plan"]]

    assert await state({}) == await state(request) == ("miss", [False, False])
    await noted.retrieval.answer(noted.scope, "r", request)
    await asyncio.sleep(0)
    assert await state(request) == ("hit", [True, True])
    assert await state({**request, "limit": 1}) == ("miss", [True, False])
    assert await state({"inputs": {"query": "blue"}}) == ("miss", [False, False])
    noted.declare(
        [search, {"stage_id": "sample", "parameters": {"count": 1}}], inputs=inputs, budget={"max_credits": 0.5}
    )
    plan = await noted.retrieval.explain(noted.scope, "r", request)
    assert plan["cache"]["state"] == "off" and "'sample'" in plan["cache"]["reason"]
    assert plan["warnings"] == ["it may cost 1 credits and stops at 0.5"]
