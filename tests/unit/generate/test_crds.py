"""The CustomResourceDefinitions keep the API server's rules and accept what the models accept."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.normal import to_camel
from mixpeek_operator.generate.__main__ import main
from mixpeek_operator.generate.crds import definition
from mixpeek_operator.generate.files import kind_schemas, stale, write

SCHEMAS = kind_schemas()
FORBIDDEN = {
    *("$ref", "$schema", "id", "definitions", "dependencies", "deprecated", "discriminator", "patternProperties"),
    *("additionalItems", "readOnly", "writeOnly", "xml", "uniqueItems", "anyOf", "oneOf", "allOf", "not", "const"),
    *("default", "examples", "title", "prefixItems"),
}
TYPES = {"object", "array", "string", "integer", "number", "boolean"}
CEL_WORDS = {"namespace", "package", "in", "as", "import", "function", "if", "for", "loop", "let", "var", "while"}


def versions(schema: KindSchema) -> dict[str, Any]:
    return definition(schema)["spec"]["versions"][0]


def walk(schema: dict[str, Any], path: str, correlated: bool = True) -> Iterator[tuple[str, dict[str, Any], bool]]:
    yield path, schema, correlated
    for name, inner in schema.get("properties", {}).items():
        yield from walk(inner, f"{path}.{name}", correlated)
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]", False)
    if isinstance(schema.get("additionalProperties"), dict):
        yield from walk(schema["additionalProperties"], f"{path}.*", False)


KINDS = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=lambda schema: schema.name)


@KINDS
def test_schema_is_structural(schema: KindSchema) -> None:
    root = versions(schema)["schema"]["openAPIV3Schema"]
    for path, part, _correlated in walk(root, "$"):
        assert not FORBIDDEN & part.keys(), f"{path}: {FORBIDDEN & part.keys()}"
        free = part.get("x-kubernetes-preserve-unknown-fields") or part.get("x-kubernetes-int-or-string")
        assert part.get("type") in TYPES or (free and "type" not in part), f"{path}: no type"
        assert not ("properties" in part and "additionalProperties" in part), path
        assert part.get("type") != "array" or "items" in part, f"{path}: an array without items"
        assert set(part.get("required", ())) <= part.get("properties", {}).keys(), path
        assert part.get("x-kubernetes-preserve-unknown-fields") in (None, True), path
        if "enum" in part:
            assert part["enum"], path
            assert len(set(part["enum"])) == len(part["enum"]), path
        if "pattern" in part:
            re.compile(part["pattern"])
            assert not re.search(r"\(\?[=!<]|\\[1-9]", part["pattern"]), f"{path}: RE2 has no look-around"
    assert set(root["properties"]["metadata"]) <= {"type"}


@KINDS
def test_cel_rules_name_real_properties_and_stay_in_budget(schema: KindSchema) -> None:
    root = versions(schema)["schema"]["openAPIV3Schema"]
    for path, part, correlated in walk(root, "$"):
        for rule in part.get("x-kubernetes-validations", ()):
            text = rule["rule"]
            assert text.count("(") == text.count(")"), text
            assert text.count("'") % 2 == 0, text
            assert rule["message"] and "\n" not in rule["message"], text
            assert len(rule["message"]) <= 2048
            assert correlated or "oldSelf" not in text, f"{path}: no old value can be found inside a list"
            used = re.findall(r"(?:self|oldSelf)\.(\w+)", text)
            assert used, text
            for name in used:
                plain = name.strip("_") if name.startswith("__") else name
                assert plain in part["properties"], f"{path}: {name} is no property"
                assert name not in CEL_WORDS, f"{path}: {name} must be escaped"
                target = part["properties"][plain]
                assert "type" in target, f"{path}.{name}: CEL cannot read what has no type"
                assert_bounded(target, f"{path}.{plain}", depth=2)


def assert_bounded(schema: dict[str, Any], path: str, depth: int) -> None:
    """What a rule compares needs limits, or the server estimates its cost as too high."""
    if schema.get("type") == "string":
        assert "maxLength" in schema or "enum" in schema, path
    elif schema.get("type") == "array":
        assert "maxItems" in schema, path
    elif "additionalProperties" in schema:
        assert "maxProperties" in schema, path
    if depth and schema.get("type") == "array":
        assert_bounded(schema["items"], f"{path}[]", depth - 1)


@KINDS
def test_definition_has_names_columns_and_status(schema: KindSchema) -> None:
    document = definition(schema)
    assert document["metadata"]["name"] == f"{schema.plural}.mixpeek.com"
    assert document["spec"]["names"]["categories"] == ["mixpeek"]
    assert document["spec"]["names"]["shortNames"]
    assert document["spec"]["scope"] == "Namespaced"
    assert versions(schema)["subresources"] == {"status": {}}
    columns = versions(schema)["additionalPrinterColumns"]
    assert [column["name"] for column in columns][-1] == "Age"
    assert {"Ready", "Synced"} <= {column["name"] for column in columns}
    properties = versions(schema)["schema"]["openAPIV3Schema"]["properties"]
    for column in columns:
        assert resolves(properties, column["jsonPath"]), column["jsonPath"]


def resolves(properties: dict[str, Any], path: str) -> bool:
    first, *rest = path.removeprefix(".").split("[")[0].split(".")
    if first == "metadata":
        return True
    schema = properties[first]
    for part in rest:
        schema = schema["properties"].get(part)
        if schema is None:
            return False
    return True


@KINDS
def test_every_field_is_described(schema: KindSchema) -> None:
    root = versions(schema)["schema"]["openAPIV3Schema"]
    for path, part, _correlated in walk(root["properties"]["spec"], "spec"):
        for name, inner in part.get("properties", {}).items():
            assert inner.get("description"), f"{path}.{name}"


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema as a strict API server reads it: unknown fields are errors."""
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {name: closed(inner) for name, inner in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = closed(schema["additionalProperties"])
    if "items" in schema:
        result["items"] = closed(schema["items"])
    return result


@KINDS
def test_example_resource_is_valid(schema: KindSchema) -> None:
    root = versions(schema)["schema"]["openAPIV3Schema"]
    resource = to_camel(schema, schema.example)
    spec = closed(root["properties"]["spec"])
    jsonschema.Draft4Validator.check_schema(spec)
    jsonschema.validate(resource, spec, jsonschema.Draft4Validator)
    without_name = {key: value for key, value in resource.items() if key != "name"}
    jsonschema.validate(without_name, spec, jsonschema.Draft4Validator)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**resource, "unknownField": 1}, spec, jsonschema.Draft4Validator)


def test_stale_files_are_named_and_rewritten(tmp_path: Path) -> None:
    files = {"crds/a.yaml": "one\n", "docs/reference/a.md": "two\n"}
    assert write(tmp_path, files) == ["crds/a.yaml", "docs/reference/a.md"]
    assert stale(tmp_path, files) == []
    (tmp_path / "crds/a.yaml").write_text("changed\n")
    (tmp_path / "docs/reference/old.md").write_text("left over\n")
    assert stale(tmp_path, files) == ["crds/a.yaml", "docs/reference/old.md"]
    write(tmp_path, files)
    assert stale(tmp_path, files) == []
    assert not (tmp_path / "docs/reference/old.md").exists()


def test_generated_files_are_not_stale(capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).parents[3]
    assert main(["--check", "--root", str(root)]) == 0, capsys.readouterr().err


def test_check_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--root", str(tmp_path)]) == 1
    assert "stale: crds/buckets.yaml" in capsys.readouterr().err
    assert main(["--root", str(tmp_path)]) == 0
    assert main(["--check", "--root", str(tmp_path)]) == 0


def test_generating_loads_no_model_library() -> None:
    program = (
        "import sys; from mixpeek_operator.generate.__main__ import main; main(['--check', '--root', '/nonexistent']);"
        "sys.exit(' '.join({'torch', 'pandas', 'numpy', 'sentence_transformers'} & sys.modules.keys()) or 0)"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root / "operator", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr.splitlines()[-1]
