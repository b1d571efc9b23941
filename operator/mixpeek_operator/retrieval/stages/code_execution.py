"""Run your own Python over the documents, in a process that can compute and nothing else."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AliasChoices, Field, PrivateAttr, field_validator, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.ports.sandbox import Limits, Made, Program, Ran
from mixpeek_operator.retrieval import paths
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State

_MODULES: Final = frozenset({
    "__future__", "base64", "bisect", "calendar", "collections", "collections.abc", "copy", "dataclasses", "datetime",
    "decimal", "difflib", "enum", "fractions", "functools", "hashlib", "heapq", "html", "itertools", "json", "math",
    "operator", "random", "re", "statistics", "string", "textwrap", "time", "typing", "unicodedata", "urllib.parse",
})  # fmt: skip
_FUNCTION: Final = "transform"
_MEGABYTE: Final = 1024 * 1024
_Milliseconds = Annotated[int, Field(ge=100, le=30_000)]
_Megabytes = Annotated[int, Field(ge=16, le=4096)]


class Params(StageParams):
    """Parameters of `code_execution`; `timeout_ms` is accepted as well."""

    code: str = Field(
        min_length=1,
        max_length=65_536,
        description=(
            "Python that defines `transform(doc)`, called with each document: it returns the document as it is to be, "
            "or None to leave it out. Or code without that function, run once: it sees all documents as `docs` and "
            "sets `result` to a list with a value for each, which goes to output_field. INPUT, CONTEXT and ENV are "
            f"dictionaries. It may import {', '.join(sorted(_MODULES))}."
        ),
        examples=['def transform(doc):\n    doc["words"] = len(doc.get("title", "").split())\n    return doc'],
    )
    runtime: str | None = Field(
        default=None,
        pattern=r"^python(3(\.\d+)?)?$",
        description="python3.11 or the like. Accepted; the code runs on the server's own Python, 3.11 or newer.",
        examples=["python3.11"],
    )
    language: Literal["python"] = Field(default="python", description="Python is what there is.")
    timeout: Late[_Milliseconds] = Field(
        default=5000,
        validation_alias=AliasChoices("timeout", "timeout_ms"),
        description="Milliseconds for one document, or for all of them with `result`.",
        examples=[5000],
    )
    memory: Late[_Megabytes] = Field(default=128, description="Megabytes the code may use.", examples=[128])
    packages: list[str] = Field(
        default_factory=list,
        max_length=32,
        description="Further packages that it may import, of those that the server offers (MIXPEEK_CODE_PACKAGES).",
        examples=[[]],
    )
    output_field: str = Field(default="computed", min_length=1, description="Where the values of `result` go.")
    result_variable: str = Field(
        default="result", pattern=r"^[A-Za-z_]\w*$", description="The variable that holds them."
    )
    max_output_size: int = Field(
        default=1_000_000, ge=1024, le=16_000_000, description="Most bytes of JSON in one answer of the code."
    )
    env: Late[dict[str, str]] = Field(default_factory=dict, description="Texts that the code sees as ENV.")
    on_error: Literal["skip", "remove", "raise"] = Field(
        default="skip",
        description=(
            "What becomes of a document that the code fails on or is too slow for. skip: it stays as it was. remove: "
            "it is left out. raise: the stage fails. Too much memory always fails the stage."
        ),
        examples=["skip"],
    )
    debug: bool = Field(default=False, description="Whether the statistics tell what the code printed.")
    _imports: tuple[str, ...] = PrivateAttr()
    _each: bool = PrivateAttr()

    @field_validator("code")
    @classmethod
    def _no_template(cls, code: str) -> str:
        if "{{INPUT." in code.replace(" ", "") or "{{SECRET." in code.replace(" ", ""):
            raise ValueError("code holds no templates: use the variables INPUT, CONTEXT and ENV")
        return code

    @model_validator(mode="after")
    def _read(self) -> Params:
        try:
            tree = ast.parse(self.code)
        except SyntaxError as error:
            raise ValueError(f"the code is no Python: line {error.lineno}: {error.msg}") from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"the code is no Python that can be read: {type(error).__name__}") from None
        self._imports = tuple(sorted(set(_imports(tree))))
        foreign = [name for name in self._imports if name not in _MODULES]
        if foreign and not self.packages:
            raise ValueError(f"the code imports {', '.join(foreign)}; it may import {', '.join(sorted(_MODULES))}")
        assigned = set(_assigned(tree))
        self._each = _FUNCTION in assigned
        if not self._each and self.result_variable not in assigned:
            raise ValueError(f"the code defines no function transform(doc) and sets no {self.result_variable!r}")
        return self

    def program(self, names: Mapping[str, Any]) -> Program:
        """The program of an execution."""
        return Program(
            self.code,
            {**names, "ENV": known(self.env, names, "env")},
            "doc" if self._each else "docs",
            _FUNCTION if self._each else None,
            self.result_variable,
            self._imports,
            tuple(self.packages),
        )

    @property
    def each(self) -> bool:
        """Whether the code is called for each document."""
        return self._each


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return what the code makes of the documents. Raises what the sandbox raises, and SpecError with `raise`."""
    if not state.documents:
        return []
    names = context.names
    limits = Limits(
        known(params.timeout, names, "timeout") / 1000,
        known(params.memory, names, "memory") * _MEGABYTE,
        params.max_output_size,
    )
    # What the server keeps in a document for itself is no business of the code, and nothing it could set.
    bare = [{key: value for key, value in document.items() if key != "_internal"} for document in state.documents]
    program = params.program({"INPUT": names["INPUT"], "CONTEXT": _plain(names["CONTEXT"])})
    ran = await context.sandbox.run(program, bare if params.each else [bare], limits)
    state.metadata["isolation"] = list(ran.isolation)
    if params.debug:
        state.metadata["printed"] = ran.printed
    made = ran.made if params.each else _spread(ran, len(bare))
    documents: Documents = []
    failures: list[str] = []
    for document, one in zip(state.documents, made, strict=True):
        done = _done(document, one, params)
        if isinstance(done, str):
            failures.append(done)
            done = None if params.on_error == "remove" else document
        if done is not None:
            documents.append(done)
    if failures and params.on_error == "raise":
        raise SpecError(
            f"the code failed on {len(failures)} of {len(made)} documents: {failures[0]}", code="code_failed"
        )
    if failures:
        what = "left out" if params.on_error == "remove" else "unchanged"
        context.warnings.append(f"code_execution: {len(failures)} documents are {what}: {failures[0]}")
    state.metadata["failed"] = len(failures)
    return documents


def _done(document: dict[str, Any], made: Made, params: Params) -> dict[str, Any] | str | None:
    """The document as the code made it, None to leave it out, or why it could not be made."""
    if made.outcome != "value":
        return made.message
    if not params.each:
        return paths.write(document, params.output_field, made.value)
    if made.value is None:
        return None
    if not isinstance(made.value, dict):
        return f"transform returned {type(made.value).__name__}; it returns a document or None"
    own = {"_internal": document["_internal"]} if "_internal" in document else {}
    return {**{key: value for key, value in made.value.items() if key != "_internal"}, **own}


def _spread(ran: Ran, count: int) -> Sequence[Made]:
    """One value for each document, of the list that the code set."""
    [whole] = ran.made
    if whole.outcome != "value":
        return [whole] * count
    if not isinstance(whole.value, list) or len(whole.value) != count:
        return [Made("error", message=f"the result is no list of {count} values, one for each document")] * count
    return [Made("value", value) for value in whole.value]


def _plain(context: Mapping[str, Any]) -> dict[str, Any]:
    """What the execution knows of itself, without the documents that stages have put there."""
    found = {key: context[key] for key in context}
    return {key: value for key, value in found.items() if value is None or isinstance(value, str | int | float)}


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def _assigned(tree: ast.Module) -> Iterator[str]:
    """Names that the code binds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    return documents, 0.0, 80.0 + 0.1 * documents


STAGE = Stage(
    StageInfo("code_execution", "apply", "Run your own Python over the documents, isolated.", "code", Params),
    run,
    opaque=frozenset({"code"}),
    estimate=_estimate,
)
