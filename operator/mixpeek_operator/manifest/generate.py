"""A manifest from a description, written by the configured language model and checked by our validator."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence

from mixpeek_operator.core.catalog import Catalog
from mixpeek_operator.core.errors import NotEnabledError, Problem, SpecError
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.ports.language import LanguageModels, Message, Request

Check = Callable[[str], Awaitable[Sequence[Problem]]]
"""Every problem of a manifest text."""

ATTEMPTS = 3
_MAX_TOKENS = 16_000
_SHOWN_PROBLEMS = 20
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n(.*?)```", re.DOTALL)

_INSTRUCTIONS = """\
You write manifests for a multimodal search system. Answer with one YAML document and nothing else.
A manifest has `version: "1.0"`, `metadata: {name: ...}` and lists of resources, one per section.
Every entry has a `name`; every entry but a namespace has `namespace: <name of a namespace>`.
References are names of other entries of the same namespace. Secrets are written ${{ secrets.NAME }}, never as values.
A collection reads a bucket and runs one extractor of its namespace; a retriever searches collections with stages.
Templates in stage parameters are {{INPUT.name}}; each input is declared in input_schema.
Use only what is listed below.
"""


class Generator:
    """Asks the language model that the settings name."""

    def __init__(self, *, language: LanguageModels | None, schemas: Mapping[str, KindSchema], catalog: Catalog) -> None:
        self._language = language
        self._schemas = schemas
        self._catalog = catalog

    async def generate(self, organization: str, description: str, *, manifest_name: str, check: Check) -> str:
        """Return a manifest that `check` finds nothing wrong with.

        Raises BadRequestError when no model is configured, SpecError when the model's last attempt is still wrong,
        UnavailableError, RateLimitedError or RefusedError when it does not answer.
        """
        if self._language is None:
            raise NotEnabledError("this server was put together without language models", code="no_language_models")
        messages = [Message("user", f"Name the manifest {manifest_name!r}. It should provide: {description}")]
        problems: Sequence[Problem] = ()
        for _ in range(ATTEMPTS):
            request = Request(tuple(messages), system=self._instructions(), temperature=0.0, max_tokens=_MAX_TOKENS)
            answer = await self._language.complete(request, organization=organization)
            text = manifest_text(answer.text)
            problems = await check(text)
            if not problems:
                return text
            messages += [Message("model", native=answer.native), Message("user", _complaint(problems))]
        raise SpecError(
            f"the model's manifest is still wrong after {ATTEMPTS} attempts: "
            + "; ".join(str(problem) for problem in problems[:_SHOWN_PROBLEMS]),
            problems=problems,
            code="generation_failed",
        )

    def _instructions(self) -> str:
        lines = [_INSTRUCTIONS]
        for schema in self._schemas.values():
            lines.append(f"Section {schema.plural}:")
            for name, field in schema.spec.model_fields.items():
                mark = " (required)" if field.is_required() else ""
                example = f", e.g. {field.examples[0]}" if field.examples else ""
                lines.append(f"- {name}{mark}: {field.description or ''}{example}")
        lines.append("Extractors (name version: inputs -> features):")
        for (name, version), info in sorted(self._catalog.extractors().items()):
            inputs = ", ".join(info.input_schema.get("properties") or {})
            features = ", ".join(f"mixpeek://{name}@{version}/{index.output}" for index in info.vector_indexes)
            lines.append(f"- {name} {version}: {inputs} -> {features or 'no vectors'}")
        lines.append("Stages (stage_id: parameters):")
        for stage_id, stage in sorted(self._catalog.stages().items()):
            lines.append(f"- {stage_id}: {', '.join(stage.parameters.model_fields)}")
        return "\n".join(lines)


def manifest_text(answer: str) -> str:
    """Return the YAML of a model's answer: what is in its first code fence, else all of it."""
    fenced = _FENCE.search(answer)
    return (fenced.group(1) if fenced else answer).strip() + "\n"


def _complaint(problems: Sequence[Problem]) -> str:
    listed = "\n".join(f"- {problem}" for problem in problems[:_SHOWN_PROBLEMS])
    return f"The manifest is wrong. Correct every problem and answer with the whole manifest again:\n{listed}"
