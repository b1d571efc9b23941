"""Reference pages in Markdown: kinds, stages, extractors, settings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mixpeek_operator.core.catalog import ExtractorInfo, StageInfo
from mixpeek_operator.core.fields import Immutable, Ref
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.normal import to_camel
from mixpeek_operator.core.refs import is_model, unwrap
from mixpeek_operator.core.resource import API_VERSION, metadata_name
from mixpeek_operator.generate.structural import default_of

NOTICE = "<!-- Generated from the models by `make generate`; edit them, not this page. -->\n\n"
_TYPE_NAMES = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "SecretStr": "secret",
    "Path": "path",
    "Deferred": "template",
    "LateFilter": "filter",
    "LateUrl": "URL or template",
    "JsonPath": "JSONPath",
}


def kind_page(kind: KindSchema) -> str:
    """Return the page of a kind."""
    summary = (kind.spec.__doc__ or kind.name).strip().splitlines()[0]
    name = str(kind.example["name"])
    resource = {
        "apiVersion": API_VERSION,
        "kind": kind.name,
        "metadata": {"name": metadata_name(kind.example.get("namespace"), name)},
        "spec": to_camel(kind, kind.example),
    }
    manifest = {"version": "1.0", kind.plural: [dict(kind.example)]}
    status = [row for row in _rows(kind.status, "") if not row.startswith("| `conditions[")]
    return (
        f"{NOTICE}# {kind.name}\n\n{summary}\n\n"
        f"Section `{kind.plural}` of a manifest, `/v1/{kind.plural}` of the REST API, and the custom resource "
        f"`{kind.plural}.mixpeek.com` (short: {', '.join(f'`{item}`' for item in kind.short_names)}).\n\n"
        f"## In a manifest\n\n```yaml\n{_yaml(manifest)}```\n\n"
        f"## As a custom resource\n\n```yaml\n{_yaml(resource)}```\n\n"
        f"## Fields\n\nSpelled as in a manifest; a custom resource writes them in camelCase.\n\n"
        f"{_table(_rows(kind.spec, ''))}\n"
        f"## Other spellings\n\n{_aliases(kind.spec)}\n"
        f"## Status\n\n{_table(status)}\n"
        "## Conditions\n\n"
        "| condition | true when |\n| --- | --- |\n"
        f"| `Ready` | the {kind.name.lower()} can be used |\n"
        "| `Synced` | the last pass brought the real state in line with the declaration |\n\n"
        "Wait with `kubectl wait --for=condition=Ready` or `mixpeekctl wait`. The reason is one CamelCase word, and "
        "the message says what to do.\n"
    )


def stage_page(stage: StageInfo) -> str:
    """Return the page of a retriever stage."""
    return (
        f"{NOTICE}# {stage.id}\n\n{stage.description}\n\nCategory: `{stage.category}`.\n\n"
        f"## Parameters\n\n{_table(_rows(stage.parameters, ''))}"
    )


def extractor_page(info: ExtractorInfo) -> str:
    """Return the page of a feature extractor."""
    vectors = "".join(
        f"| `{index.name}` | `mixpeek://{info.name}@{info.version}/{index.output}` | {index.type} | "
        f"{index.dimensions or ''} | {index.distance} |\n"
        for index in info.vector_indexes
    )
    table = f"| vector | feature URI | type | dimensions | distance |\n| --- | --- | --- | --- | --- |\n{vectors}"
    return (
        f"{NOTICE}# {info.name}@{info.version}\n\n{info.description}\n\n"
        f"Takes: {', '.join(f'`{item}`' for item in info.supported_input_types) or 'nothing'}.\n\n"
        f"## Inputs\n\n{_schema_table(info.input_schema)}\n"
        f"## Outputs\n\n{_schema_table(info.output_schema)}\n"
        f"## Features\n\n{table if vectors else 'None.' + chr(10)}\n"
        f"## Parameters\n\n{_table(_rows(info.parameters, ''))}"
    )


def settings_page(settings: type[BaseModel]) -> str:
    """Return the page of the server's settings."""
    prefix = str(settings.model_config.get("env_prefix", ""))
    rows = []
    for name, field in settings.model_fields.items():
        default = default_of(field)
        shown = f"`{default}`" if default is not None and str(default) != "" else ""
        rows.append(f"| `{prefix}{name.upper()}` | {_type(field.annotation)} | {shown} | {_cell(field.description)} |")
    head = "| variable | type | default | description |\n| --- | --- | --- | --- |\n"
    return (
        f"{NOTICE}# Settings\n\nA server reads these variables once, when it starts.\n\n{head}" + "\n".join(rows) + "\n"
    )


def index_page(title: str, entries: Iterable[tuple[str, str, str]]) -> str:
    """Return a list of pages: (title, link, summary)."""
    lines = [f"- [{name}]({link}): {summary}" for name, link, summary in entries]
    return f"{NOTICE}# {title}\n\n" + "\n".join(lines) + "\n"


def _yaml(value: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(value), sort_keys=False, width=100, allow_unicode=True)


def _table(rows: list[str]) -> str:
    if not rows:
        return "None.\n"
    head = "| field | type | description | default | example |\n| --- | --- | --- | --- | --- |\n"
    return head + "\n".join(rows) + "\n"


def _rows(model: type[BaseModel], prefix: str, parents: tuple[type[BaseModel], ...] = ()) -> list[str]:
    rows: list[str] = []
    for name, field in model.model_fields.items():
        # `lambda_` stands for a name that is a word of Python's.
        path = f"{prefix}{name.rstrip('_')}"
        rows.append(_row(path, field))
        for inner, suffix in _inner(field.annotation):
            if inner not in (*parents, model):
                rows += _rows(inner, f"{path}{suffix}.", (*parents, model))
    return rows


def _row(path: str, field: FieldInfo) -> str:
    _alternatives, marks = unwrap(field.annotation, field.metadata)
    notes = ["**Required.**"] if field.is_required() else []
    notes += [f"Refers to a {mark.kind}." for mark in marks if isinstance(mark, Ref)]
    notes += [f"Cannot change: {mark.why}." for mark in marks if isinstance(mark, Immutable)]
    text = " ".join([_cell(field.description), *notes])
    default = default_of(field)
    example = field.examples[0] if field.examples else None
    return f"| `{path}` | {_type(field.annotation)} | {text} | {_literal(default)} | {_literal(example)} |"


def _literal(value: Any) -> str:
    if value is None or value == [] or value == {} or value == "":
        return ""
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return "`" + _cell(shown).replace("`", "'") + "`"


def _cell(text: Any) -> str:
    return " ".join(str(text or "").split()).replace("|", "\\|").replace("<", "&lt;")


def _inner(annotation: Any) -> list[tuple[type[BaseModel], str]]:
    found: list[tuple[type[BaseModel], str]] = []
    for option in unwrap(annotation)[0]:
        arguments = get_args(option)
        if is_model(option):
            found.append((option, ""))
        elif get_origin(option) is list and arguments:
            found += [(model, f"[]{suffix}") for model, suffix in _inner(arguments[0])]
        elif get_origin(option) is dict and len(arguments) == 2:
            found += [(model, f".*{suffix}") for model, suffix in _inner(arguments[1])]
    return found


def _type(annotation: Any) -> str:
    names = dict.fromkeys(_one_type(option) for option in unwrap(annotation)[0])
    if "template" in names:
        names = {name: None for name in names if name != "template"} | {"template": None}
    return " or ".join(names)


def _one_type(option: Any) -> str:
    arguments = get_args(option)
    if is_model(option):
        return "object"
    if get_origin(option) is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if get_origin(option) in (list, tuple) and arguments:
        return f"list of {_type(arguments[0])}"
    if option is dict or get_origin(option) is dict:
        return "object" if not arguments or arguments[1] is Any else f"map of {_type(arguments[1])}"
    if option is Any:
        return "any"
    name = str(getattr(option, "__name__", option))
    return _TYPE_NAMES.get(name, name)


def _aliases(model: type[BaseModel], prefix: str = "") -> str:
    lines = []
    for alias, name in getattr(model, "aliases", {}).items():
        lines.append(f"- `{prefix}{alias}` is read as `{prefix}{name}`")
    for name, field in model.model_fields.items():
        for inner, suffix in _inner(field.annotation):
            for alias, target in getattr(inner, "aliases", {}).items():
                lines.append(f"- `{prefix}{name}{suffix}.{alias}` is read as `{prefix}{name}{suffix}.{target}`")
    return "\n".join(lines) + "\n" if lines else "None.\n"


def _schema_table(schema: Mapping[str, Any]) -> str:
    properties = schema.get("properties") or {}
    if not properties:
        return "None.\n"
    rows = [
        f"| `{name}` | {_cell(value.get('type', 'any'))} | {_cell(value.get('description'))} |"
        for name, value in properties.items()
    ]
    return "| name | type | description |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"
