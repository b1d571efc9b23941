"""What a field of a spec says about itself in its type: that it refers to a resource, or cannot change.

    namespace: Annotated[str, Ref("Namespace"), Immutable()]
    bucket_ids: list[Annotated[str, Ref("Bucket")]]

These markers are the only declaration; reference checks, topological order, id and name translation, CEL
transition rules and "must be replaced" in a plan all derive from them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ref:
    """The string names a resource of `kind` in the same Mixpeek namespace (by name or id).

    `ordered=False`: the target may be created later. It is checked and translated like any other, but makes no
    edge in the graph (a collection names the clusters that run over it, and they name the collection).
    """

    kind: str
    ordered: bool = True


@dataclass(frozen=True, slots=True)
class Immutable:
    """The field cannot change after creation; `why` completes "must be replaced because …".

    `unless` names a required field beside it that must change as well for this one to change.
    """

    why: str = "it identifies the resource"
    unless: str | None = None
