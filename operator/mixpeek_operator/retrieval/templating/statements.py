"""From blocks of Jinja's syntax tree (if, for, set) to closures that write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateSyntaxError

from mixpeek_operator.retrieval.templating.errors import TemplateError
from mixpeek_operator.retrieval.templating.expressions import GRAMMAR, NAMESPACES, Evaluate, Expressions, Frame
from mixpeek_operator.retrieval.templating.functions import FILTERS

Render = Callable[[Frame], None]


def parse_template(source: str) -> nodes.Template:
    """Parse a template with blocks. Raises TemplateError with Jinja's reason and line."""
    try:
        return GRAMMAR.parse(source)
    except TemplateSyntaxError as error:
        raise TemplateError(f"line {error.lineno}: {error.message}") from None
    except RecursionError:
        raise TemplateError("a template is nested too deeply") from None


class Compiler(Expressions):
    """Turns a whole template into one closure."""

    def body(self, children: list[nodes.Node]) -> Render:
        """Return the closure that writes a block's content."""
        steps = [self._statement(child) for child in children]
        return _sequence(steps)

    def _statement(self, node: nodes.Node) -> Render:
        if isinstance(node, nodes.Output):
            return self._output(node)
        if isinstance(node, nodes.If):
            return self._if(node)
        if isinstance(node, nodes.For):
            return self._for(node)
        if isinstance(node, nodes.Assign):
            return self._assign(node)
        raise TemplateError(f"the block {type(node).__name__.lower()!r} is not available; use if, for, set or raw")

    def _output(self, node: nodes.Output) -> Render:
        steps: list[Render] = []
        for child in node.nodes:
            if isinstance(child, nodes.TemplateData):
                steps.append(_static(child.data))
            else:
                steps.append(_dynamic(self.expression(child)))
        return _sequence(steps)

    def _if(self, node: nodes.If) -> Render:
        branches = [(self.expression(node.test), self._scoped(node.body))]
        branches += [(self.expression(branch.test), self._scoped(branch.body)) for branch in node.elif_]
        otherwise = self._scoped(node.else_)

        def run(frame: Frame) -> None:
            for test, body in branches:
                if test(frame):
                    body(frame)
                    return
            otherwise(frame)

        return run

    def _scoped(self, children: list[nodes.Node]) -> Render:
        # `set` inside `if` is seen after it, as in Jinja, so its names join the enclosing scope.
        return self.body(children)

    def _for(self, node: nodes.For) -> Render:
        if node.recursive:
            raise TemplateError("recursive loops are not available in templates")
        iterable = self.expression(node.iter)
        names = _targets(node.target)
        self.locals.append({*names, "loop"})
        test = self.expression(node.test) if node.test is not None else None
        body = self.body(node.body)
        self.locals.pop()
        otherwise = self.body(node.else_)

        def run(frame: Frame) -> None:
            items = FILTERS["list"](frame.budget, iterable(frame))
            outer = frame.names
            if test is not None:
                kept = []
                for item in items:
                    frame.names = {**outer, **_bind(names, item)}
                    frame.budget.spend(1)
                    if test(frame):
                        kept.append(item)
                items = kept
            length = len(items)
            for index, item in enumerate(items):
                frame.budget.spend(1)
                frame.names = {**outer, **_bind(names, item), "loop": _loop(index, length)}
                body(frame)
            frame.names = outer
            if not length:
                otherwise(frame)

        return run

    def _assign(self, node: nodes.Assign) -> Render:
        if not isinstance(node.target, nodes.Name):
            raise TemplateError("set takes one name: {% set name = value %}")
        name = node.target.name
        if name in NAMESPACES:
            raise TemplateError(f"set cannot replace {name}")
        value = self.expression(node.node)
        self.locals[-1].add(name)

        def run(frame: Frame) -> None:
            frame.names[name] = value(frame)

        return run


def _sequence(steps: list[Render]) -> Render:
    if len(steps) == 1:
        return steps[0]

    def run(frame: Frame) -> None:
        for step in steps:
            step(frame)

    return run


def _static(data: str) -> Render:
    def run(frame: Frame) -> None:
        frame.writer.static(data)

    return run


def _dynamic(expression: Evaluate) -> Render:
    def run(frame: Frame) -> None:
        frame.writer.value(expression(frame))

    return run


def _targets(target: nodes.Node) -> list[str]:
    if isinstance(target, nodes.Name):
        names = [target.name]
    elif isinstance(target, nodes.Tuple) and all(isinstance(item, nodes.Name) for item in target.items):
        names = [item.name for item in target.items if isinstance(item, nodes.Name)]
    else:
        raise TemplateError("a loop takes one name or several: {% for key, value in … %}")
    for name in names:
        if name in NAMESPACES:
            raise TemplateError(f"a loop cannot replace {name}")
    return names


def _bind(names: list[str], item: Any) -> dict[str, Any]:
    if len(names) == 1:
        return {names[0]: item}
    if not isinstance(item, list | tuple) or len(item) != len(names):
        raise TemplateError(f"a loop over {len(names)} names needs lists of {len(names)} elements")
    return dict(zip(names, item, strict=True))


def _loop(index: int, length: int) -> dict[str, Any]:
    return {
        "index": index + 1,
        "index0": index,
        "first": index == 0,
        "last": index == length - 1,
        "length": length,
        "revindex": length - index,
        "revindex0": length - index - 1,
    }
