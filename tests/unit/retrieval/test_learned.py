"""Learned fusion: its laws, and that it finds which search users want, from their clicks alone."""

from __future__ import annotations

import asyncio
import random
from typing import Any
from unittest.mock import AsyncMock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.retrieval.conftest import SPARSE_URI, URI

from mixpeek_operator.core.errors import SpecError, UnavailableError
from mixpeek_operator.relevance.interactions import Interaction, InteractionLog
from mixpeek_operator.retrieval.learned import Event, LearnedFusion, bounded, choose, credits_of, learn, reward
from mixpeek_operator.retrieval.stages._learned import arms_of

DAY = 86_400.0
ARMS = ("dense", "sparse")
GREEDY = LearnedFusion(exploration_bonus=0.1, exploration_floor=0.0, exploration_decay=0.9)


def event(credits: dict[str, float], *, types: tuple[str, ...] = ("click",), **changes: Any) -> Event:
    return Event(**{"at_s": 0.0, "position": 0, "types": types, "credits": credits, "facts": {}, **changes})


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8),
    st.floats(0.0, 0.5),
    st.floats(0.5, 1.0),
)
def test_shares_are_within_their_bounds(values: list[float], low: float, high: float) -> None:
    shares = bounded(values, low, high)
    assert sum(shares) == pytest.approx(1.0)
    count = len(values)
    least, most = min(low, 1 / count), max(high, 1 / count)
    assert all(least - 1e-9 <= share <= most + 1e-9 for share in shares)
    for one, share in zip(values, shares, strict=True):
        for other, another in zip(values, shares, strict=True):
            assert one <= other or share >= another - 1e-9


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), st.integers(1, 100), min_size=1))
def test_credit_is_shared_and_the_better_rank_gets_more(ranks: dict[str, int]) -> None:
    credits = credits_of(ranks)
    assert sum(credits.values()) == pytest.approx(1.0)
    assert all((ranks[a] < ranks[b]) <= (credits[a] > credits[b]) for a in ranks for b in ranks)


def test_nothing_learned_is_plain_rrf() -> None:
    choice = choose(learn([], ARMS, GREEDY, 0.0), ARMS, GREEDY, {}, "q")
    assert (choice.weights, choice.level) == ((1.0, 1.0), "prior")


def test_the_same_query_finds_the_same_until_something_is_learned() -> None:
    config = LearnedFusion()
    events = [event({"dense": 1.0}), event({"sparse": 1.0}), event({"dense": 0.5, "sparse": 0.5})]
    learned = learn(events, ARMS, config, 0.0)
    assert choose(learned, ARMS, config, {}, "q") == choose(learned, ARMS, config, {}, "q")
    assert choose(learned, ARMS, config, {}, "q") != choose(learned, ARMS, config, {}, "p")
    more = learn([*events, event({"dense": 1.0})], ARMS, config, 0.0)
    assert choose(more, ARMS, config, {}, "q") != choose(learned, ARMS, config, {}, "q")


@pytest.mark.parametrize("algorithm", ["thompson_sampling", "epsilon_greedy", "ucb"])
def test_rewards_and_penalties_move_the_weights(algorithm: str) -> None:
    config = GREEDY.model_copy(update={"algorithm": algorithm})
    liked = learn([event({"dense": 1.0}) for _ in range(50)], ARMS, config, 0.0)
    dense, sparse = choose(liked, ARMS, config, {}, "q").weights
    assert dense > 1.5 > 0.5 > sparse
    disliked = learn([event({"dense": 1.0}, types=("negative_feedback",)) for _ in range(50)], ARMS, config, 0.0)
    dense, sparse = choose(disliked, ARMS, config, {}, "q").weights
    assert sparse > dense


def test_users_then_segments_then_all() -> None:
    config = GREEDY
    ann = [event({"sparse": 1.0}, facts={"user_id": "ann", "user_segment": "art"}) for _ in range(5)]
    others = [event({"dense": 1.0}, facts={"user_id": f"u{i}", "user_segment": "law"}) for i in range(40)]
    learned = learn([*ann, *others], ARMS, config, 0.0)

    def asked(**facts: Any) -> Any:
        return choose(learned, ARMS, config, facts, "q")

    assert asked(user_id="ann").level == "personal"
    assert asked(user_id="ann").weights[1] > 1 > asked(user_id="u1", user_segment="law").weights[1]
    few = learn(ann[:4], ARMS, config, 0.0)
    assert choose(few, ARMS, config, {"user_id": "ann", "user_segment": "art"}, "q").level == "demographic"
    assert asked(user_id="new", user_segment="art").level == "demographic"
    assert asked(user_id="new", user_segment="art").weights[1] > 1
    assert asked(user_id="new").level == asked().level == "global"
    flat = config.model_copy(update={"fallback_strategy": "global"})
    assert choose(learned, ARMS, flat, {"user_id": "new", "user_segment": "art"}, "q").level == "global"


def test_old_interactions_fade_and_are_forgotten() -> None:
    config = GREEDY.model_copy(update={"decay_factor": 0.9, "decay_window_days": 30})
    old = [event({"sparse": 1.0}, at_s=-20 * DAY) for _ in range(30)]
    new = [event({"dense": 1.0}) for _ in range(30)]
    dense, sparse = choose(learn([*old, *new], ARMS, config, 0.0), ARMS, config, {}, "q").weights
    assert dense > 1.4 > sparse
    assert learn([event({"sparse": 1.0}, at_s=-31 * DAY)], ARMS, config, 0.0) == {}


def test_what_an_interaction_is_worth() -> None:
    assert reward(("click", "purchase"), GREEDY) == 5.0
    assert reward(("click", "return_to_results"), GREEDY) == -1.0
    assert reward(("view",), GREEDY) == 0.0
    assert reward(("view",), GREEDY.model_copy(update={"reward_signal": "view"})) == 1.0
    assert reward(("click", "rating"), GREEDY.model_copy(update={"reward_map": {"rating": 2.0}})) == 2.0
    top = learn([event({"dense": 1.0})], ARMS, GREEDY, 0.0)[("global",)]
    below = learn([event({"dense": 1.0}, position=6)], ARMS, GREEDY, 0.0)[("global",)]
    assert top.arms == {"dense": [2.0, 1.0], "sparse": [1.0, 2.0]}
    assert below.arms["dense"][0] == 4.0


def test_two_searches_of_one_feature_are_told_apart() -> None:
    assert arms_of(["a", "b", "a"]) == ["a", "b", "a#2"]


# -- in a pipeline


def learned_stage(world: Any, query: str, **config: Any) -> dict[str, Any]:
    searches = [{"feature_uri": uri, "query": query, "top_k": 20} for uri in (URI, SPARSE_URI)]
    parameters = {"searches": searches, "fusion": "learned", "final_top_k": 10}
    if config:
        parameters["learning_config"] = config
    return {"stage_id": "feature_search", "parameters": parameters}


async def clicked(world: Any, log: InteractionLog, answer: Any, document_id: str, **changes: Any) -> None:
    ids = [item["document_id"] for item in answer["documents"]]
    body = {
        "feature_id": document_id,
        "interaction_type": ["click"],
        "position": ids.index(document_id),
        "execution_id": answer["execution_id"],
        **changes,
    }
    await log.record(world.scope, Interaction.model_validate(body))


@pytest.fixture
def log(world: Any) -> InteractionLog:
    service = world.retrieval
    return InteractionLog(world.metadata, world, service.history, service.feedback, world.clock)


async def weights_of(world: Any, answer: Any) -> dict[str, Any]:
    record = await world.retrieval.execution(world.scope, answer["execution_id"])
    (signal,) = [item for item in record["signals"] if item["signal_type"] == "learned_weights"]
    return dict(signal["signal_data"])


async def test_it_learns_from_clicks_which_search_users_want(world: Any, log: InteractionLog) -> None:
    stage = learned_stage(world, "{{INPUT.query}}")
    plain = {**stage, "parameters": {**stage["parameters"], "fusion": "rrf"}}
    request = {"inputs": {"query": "thing 7 lamp"}}
    first = await world.run([stage], request)
    ranked = [(item["document_id"], item["score"]) for item in first["documents"]]
    rrf = await world.run([plain], request, name="plain")
    assert ranked == [(item["document_id"], item["score"]) for item in rrf["documents"]]
    assert (await weights_of(world, first))["level"] == "prior"

    dice = random.Random(5)
    for _ in range(60):
        kind = dice.choice(["lamp", "chair", "radio", "bottle"])
        answer = await world.run([stage], {"inputs": {"query": f"thing {dice.randrange(120)} {kind}"}})
        ranks = (await weights_of(world, answer))["ranks"]
        # The user wants what the words find first.
        best = min(ranks, key=lambda id: ranks[id].get(SPARSE_URI, 99))
        await clicked(world, log, answer, best)
    told = await weights_of(world, await world.run([stage], request))
    dense, sparse = told["weights"].values()
    assert told["level"] == "global"
    assert sparse > 1.4 > 0.6 > dense


async def test_deleting_an_interaction_unlearns_it(world: Any, log: InteractionLog) -> None:
    stage = learned_stage(world, "thing 7 lamp")
    answer = await world.run([stage])
    id = answer["documents"][0]["document_id"]
    made = await log.record(
        world.scope,
        Interaction(feature_id=id, interaction_type=["click"], position=0, retriever_id="r", feature_uri=URI),
    )
    assert (await weights_of(world, await world.run([stage])))["interactions"] == 1
    await log.delete(world.scope, made["interaction_id"])
    assert (await weights_of(world, await world.run([stage])))["level"] == "prior"


async def test_shadow_mode_and_rollout_use_the_declared_weights(world: Any, log: InteractionLog) -> None:
    for config in ({"shadow_mode": True}, {"rollout_pct": 0.0}):
        stage = learned_stage(world, "thing 7 lamp", **config)
        await world.run([stage])
        await log.record(
            world.scope,
            Interaction(feature_id="d", interaction_type=["click"], position=0, retriever_id="r", feature_uri=URI),
        )
        told = await weights_of(world, await world.run([stage]))
        assert list(told["weights"].values()) == [1.0, 1.0]
        assert told["learned"] is not None


async def test_a_slow_store_delays_no_search(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = learned_stage(world, "thing 7 lamp", circuit_breaker_timeout_ms=1)
    find, released = world.metadata.find, asyncio.Event()

    async def slow(*args: Any, **options: Any) -> Any:
        await released.wait()
        return await find(*args, **options)

    monkeypatch.setattr(world.metadata, "find", slow)
    answer = await world.run([stage])
    assert len(answer["documents"]) == 10
    assert "declared weights" in answer["warnings"][0]
    released.set()


async def test_a_store_that_is_away_fails_no_search(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = learned_stage(world, "thing 7 lamp")

    async def away(*args: Any, **options: Any) -> Any:
        raise UnavailableError("the metadata store is away")

    with monkeypatch.context() as patch:
        patch.setattr(world.metadata, "find", away)
        answer = await world.run([stage])
    assert len(answer["documents"]) == 10
    assert "declared weights" in answer["warnings"][0]
    assert "warnings" not in await world.run([stage])


async def test_many_interactions_are_not_read_after_each(world: Any, log: InteractionLog) -> None:
    stage = learned_stage(world, "thing 7 lamp")
    click = {"feature_id": "d", "interaction_type": ["click"], "position": 0, "retriever_id": "r", "feature_uri": URI}
    await world.run([stage])
    await log.record_many(world.scope, [Interaction.model_validate(click)] * 600)
    # The time counts from before the reading, which takes longer on a busy machine than the reading lasts.
    clock = world.clock.monotonic()
    world.clock.monotonic = lambda: clock
    assert (await weights_of(world, await world.run([stage])))["interactions"] == 600
    world.metadata.find = AsyncMock(wraps=world.metadata.find)
    for _ in range(3):
        await log.record(world.scope, Interaction.model_validate(click))
        assert (await weights_of(world, await world.run([stage])))["interactions"] == 600
    assert world.metadata.find.await_count == 0
    world.clock.monotonic = lambda: clock + 1
    assert (await weights_of(world, await world.run([stage])))["interactions"] == 603
    assert world.metadata.find.await_count == 1


async def test_wrong_settings_are_refused(world: Any) -> None:
    for config in ({"algoritm": "ucb"}, {"context_features": ["user_id"]}, {"min_weight": 0.9}):
        with pytest.raises(SpecError):
            await world.run([learned_stage(world, "a", **config)])
