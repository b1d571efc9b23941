"""What a kind gives to the engine: its pure plan and status, and the client that reads and acts for it.

The schema half is `KindSchema`; this is the reconciling half. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from mixpeek_operator.core import ids
from mixpeek_operator.core.catalog import Catalog
from mixpeek_operator.core.conditions import Finding
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.resource import Resource
from mixpeek_operator.ports.blobs import BlobStore
from mixpeek_operator.ports.cache import Cache
from mixpeek_operator.ports.machines import Machines
from mixpeek_operator.ports.metadata import MetadataStore
from mixpeek_operator.ports.names import Names
from mixpeek_operator.ports.vectors import VectorStore

MANAGEMENT_POLICIES = ("Full", "Observe", "NoDelete")
DRIFT_POLICIES = ("Correct", "Report", "Ignore")
DELETION_POLICIES = ("Delete", "Retain")


@dataclass(frozen=True, slots=True)
class Backends:
    """The stores that hold what resources stand for."""

    vectors: VectorStore
    metadata: MetadataStore
    cache: Cache
    blobs: BlobStore
    machines: Machines | None = None
    """None where a namespace cannot have machines of its own."""
    secrets: Names | None = None
    """Secrets of an organization by name; None where nobody can know them."""
    connections: Names | None = None
    """Its connections to databases, by name and id; None where nobody can know them."""


@dataclass(frozen=True, slots=True)
class Facilities:
    """What the place we run in can provide."""

    dedicated_compute: bool = False
    """Whether a namespace can get machines of its own; needs Kubernetes."""
    own_vector_server: bool = False
    """Whether a namespace can have its vectors on a server of its own; needs a vector server as the common store."""
    secret_object: str | None = None
    """Name of the Kubernetes Secret that holds an organization's secrets; None where the API alone writes them."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A reference that is not there or not ready: a value, nobody's fault."""

    kind: str
    name: str
    why: str
    """Completes `<kind> "<name>" …`: `does not exist`, `is not ready: …`."""

    def __str__(self) -> str:
        return f'{self.kind} "{self.name}" {self.why}'


@dataclass(frozen=True, slots=True)
class Refs:
    """What a spec refers to: found by (kind, the value written there), the rest waited for."""

    found: Mapping[tuple[str, str], Resource] = field(default_factory=dict)
    waiting: tuple[Waiting, ...] = ()

    def get(self, kind: str, value: str) -> Resource | None:
        """The referred resource, None while it is waited for."""
        return self.found.get((kind, value))

    def of_kind(self, kind: str) -> list[Resource]:
        """Every referred resource of that kind, in name order."""
        unique = {item.key: item for (found, _), item in self.found.items() if found == kind}
        return [unique[key] for key in sorted(unique)]


@dataclass(frozen=True, slots=True)
class Subject:
    """A resource with all that its kind may know to decide: values only."""

    resource: Resource
    refs: Refs
    catalog: Catalog
    namespace_id: str
    """Id of the Mixpeek namespace; "" while that is unknown."""
    facilities: Facilities = field(default_factory=Facilities)
    referrers: tuple[Resource, ...] = ()
    """Resources that refer to it, of the kinds that its own kind `gathers`, in key order."""

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.resource.spec

    @property
    def id(self) -> str:
        return self.resource.id


class Step:
    """One idempotent act. Subclasses are frozen dataclasses named in the imperative."""

    __slots__ = ()

    verb: ClassVar[str] = "change"
    past: ClassVar[str] = "Changed"
    destroys: ClassVar[bool] = False
    """Whether data or an index is lost by it; `managementPolicy: NoDelete` never runs such a step."""
    restores: ClassVar[bool] = False
    """Whether it makes the thing that holds data; needed a second time it means that data was lost."""

    def what(self) -> str:
        """The object of the verb, with its name."""
        raise NotImplementedError

    def todo(self) -> str:
        """`create vector collection ns_x`."""
        return f"{self.verb} {self.what()}"

    def done(self) -> str:
        """`Created vector collection ns_x`."""
        return f"{self.past} {self.what()}"


class Deletion(Step):
    """A step that deletes something."""

    __slots__ = ()

    verb: ClassVar[str] = "delete"
    past: ClassVar[str] = "Deleted"
    destroys: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Report:
    """What a kind says of itself: conditions of its own, and facts for `status`."""

    findings: tuple[Finding, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    look_again_s: float | None = None
    """Seconds until something that exists but is not ready should be looked at again."""


class Client(Protocol):
    """The hands of a kind: reads and idempotent acts through the ports."""

    async def observe(self, subject: Subject) -> Any:
        """What is really there; reads only."""
        ...

    async def act(self, subject: Subject, step: Any) -> None:
        """Carry out one step; the same again is harmless."""
        ...

    async def forget(self, subject: Subject) -> None:
        """Drop what is only cached and cannot be observed, before a deleted resource is let go."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource kind, whole. Lives as `KIND` in `kinds/<kind>/__init__.py`."""

    schema: KindSchema
    want: Callable[[Subject], Any]
    """Pure: what should be there. Raises SpecError when the declaration cannot be meant."""
    plan: Callable[[Any, Any], Sequence[Step]]
    """Pure: the steps that turn what is there into what is wanted; want None means that nothing should remain."""
    status: Callable[[Subject, Any, Any], Report]
    """Pure: (subject, want, have) → report. `want` is None during a deletion."""
    client: Callable[[Backends], Client]
    gathers: tuple[str, ...] = ()
    """Kinds of referrers that the plan depends on: a change of one is a reason to visit what it refers to."""

    @property
    def name(self) -> str:
        return self.schema.name


def mint_id(
    schema: KindSchema, organization: str, namespace: str | None, name: str, taken: Callable[[str], bool]
) -> str:
    """Return the id of a resource, derived from its identity; salted while another resource holds it."""
    parts = (organization, schema.name, namespace or "", name)
    minted = ids.derived(schema.id_prefix, *parts)
    salt = 1
    while taken(minted):
        salt += 1
        minted = ids.derived(schema.id_prefix, *parts, str(salt))
    return minted
