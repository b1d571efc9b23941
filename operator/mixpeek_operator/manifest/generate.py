"""A manifest from a description, written by the configured OpenAI-compatible model and checked by our validator."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx

from mixpeek_operator.core.catalog import Catalog
from mixpeek_operator.core.errors import (
    BadRequestError,
    Problem,
    RateLimitedError,
    RefusedError,
    SpecError,
    UnavailableError,
)
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.settings import Settings

Check = Callable[[str], Awaitable[Sequence[Problem]]]
"""Every problem of a manifest text."""

ATTEMPTS = 3
_TIMEOUT_S = 120.0
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
    """Asks the model that the settings name (`llm_base_url`, `llm_model`, `llm_api_key`)."""

    def __init__(self, *, settings: Settings, schemas: Mapping[str, KindSchema], catalog: Catalog) -> None:
        self._settings = settings
        self._schemas = schemas
        self._catalog = catalog

    async def generate(self, description: str, *, manifest_name: str, check: Check) -> str:
        """Return a manifest that `check` finds nothing wrong with.

        Raises BadRequestError when no model is configured, SpecError when the model's last attempt is still wrong,
        UnavailableError, RateLimitedError or RefusedError when it does not answer.
        """
        base_url, model = self._settings.llm_base_url, self._settings.llm_model
        if not base_url or not model:
            raise BadRequestError(
                "no model is configured for manifest generation; set MIXPEEK_LLM_BASE_URL and MIXPEEK_LLM_MODEL "
                "(and MIXPEEK_LLM_API_KEY when the endpoint needs one) and restart the server",
                code="no_model_configured",
            )
        messages = [
            {"role": "system", "content": self._instructions()},
            {"role": "user", "content": f"Name the manifest {manifest_name!r}. It should provide: {description}"},
        ]
        problems: Sequence[Problem] = ()
        async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
            for _ in range(ATTEMPTS):
                answer = await self._ask(client, base_url, model, messages)
                text = manifest_text(answer)
                problems = await check(text)
                if not problems:
                    return text
                messages += [
                    {"role": "assistant", "content": answer},
                    {"role": "user", "content": _complaint(problems)},
                ]
        raise SpecError(
            f"the model's manifest is still wrong after {ATTEMPTS} attempts: "
            + "; ".join(str(problem) for problem in problems[:_SHOWN_PROBLEMS]),
            problems=problems,
            code="generation_failed",
        )

    async def _ask(
        self, client: httpx.AsyncClient, base_url: str, model: str, messages: Sequence[Mapping[str, str]]
    ) -> str:
        key = self._settings.llm_api_key
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key is not None else {}
        body = {"model": model, "messages": list(messages), "temperature": 0}
        try:
            response = await client.post(f"{base_url.rstrip('/')}/chat/completions", json=body, headers=headers)
        except httpx.HTTPError as error:
            raise UnavailableError(
                f"the model endpoint does not answer ({type(error).__name__}); check MIXPEEK_LLM_BASE_URL",
                code="model_unreachable",
            ) from error
        if response.status_code == 429:
            raise RateLimitedError("the model endpoint asks to slow down; try again later", code="model_rate_limited")
        if response.status_code >= 500:
            raise UnavailableError(f"the model endpoint answered {response.status_code}", code="model_unavailable")
        if response.status_code >= 400:
            raise RefusedError(
                f"the model endpoint refused with {response.status_code}; check MIXPEEK_LLM_API_KEY, "
                "MIXPEEK_LLM_MODEL and MIXPEEK_LLM_BASE_URL",
                code="model_refused",
            )
        return _content(response)

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


def _content(response: httpx.Response) -> str:
    try:
        body: Any = response.json()
        content = body["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise RefusedError(
            "the model endpoint's answer is no chat completion; check MIXPEEK_LLM_BASE_URL", code="model_answer_invalid"
        ) from error
    if not isinstance(content, str) or not content.strip():
        raise RefusedError("the model answered with no text", code="model_answer_invalid")
    return content
