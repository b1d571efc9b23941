"""What an API server must refuse and no rule inside a CustomResourceDefinition can: one policy for each kind.

Three things. A reference is a name, so that it cannot lead into another tenant: a name is looked up in the resource's
own namespace only, an id is not. A field that cannot change stays so when what holds it is left out and written again.
And whose data a resource gets (the id annotation, a vector collection by name) is decided by who may `adopt` data.
References are looked at when a spec is written: what was there before the policies can still lose its finalizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from mixpeek_operator.core.fields import Immutable, Ref
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.refs import is_model, unwrap
from mixpeek_operator.core.resource import API_GROUP, ID_ANNOTATION
from mixpeek_operator.core.spec import NAME_PATTERN
from mixpeek_operator.generate.crds import VERSION

Document = dict[str, Any]
Steps = tuple[tuple[str, bool], ...]
"""From the spec down: (property in the custom resource's spelling, whether it is a list)."""

_Fixed = tuple[tuple[str, ...], str]
_ADOPTED = {"Namespace": (("infrastructure", "qdrantCollection"),)}
"""Fields that name existing data."""
_FIXED_NAMES = {"Extractor": "feature URIs hold it"}


def admission(schemas: Mapping[str, KindSchema]) -> list[Document]:
    """Return a ValidatingAdmissionPolicy and its binding for each kind."""
    prefixes = "|".join(sorted(kind.id_prefix for kind in schemas.values()))
    return [document for kind in schemas.values() for document in (_policy(kind, prefixes), _binding(kind))]


def _policy(kind: KindSchema, prefixes: str) -> Document:
    variables, references = _references(kind, prefixes)
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": f"{kind.plural}.{API_GROUP}"},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [API_GROUP],
                        "apiVersions": [VERSION],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": [kind.plural],
                    }
                ]
            },
            "variables": [
                {"name": "id", "expression": _annotation("object")},
                {"name": "oldId", "expression": f"oldObject == null ? '' : {_annotation('oldObject')}"},
                # The API server has counted the generation up by now if the spec changes.
                {
                    "name": "declares",
                    "expression": "oldObject == null || object.metadata.generation != oldObject.metadata.generation",
                },
                {
                    "name": "mayAdopt",
                    "expression": f"authorizer.group('{API_GROUP}').resource('{kind.plural}')"
                    ".namespace(request.namespace).check('adopt').allowed()",
                },
                *variables,
            ],
            "validations": [*_identity(kind), *_transitions(kind), *references],
        },
    }


def _binding(kind: KindSchema) -> Document:
    name = f"{kind.plural}.{API_GROUP}"
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }


def _annotation(of: str) -> str:
    return f"{of}.metadata.?annotations[?'{ID_ANNOTATION}'].orValue('')"


def _identity(kind: KindSchema) -> Iterator[Document]:
    yield {
        "expression": "variables.id == variables.oldId || variables.mayAdopt",
        "message": f"annotation {ID_ANNOTATION} says whose data this is: leave it as it is, or have someone set it "
        f"who has the verb 'adopt' on {kind.plural}.{API_GROUP}",
        "reason": "Forbidden",
    }
    for path in _ADOPTED.get(kind.name, ()):
        new, old = (_select(of, path) for of in ("object", "oldObject"))
        yield {
            "expression": f"!{new}.hasValue() || (oldObject != null && {new} == {old}) || variables.mayAdopt",
            "message": f"spec.{'.'.join(path)} names existing data: leave it out, or have someone set it who has the "
            f"verb 'adopt' on {kind.plural}.{API_GROUP}",
            "reason": "Forbidden",
        }


def _transitions(kind: KindSchema) -> Iterator[Document]:
    why = _FIXED_NAMES.get(kind.name)
    if why is not None:
        new, old = (f"{of}.spec.?name.orValue({of}.metadata.name)" for of in ("object", "oldObject"))
        yield {"expression": f"oldObject == null || {new} == {old}", "message": f"spec.name cannot change: {why}"}
    for path, reason in _avoidable(kind.spec):
        yield {
            "expression": f"oldObject == null || {_select('object', path)} == {_select('oldObject', path)}",
            "message": f"spec.{'.'.join(path)} cannot change, nor be left out or added: {reason}; "
            f"declare another {kind.name}",
        }


def _references(kind: KindSchema, prefixes: str) -> tuple[list[Document], list[Document]]:
    """Return a variable with the values that are no names, and the validation of it, for each place."""
    variables: list[Document] = []
    validations: list[Document] = []
    wrong = f"!v.matches('{NAME_PATTERN}') || v.matches('^({prefixes})_[0-9a-z]{{10}}$')"
    for number, (steps, target) in enumerate(dict.fromkeys(_paths(kind.spec))):
        where = "spec." + ".".join(name + ("[]" if many else "") for name, many in steps)
        scope = "Kubernetes" if target == "Namespace" else "Mixpeek"
        ask = f"write the name of a {target} in the same {scope} namespace; an id may be that of another tenant"
        variables.append({"name": f"wrong{number}", "expression": f"{_values(steps)}.filter(v, {wrong})"})
        validations.append(
            {
                "expression": f"!variables.declares || size(variables.wrong{number}) == 0",
                "messageExpression": f'"{where} \'" + variables.wrong{number}[0] + "\' is no name: {ask}"',
                "message": f"{where}: {ask}",
            }
        )
    return variables, validations


def _select(of: str, path: tuple[str, ...]) -> str:
    return f"{of}.spec." + ".".join(f"?{name}" for name in path)


def _values(steps: Steps) -> str:
    """Return the CEL expression of the list of all strings at a path, through at most one list on the way."""
    outer = [index for index, (_name, many) in enumerate(steps[:-1]) if many]
    if len(outer) > 1:
        raise TypeError(f"a reference below two lists: {steps}")
    if outer:
        head, tail = steps[: outer[0] + 1], steps[outer[0] + 1 :]
        if tail[-1][1]:
            raise TypeError(f"a list of references below a list: {steps}")
        inner = "item." + ".".join(f"?{name}" for name, _many in tail)
        chosen = f"{inner}.hasValue()"
        return f"{_select('object', _names(head))}.orValue([]).filter(item, {chosen}).map(item, {inner}.value())"
    selected = _select("object", _names(steps))
    return f"{selected}.orValue([])" if steps[-1][1] else f"({selected}.hasValue() ? [{selected}.value()] : [])"


def _names(steps: Steps) -> tuple[str, ...]:
    return tuple(name for name, _many in steps)


def _paths(
    model: type[BaseModel], above: Steps = (), parents: tuple[type[BaseModel], ...] = ()
) -> Iterator[tuple[Steps, str]]:
    """Yield every place of a spec that refers to a resource, and the kind it names."""
    for name, field in model.model_fields.items():
        yield from _below(str(field.alias or name), field.annotation, tuple(field.metadata), above, (*parents, model))


def _below(
    name: str, annotation: Any, metadata: tuple[Any, ...], above: Steps, parents: tuple[type[BaseModel], ...]
) -> Iterator[tuple[Steps, str]]:
    alternatives, marks = unwrap(annotation, metadata)
    yield from (((*above, (name, False)), mark.kind) for mark in marks if isinstance(mark, Ref))
    for option in alternatives:
        many = get_origin(option) is list
        if many:
            options, inner = unwrap(get_args(option)[0])
            yield from (((*above, (name, True)), mark.kind) for mark in inner if isinstance(mark, Ref))
        else:
            options = (option,)
        for each in options:
            if is_model(each) and each not in parents:
                yield from _paths(each, (*above, (name, many)), parents)


def _avoidable(model: type[BaseModel], above: tuple[str, ...] = (), optional: bool = False) -> Iterator[_Fixed]:
    """Yield (path, why) of what cannot change but stands in something that may be left out.

    A definition's own transition rules are not run when the old or the new object lacks the part they stand in.
    """
    for name, field in model.model_fields.items():
        alternatives, marks = unwrap(field.annotation, field.metadata)
        path = (*above, str(field.alias or name))
        why = next((mark.why for mark in marks if isinstance(mark, Immutable)), None)
        if why is not None:
            if optional:
                yield path, why
            continue
        for option in alternatives:
            if is_model(option):
                yield from _avoidable(option, path, optional or not field.is_required())
