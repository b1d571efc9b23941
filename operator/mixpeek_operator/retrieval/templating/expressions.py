"""From expressions of Jinja's syntax tree to closures. What is not named here cannot be used in a template."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from jinja2 import Environment, nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.parser import Parser

from mixpeek_operator.retrieval.templating.comparisons import COMPARISONS, TESTS
from mixpeek_operator.retrieval.templating.errors import TemplateError
from mixpeek_operator.retrieval.templating.functions import FILTERS, FUNCTIONS, METHODS
from mixpeek_operator.retrieval.templating.values import (
    MAX_NODES,
    MAX_OUTPUT,
    MISSING,
    Budget,
    Literal,
    bounded,
    lookup,
    number,
    to_text,
)

MAX_SOURCE: Final = 65_536
"""Characters of one template."""

NAMESPACES: Final[Mapping[str, str]] = {
    "INPUT": "INPUT",
    "INPUTS": "INPUT",
    "input": "INPUT",
    "inputs": "INPUT",
    "DOC": "DOC",
    "doc": "DOC",
    "CONTEXT": "CONTEXT",
    "context": "CONTEXT",
    "STAGE": "STAGE",
    "stage": "STAGE",
}
_CONSTANTS: Final[Mapping[str, Any]] = {"null": None, "undefined": MISSING, "nil": None}

# Jinja's environment is used for its grammar alone; no template of it is ever compiled or run.
GRAMMAR = Environment(autoescape=True, keep_trailing_newline=True)


class Frame:
    """Names and budget of one rendering."""

    __slots__ = ("budget", "names", "writer")

    def __init__(self, names: dict[str, Any], writer: Any = None) -> None:
        self.names = names
        self.budget = Budget()
        self.writer = writer


Evaluate = Callable[[Frame], Any]


def parse_expression(source: str) -> nodes.Expr:
    """Parse one expression. Raises TemplateError with Jinja's reason."""
    if not source.strip():
        raise TemplateError("an expression between {{ and }} is empty")
    try:
        parser = Parser(GRAMMAR, source, state="variable")
        expression = parser.parse_expression()
        if not parser.stream.eos:
            raise TemplateError(f"unexpected {parser.stream.current.value!r} in {source.strip()[:80]!r}")
    except TemplateSyntaxError as error:
        raise TemplateError(f"{error.message} in {source.strip()[:80]!r}") from None
    except RecursionError:
        raise TemplateError("an expression is nested too deeply") from None
    return expression


class Expressions:
    """Turns nodes into closures and collects which namespaces and inputs they read."""

    def __init__(self) -> None:
        self.namespaces: set[str] = set()
        self.paths: set[tuple[str, ...]] = set()
        """As far as they are written: INPUT["a"].b, but INPUT alone where it is used whole or by a computed key."""
        self._noted: dict[int, nodes.Node] = {}
        """Nodes inside noted paths, by their id, which is theirs only while they are held."""
        self.locals: list[set[str]] = [set()]

    def expression(self, node: nodes.Node) -> Evaluate:
        """Return the closure of an expression. Raises TemplateError for what templates may not do."""
        build = getattr(self, f"_{type(node).__name__.lower()}", None)
        if build is None or not isinstance(node, nodes.Expr):
            raise TemplateError(f"{type(node).__name__.lower()} is not available in templates")
        compiled: Evaluate = build(node)
        return compiled

    def _const(self, node: nodes.Const) -> Evaluate:
        value = Literal(node.value) if isinstance(node.value, str) else node.value
        return lambda frame: value

    def _templatedata(self, node: nodes.TemplateData) -> Evaluate:
        value = Literal(node.data)
        return lambda frame: value

    def _name(self, node: nodes.Name) -> Evaluate:
        name = node.name
        if any(name in scope for scope in self.locals):
            return lambda frame: frame.names.get(name, MISSING)
        if name in _CONSTANTS:
            constant = _CONSTANTS[name]
            return lambda frame: constant
        if name not in NAMESPACES:
            raise TemplateError(f"unknown name {name!r}; templates read INPUT, DOC, CONTEXT and STAGE")
        key = NAMESPACES[name]
        self.namespaces.add(key)
        if id(node) not in self._noted:
            self.paths.add((key,))
        return lambda frame: frame.names.get(key, MISSING)

    def _getattr(self, node: nodes.Getattr) -> Evaluate:
        self._note_path(node)
        inner, key = self.expression(node.node), node.attr
        return lambda frame: lookup(inner(frame), key)

    def _getitem(self, node: nodes.Getitem) -> Evaluate:
        self._note_path(node)
        inner = self.expression(node.node)
        if isinstance(node.arg, nodes.Slice):
            return self._slice_of(inner, node.arg)
        key = self.expression(node.arg)
        return lambda frame: lookup(inner(frame), key(frame))

    def _slice_of(self, inner: Evaluate, node: nodes.Slice) -> Evaluate:
        parts = [self.expression(part) if part is not None else None for part in (node.start, node.stop, node.step)]

        def run(frame: Frame) -> Any:
            value = inner(frame)
            if not isinstance(value, str | list | tuple):
                return MISSING
            bounds = [None if part is None else int(number(part(frame), "a slice")) for part in parts]
            if bounds[2] == 0:
                raise TemplateError("the step of a slice cannot be 0")
            frame.budget.spend(1 + (len(value) >> 4))
            return value[slice(*bounds)]

        return run

    def _note_path(self, node: nodes.Expr) -> None:
        if id(node) in self._noted:
            return  # part of a longer path
        parts: list[str] = []
        passed: list[nodes.Node] = []
        current: nodes.Node = node
        while True:
            passed.append(current)
            if isinstance(current, nodes.Getattr):
                parts.append(current.attr)
            elif isinstance(current, nodes.Getitem) and isinstance(current.arg, nodes.Const):
                parts.append(str(current.arg.value))
            else:
                break
            current = current.node
        if isinstance(current, nodes.Name) and current.name in NAMESPACES:
            self.paths.add((NAMESPACES[current.name], *reversed(parts)))
            self._noted.update((id(part), part) for part in passed)

    def _condexpr(self, node: nodes.CondExpr) -> Evaluate:
        test, then = self.expression(node.test), self.expression(node.expr1)
        otherwise = self.expression(node.expr2) if node.expr2 is not None else _nothing
        return lambda frame: then(frame) if test(frame) else otherwise(frame)

    def _and(self, node: nodes.And) -> Evaluate:
        left, right = self.expression(node.left), self.expression(node.right)
        return lambda frame: left(frame) and right(frame)

    def _or(self, node: nodes.Or) -> Evaluate:
        left, right = self.expression(node.left), self.expression(node.right)
        return lambda frame: left(frame) or right(frame)

    def _not(self, node: nodes.Not) -> Evaluate:
        inner = self.expression(node.node)
        return lambda frame: not inner(frame)

    def _compare(self, node: nodes.Compare) -> Evaluate:
        first = self.expression(node.expr)
        rest = [(COMPARISONS[operand.op], self.expression(operand.expr)) for operand in node.ops]

        def run(frame: Frame) -> bool:
            left = first(frame)
            for compare, right in rest:
                value = right(frame)
                if not compare(frame.budget, left, value):
                    return False
                left = value
            return True

        return run

    def _concat(self, node: nodes.Concat) -> Evaluate:
        parts = [self.expression(part) for part in node.nodes]

        def run(frame: Frame) -> str:
            texts = [to_text(part(frame)) for part in parts]
            _fits(sum(map(len, texts)))
            return frame.budget.text("".join(texts))

        return run

    def _filter(self, node: nodes.Filter) -> Evaluate:
        if node.node is None or node.name not in FILTERS:
            raise TemplateError(f"unknown filter {node.name!r}; templates know {', '.join(sorted(FILTERS))}")
        return self._call_of(f"filter {node.name!r}", FILTERS[node.name], [node.node, *node.args], node)

    def _test(self, node: nodes.Test) -> Evaluate:
        if node.name not in TESTS:
            raise TemplateError(f"unknown test {node.name!r}; templates know {', '.join(sorted(TESTS))}")
        return self._call_of(f"test {node.name!r}", TESTS[node.name], [node.node, *node.args], node)

    def _call(self, node: nodes.Call) -> Evaluate:
        target = node.node
        if isinstance(target, nodes.Name) and target.name in FUNCTIONS:
            return self._call_of(f"function {target.name!r}", FUNCTIONS[target.name], node.args, node)
        if isinstance(target, nodes.Getattr) and target.attr in METHODS:
            return self._call_of(f"{target.attr}()", METHODS[target.attr], [target.node, *node.args], node)
        known = ", ".join(sorted(FUNCTIONS))
        raise TemplateError(f"only these functions can be called in templates: {known}")

    def _call_of(self, name: str, function: Callable[..., Any], args: list[Any], node: Any) -> Evaluate:
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            raise TemplateError(f"{name} takes no * or ** arguments")
        positional = [self.expression(arg) for arg in args]
        named = {item.key: self.expression(item.value) for item in node.kwargs}

        def run(frame: Frame) -> Any:
            values = [arg(frame) for arg in positional]
            keywords = {key: value(frame) for key, value in named.items()}
            frame.budget.spend(1)
            try:
                result = function(frame.budget, *values, **keywords)
            except TypeError as error:
                raise TemplateError(f"{name} cannot be called like this: {_reason(error)}") from None
            return frame.budget.build(result) if isinstance(result, list | dict) else result

        return run

    def _list(self, node: nodes.List) -> Evaluate:
        items = [self.expression(item) for item in node.items]
        return lambda frame: frame.budget.build([item(frame) for item in items])

    _tuple = _list

    def _dict(self, node: nodes.Dict) -> Evaluate:
        pairs = [(self.expression(pair.key), self.expression(pair.value)) for pair in node.items]
        return lambda frame: frame.budget.build({to_text(key(frame)): value(frame) for key, value in pairs})

    def _neg(self, node: nodes.Neg) -> Evaluate:
        inner = self.expression(node.node)
        return lambda frame: _arithmetic(frame, "-", 0, inner(frame))

    def _pos(self, node: nodes.Pos) -> Evaluate:
        inner = self.expression(node.node)
        return lambda frame: _arithmetic(frame, "+", 0, inner(frame))

    def _binary(self, node: nodes.BinExpr) -> Evaluate:
        left, right, symbol = self.expression(node.left), self.expression(node.right), node.operator
        return lambda frame: _arithmetic(frame, symbol, left(frame), right(frame))

    _add = _sub = _mul = _div = _floordiv = _mod = _pow = _binary


_OPERATIONS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}


def _arithmetic(frame: Frame, symbol: str, left: Any, right: Any) -> Any:
    if left is None or right is None or left is MISSING or right is MISSING:
        return MISSING
    if symbol == "+" and isinstance(left, str) and isinstance(right, str):
        _fits(len(left) + len(right))
        return frame.budget.text(str(left) + str(right))
    if symbol == "+" and (isinstance(left, str) or isinstance(right, str)):
        if isinstance(left, list | dict | tuple) or isinstance(right, list | dict | tuple):
            raise TemplateError("'+' joins texts and numbers, or lists; use | tojson first")
        return frame.budget.text(to_text(left) + to_text(right))
    if symbol == "+" and isinstance(left, list | tuple) and isinstance(right, list | tuple):
        if len(left) + len(right) > MAX_NODES:
            raise TemplateError(f"a template may build lists of {MAX_NODES} elements")
        return frame.budget.build([*left, *right])
    number(left, repr(symbol))
    number(right, repr(symbol))
    try:
        if symbol == "**":
            if abs(right) > 100 or abs(left) > 10**15:
                raise TemplateError("a power in a template is out of bounds")
            return bounded(left**right)
        return bounded(_OPERATIONS[symbol](left, right))
    except ZeroDivisionError:
        raise TemplateError("division by zero in a template") from None
    except OverflowError:
        raise TemplateError("a number in a template is out of bounds") from None


def _fits(length: int) -> None:
    if length > MAX_OUTPUT:
        raise TemplateError(f"a template may build texts of {MAX_OUTPUT} characters")


def _nothing(frame: Frame) -> Any:
    return Literal("")


def _reason(error: TypeError) -> str:
    text = str(error)
    return text.split(")", 1)[-1].strip() or text
