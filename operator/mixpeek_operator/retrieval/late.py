"""Parameters whose value is known only when the retriever runs: `Late[int]` is an int or a template that makes one.

A stage's parameters are validated once, when the retriever compiles. What is constant is never looked at again; what
is a template is rendered and validated, alone, for each execution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Generic, TypeVar, get_args

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, SchemaValidator, core_schema

from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.filter_predicate import selector
from mixpeek_operator.core.filters import And, Compare, Filter, Not, Operator, Or, fields, parse
from mixpeek_operator.retrieval.templating.errors import TemplateError
from mixpeek_operator.retrieval.templating.template import Template, compile_text, is_template
from mixpeek_operator.retrieval.templating.values import MISSING, plain

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Names = Mapping[str, Any]
"""What templates see: INPUT, DOC, CONTEXT and STAGE."""


class Deferred(Generic[T_co]):
    """A parameter with templates in it, and the validator of what they make."""

    __slots__ = ("_render", "_validator", "namespaces", "paths")

    def __init__(self, value: Any, validator: SchemaValidator | None, *, braces: bool = False) -> None:
        templates: list[Template] = []
        self._render = compile_tree(value, templates, braces=braces)
        self._validator = validator
        self.namespaces: frozenset[str] = frozenset().union(*(item.namespaces for item in templates))
        self.paths: frozenset[tuple[str, ...]] = frozenset().union(*(item.paths for item in templates))

    def value(self, names: Names, where: str = "parameter") -> T_co:
        """Render and validate. Raises SpecError naming the parameter."""
        assert self._render is not None
        rendered = self._render(names)
        if self._validator is None:
            return rendered  # type: ignore[no-any-return]
        try:
            return self._validator.validate_python(rendered)  # type: ignore[no-any-return]
        except ValidationError as error:
            reasons = "; ".join(item["msg"] for item in error.errors(include_url=False, include_input=False))
            raise SpecError(
                f"{where}: the template makes {rendered!r:.80}: {reasons}", code="parameter_invalid"
            ) from None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        inner = handler.generate_schema(get_args(source)[0])
        validator: list[SchemaValidator] = []

        def check(value: Any, info: core_schema.ValidationInfo) -> Deferred[Any]:
            if isinstance(value, Deferred):
                return value
            braces = bool(info.context and info.context.get("braces"))
            if not holds_template(value, braces=braces):
                raise ValueError("not a template")
            if not validator:
                validator.append(SchemaValidator(inner))
            try:
                return Deferred(value, validator[0], braces=braces)
            except TemplateError as error:
                raise ValueError(f"{TEMPLATE_MARK}{error.message}") from None

        return core_schema.with_info_plain_validator_function(check, metadata={"deferred": True})

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "description": "A template, e.g. {{INPUT.name}}", "pattern": r"\{"}


TEMPLATE_MARK = "template: "
Late = Annotated[Deferred[T] | T, Field(union_mode="left_to_right")]


def known(parameter: Deferred[T] | T, names: Names, where: str = "parameter") -> T:
    """Return the parameter's value for this execution; constants cost one type check."""
    return parameter.value(names, where) if isinstance(parameter, Deferred) else parameter


def holds_template(value: Any, *, braces: bool = False) -> bool:
    """Whether a template is anywhere in a JSON value."""
    if isinstance(value, str):
        return is_template(value, braces=braces)
    if isinstance(value, Mapping):
        return any(holds_template(item, braces=braces) for item in value.values())
    return isinstance(value, list) and any(holds_template(item, braces=braces) for item in value)


def compile_tree(value: Any, templates: list[Template], *, braces: bool = False) -> Callable[[Names], Any] | None:
    """Compile every template inside a JSON value, appending to `templates`; None when there is none.

    What is constant is shared between executions, never copied.
    """
    if isinstance(value, str):
        if not is_template(value, braces=braces):
            return None
        template = compile_text(value, braces=braces)
        templates.append(template)
        return template.render
    if isinstance(value, Mapping):
        late = {key: compile_tree(item, templates, braces=braces) for key, item in value.items()}
        fields = {key: item for key, item in late.items() if item is not None}
        if not fields:
            return None
        return lambda names: {**value, **{key: item(names) for key, item in fields.items()}}
    if isinstance(value, list):
        items = [compile_tree(item, templates, braces=braces) for item in value]
        if not any(items):
            return None
        return lambda names: [old if item is None else item(names) for old, item in zip(value, items, strict=True)]
    return None


class LateFilter:
    """A structured filter whose fields and values may be templates.

    A condition whose value is one expression on an input that was not given is left out: an optional input filters
    only when it is there. (`price lte {{INPUT.max_price}}` without `max_price` is no condition.)
    """

    __slots__ = ("_bind", "_select", "constant", "fields", "namespaces", "paths")

    def __init__(self, body: Any) -> None:
        """Parse and compile. Raises SpecError with every mistake."""
        templates: list[Template] = []
        tree = parse(body)
        self._bind = _compile_filter(tree, templates) if tree is not None else None
        self.fields = frozenset(fields(tree))
        """The fields it looks at; one with a template in it is there as it is written."""
        self.constant = tree if self._bind is None else None
        """The filter itself when nothing in it is a template."""
        self._select = selector(tree) if self._bind is None else None
        self.namespaces: frozenset[str] = frozenset().union(*(item.namespaces for item in templates))
        self.paths: frozenset[tuple[str, ...]] = frozenset().union(*(item.paths for item in templates))

    def value(self, names: Names) -> Filter | None:
        """Return the filter of this execution. Raises SpecError when a rendered value does not fit."""
        return self.constant if self._bind is None else self._bind(names)

    def select(self, names: Names, documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the documents that satisfy the filter of this execution. Raises as `value` does."""
        return (self._select or selector(self.value(names)))(documents)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: Any) -> LateFilter:
            if isinstance(value, LateFilter):
                return value
            try:
                return cls(value)
            except SpecError as error:
                raise ValueError(error.message) from None

        return core_schema.no_info_plain_validator_function(check)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {
            "type": "object",
            "description": "{field, operator, value}, or a tree of AND, OR and NOT lists; values may be templates.",
            "additionalProperties": True,
        }


_Bind = Callable[[Names], Filter | None]


def _compile_filter(tree: Filter, templates: list[Template]) -> _Bind | None:
    if isinstance(tree, Compare):
        return _compile_condition(tree, templates)
    parts = [(part, _compile_filter(part, templates)) for part in tree.parts]
    if all(bind is None for _, bind in parts):
        return None
    join = type(tree)

    def bind(names: Names) -> Filter | None:
        bound = [part if late is None else late(names) for part, late in parts]
        kept = tuple(part for part in bound if part is not None)
        return _join(join, kept)

    return bind


def _join(join: type[And] | type[Or] | type[Not], parts: tuple[Filter, ...]) -> Filter | None:
    return join(parts) if parts else None


def _compile_condition(condition: Compare, templates: list[Template]) -> _Bind | None:
    own: list[Template] = []
    late_value = compile_tree(condition.value, own)
    value_template = own[0] if isinstance(condition.value, str) and own else None
    field = compile_text(condition.field) if is_template(condition.field) else None
    if field is not None:
        own.append(field)
    templates.extend(own)
    if not own:
        return None
    optional = (
        value_template is not None
        and value_template.whole
        and [len(path) for path in value_template.paths] == [2]
        and value_template.namespaces == {"INPUT"}
    )

    def bind(names: Names) -> Filter | None:
        value = condition.value
        if value_template is not None:
            evaluated = value_template.evaluate(names)
            if optional and (evaluated is MISSING or evaluated is None):
                return None
            value = plain(evaluated)
        elif late_value is not None:
            value = late_value(names)
        if condition.operator in (Operator.IN, Operator.NIN) and not isinstance(value, list):
            value = [] if value is None else [value]
        name = condition.field if field is None else field.render(names)
        if not isinstance(name, str) or not name:
            raise SpecError(f"the field of a filter must be text, the template makes {name!r}", code="invalid_filter")
        return Compare(name, condition.operator, value, condition.case_insensitive)

    return bind
