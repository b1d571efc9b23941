"""What may be kept of a pipeline: its answers, and the outputs of which stages. Decided when it compiles. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from pydantic import BaseModel

from mixpeek_operator.core.directory import RetrieverInfo
from mixpeek_operator.retrieval.declaration import Declared

DEFAULT_TTL_S: Final = 3600
_HASHED: Final = 2047
"""Bytes hashed at once. From 2 KiB on hashlib lets other threads have the interpreter, and to get it back takes longer
than to hash a query."""
_OF_ONE_RUN: Final = frozenset({"budget_remaining", "credits_used", "time_elapsed_ms", "execution_id"})
"""What CONTEXT tells that is another in every execution."""


@dataclass(frozen=True, slots=True)
class AnswerRule:
    """Whether answers are kept, and how long."""

    ttl_s: float
    """0: never."""
    reason: str | None = None
    """Why not."""
    repeatable: bool = True
    """Whether every stage is."""


@dataclass(frozen=True, slots=True)
class StageRule:
    """Whether a stage's output is kept, and what it depends on besides the documents before it."""

    ttl_s: float
    """0: never."""
    repeatable: bool
    digest: str
    """Of what was declared of it and of the filters that moved into it."""
    inputs: tuple[str, ...] | None
    """The inputs it uses; None for all."""


NEVER: Final = StageRule(0, False, "", None)


def answer_rule(retriever: RetrieverInfo, stages: Sequence[Declared]) -> AnswerRule:
    """Answers are kept unless it is switched off; those that may come out differently only when it is switched on.

    On means a `cache_config` in the declaration, or `aggressive` at the stage concerned.
    """
    config = retriever.cache_config
    changing = [item for item in stages if not is_repeatable(item)]
    rule = AnswerRule(float(config.get("ttl_seconds", DEFAULT_TTL_S)), repeatable=not changing)
    if not config.get("enabled", True) or rule.ttl_s <= 0:
        return AnswerRule(0, "cache_config switches caching off", rule.repeatable)
    for item in stages:
        behavior, ttl = item.params.cache_behavior, item.params.cache_ttl_seconds
        if behavior == "disabled" or ttl == 0:
            return AnswerRule(0, f"the stage {item.name!r} switches caching off", rule.repeatable)
    told = telling(retriever, stages)
    if told is not None:
        reason = f"the stage {told.name!r} may write a field of cache_config.exclude_fields under another name"
        return AnswerRule(0, reason, rule.repeatable)
    for item in changing:
        if not config and item.params.cache_behavior != "aggressive":
            reason = f"the stage {item.name!r} may answer differently every time; declare cache_config to keep answers"
            return AnswerRule(0, reason, repeatable=False)
    ttls = [item.params.cache_ttl_seconds for item in changing if item.params.cache_ttl_seconds is not None]
    return AnswerRule(min([rule.ttl_s, *map(float, ttls)]), repeatable=rule.repeatable)


def stage_rule(
    retriever: RetrieverInfo, item: Declared, moved: Sequence[Declared], told: Declared | None = None
) -> StageRule:
    """Outputs are kept of costly stages that are repeatable, of named ones, and where the stage itself says so.

    Those from the stage `told` on are not; see `telling`.
    """
    uses = {path for each in (item, *moved) for path in each.uses if path[0] == "INPUT"}
    inputs = None if any(len(path) < 2 for path in uses) else tuple(sorted({path[1] for path in uses}))
    declared = [each.declared for each in (item, *moved)]
    repeatable = all(map(is_repeatable, (item, *moved)))
    ttl_s = 0 if told is not None and told.index <= item.index else _stage_ttl(retriever, item, repeatable)
    return StageRule(ttl_s, repeatable, digest(declared), inputs)


def telling(retriever: RetrieverInfo, stages: Sequence[Declared]) -> Declared | None:
    """Return the first stage that may write what an excluded field holds under another name.

    That is one whose parameters name the field, and one of which nobody can say what it makes of a document. Stages
    that only choose or order documents leave a field where it is.
    """
    fields = retriever.cache_config.get("exclude_fields") or ()
    if not fields:
        return None
    named = re.compile("|".join(rf"(?<!\w){re.escape(field)}(?!\w)" for field in fields))
    for item in stages:
        if item.stage.filter is not None or item.stage.info.category == "sort":
            continue
        texts = _texts([*item.declared.get("parameters", {}).values(), *vars(item.params).values()])
        if not is_repeatable(item) or ("DOC",) in item.uses or any(named.search(text) for text in texts):
            return item
    return None


def is_repeatable(item: Declared) -> bool:
    """Whether equal documents and inputs make equal output while the collections stay as they are."""
    own = item.stage.repeatable
    return (own(item.params) if callable(own) else own) and not any(map(_of_one_run, item.uses))


def digest(value: Any) -> str:
    """Return 32 hex digits, the same for equal JSON values."""
    encoded = orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=repr)
    hashed = hashlib.sha256()
    for start in range(0, len(encoded), _HASHED):
        hashed.update(encoded[start : start + _HASHED])
    return hashed.hexdigest()[:32]


def _stage_ttl(retriever: RetrieverInfo, item: Declared, repeatable: bool) -> float:
    config: Mapping[str, Any] = retriever.cache_config
    behavior, own_ttl = item.params.cache_behavior, item.params.cache_ttl_seconds
    if not retriever.id or not config.get("enabled", True) or behavior == "disabled":
        return 0
    ttl = float(config.get("ttl_seconds", DEFAULT_TTL_S) if own_ttl is None else own_ttl)
    if behavior == "aggressive" or item.name in (config.get("cache_stage_names") or ()):
        return ttl
    asked = behavior is not None or own_ttl is not None
    return ttl if repeatable and (asked or item.stage.costly) else 0


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, BaseModel):
        yield from _texts(list(vars(value).values()))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _of_one_run(path: tuple[str, ...]) -> bool:
    if path[0] == "CONTEXT":
        return len(path) < 2 or path[1] in _OF_ONE_RUN
    return path[0] == "STAGE" and (len(path) < 3 or path[2] == "duration_ms")
