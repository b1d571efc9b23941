"""JSON schemas that users write, and values checked against them. Nothing is fetched; patterns run on RE2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.filter_values import pattern

_MAX_DEPTH: Final = 32
_SHOWN: Final = 8


@cache
def _validator() -> Any:
    # Imported when it is first needed, not at each start of a command.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend

    def search(validator: Any, regex: str, value: Any, schema: Any) -> Iterator[ValidationError]:
        if isinstance(value, str) and not pattern(regex, False).search(value):
            yield ValidationError(f"{value!r:.100} does not match {regex!r}")

    return extend(Draft202012Validator, {"pattern": search})  # type: ignore[no-untyped-call]


class JsonSchema:
    """A schema that holds no reference to elsewhere."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        """Raises SpecError `schema_invalid` for what is no schema or is not supported."""
        from jsonschema.exceptions import SchemaError
        from referencing import Registry

        _check(body, 0)
        try:
            _validator().check_schema(body)
        except SchemaError as error:
            raise _invalid(f"{error.json_path}: {error.message:.200}") from None
        self.body = body
        self._validator = _validator()(body, registry=Registry())

    def problems(self, value: Any) -> list[str]:
        """Return what is wrong with a value, each with its place; nothing when it fits."""
        from referencing.exceptions import Unresolvable

        try:
            errors = sorted(self._validator.iter_errors(value), key=lambda error: list(map(str, error.absolute_path)))
        except (Unresolvable, RecursionError):
            raise _invalid("a $ref leads nowhere or to itself") from None
        return [f"{error.json_path}: {error.message:.200}" for error in errors[:_SHOWN]]


def _check(body: Any, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise _invalid(f"it is nested deeper than {_MAX_DEPTH}")
    if isinstance(body, Mapping):
        for key, value in body.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str) and not value.startswith("#"):
                raise _invalid(f"{key} {value!r:.80} leads out of the schema")
            if key == "patternProperties":
                raise _invalid("patternProperties is not supported")
            if key == "pattern" and isinstance(value, str):
                try:
                    pattern(value, False)
                except ValueError as error:
                    raise _invalid(f"the pattern {value!r:.80} is not valid: {error}") from None
            _check(value, depth + 1)
    elif isinstance(body, list):
        for item in body:
            _check(item, depth + 1)


def _invalid(why: str) -> SpecError:
    return SpecError(f"not a JSON schema that can be used: {why}", code="schema_invalid")
