"""The stages there are, and the check of a declaration against them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType, ModuleType
from typing import Any

from mixpeek_operator.core import registry
from mixpeek_operator.core.catalog import Need, StageInfo
from mixpeek_operator.core.errors import BadRequestError, InternalError, Place, Problem
from mixpeek_operator.ports.language import LanguageModels
from mixpeek_operator.retrieval import stages as builtin
from mixpeek_operator.retrieval.declaration import Declared, declare
from mixpeek_operator.retrieval.inputs import InputSchema
from mixpeek_operator.retrieval.stage import Stage


class StageRegistry:
    """Every stage by id: the modules of `stages/`, found once."""

    def __init__(self, package: ModuleType = builtin, language: LanguageModels | None = None) -> None:
        self._language = language
        self._stages = registry.discover(package, "STAGE", Stage)
        for name, stage in self._stages.items():
            if stage.info.id != name:
                raise InternalError(f"the stage in module {name!r} calls itself {stage.info.id!r}")

    def __getitem__(self, stage_id: str) -> Stage:
        return self._stages[stage_id]

    def stages(self) -> Mapping[str, StageInfo]:
        """Facts of every stage by id."""
        return MappingProxyType({name: stage.info for name, stage in self._stages.items()})

    def catalog(self, category: str | None = None) -> list[dict[str, Any]]:
        """The stages in the wire shape of `GET /v1/retrievers/stages`, of one category or all."""
        return [
            {
                "stage_id": info.id,
                "description": info.description,
                "category": info.category,
                "icon": info.icon,
                "parameter_schema": info.parameters.model_json_schema(by_alias=True),
            }
            for info in self.stages().values()
            if category is None or info.category == category
        ]

    def check_stages(self, stages: Sequence[Any], input_schema: Mapping[str, Any]) -> list[Problem]:
        """Every problem of a retriever's stages: unknown stage, wrong parameter, template that does not parse.

        Where `input_schema` declares inputs, a template may use no other. A language model that nobody configured is
        a problem where the registry knows which are.
        """
        declared, problems = self.declare(stages, inputs=InputSchema(input_schema).names)
        return problems + [problem for step in declared for problem in self.without_model(step)]

    def declare(self, stages: Sequence[Any], *, inputs: Sequence[str] = ()) -> tuple[list[Declared], list[Problem]]:
        """Return the stages that are right, parameters validated, and every problem of the others.

        `inputs` are the names that templates may use of INPUT; any when there are none.
        """
        declared: list[Declared] = []
        problems: list[Problem] = []
        names: dict[str, int] = {}
        if not stages:
            problems.append(Problem("no_stages", "a retriever needs at least one stage", location=("stages",)))
        for index, body in enumerate(stages):
            place = Place(path=f"stages[{index}]")
            stage_id = _stage_id(body)
            stage = self._stages.get(stage_id) if stage_id else None
            if stage is None:
                problems.append(Problem("unknown_stage", self._unknown(stage_id), place, location=("stages", index)))
                continue
            step, found = declare(stage, body, index, inputs)
            problems += found
            if step is None:
                continue
            if step.name in names:
                message = f"the name {step.name!r} is taken by stages[{names[step.name]}]"
                problems.append(Problem("duplicate_stage_name", message, place, location=("stages", index)))
            names.setdefault(step.name, index)
            declared.append(step)
        return declared, problems

    def without_model(self, step: Declared) -> Iterator[Problem]:
        """Every language model of a stage that nobody configured, where the registry knows which are."""
        if self._language is None or step.stage.models is None:
            return
        for choice in step.stage.models(step.params):
            try:
                self._language.named(choice)
            except BadRequestError as error:
                place = Place(path=f"stages[{step.index}].parameters")
                yield Problem(error.code, error.message, place, location=("stages", step.index, "parameters"))

    def needs(self, stages: Sequence[Any]) -> list[Need]:
        """The secrets and connections that stages name; `location` is their place in the declaration.

        Those of a retriever that a stage declares in place are among them.
        """
        found: list[Need] = []
        for step in self.declare(stages)[0]:
            stage, params, here = step.stage, step.params, ("stages", step.index, "parameters")
            named = list(stage.needs(params)) if stage.needs is not None else []
            models = stage.models(params) if stage.models is not None else ()
            for key in dict.fromkeys(model.secret for model in models if model.secret):
                named.append(Need("secret", key, _place_of_key(step.declared["parameters"], key)))
            found += [replace(need, location=(*here, *need.location)) for need in named]
            for name, inner in (stage.nested(params) if stage.nested is not None else {}).items():
                found += [replace(need, location=(*here, name, *need.location)) for need in self.needs(inner)]
        return found

    def _unknown(self, stage_id: str) -> str:
        if not stage_id:
            return "a stage needs a stage_id"
        close = get_close_matches(stage_id, self._stages, n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        return f"unknown stage {stage_id!r}{meant} There are: {', '.join(self._stages)}"


def _place_of_key(parameters: Mapping[str, Any], secret: str) -> tuple[str, ...]:
    """Return where parameters name the secret with a language model's key, () if nowhere."""
    for name, value in parameters.items():
        if isinstance(value, Mapping) and (inner := _place_of_key(value, secret)):
            return (name, *inner)
        if name == "secret_ref" and value == secret:
            return (name,)
        if name == "api_key" and str(value).strip("${} ").partition(".")[2].strip() == secret:
            return (name,)
    return ()


def _stage_id(body: Any) -> str:
    if not isinstance(body, Mapping):
        return ""
    config = body.get("config")
    inner = config.get("stage_id") if isinstance(config, Mapping) else None
    return str(body.get("stage_id") or inner or body.get("stage_name") or "")
