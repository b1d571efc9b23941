"""A bucket needs nothing made for it; deleting it deletes its objects and their files. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixpeek_operator.core.lifecycle import Deletion, Step, Subject


@dataclass(frozen=True, slots=True)
class Want:
    """Where the bucket's files are."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Have:
    """What the bucket holds."""

    namespace_id: str
    bucket_id: str
    records: Mapping[str, int]
    """Table → records of the bucket; all tables for a deletion, else the objects only."""


@dataclass(frozen=True, slots=True)
class DeleteFiles(Deletion):
    """Delete the files of the bucket's objects."""

    prefix: str

    def what(self) -> str:
        return f"files under {self.prefix}"


@dataclass(frozen=True, slots=True)
class DeleteRecords(Deletion):
    """Delete the bucket's objects, uploads and batches."""

    namespace_id: str
    bucket_id: str
    tables: tuple[str, ...]

    def what(self) -> str:
        return f"records of {self.bucket_id} ({', '.join(self.tables)})"


def want(subject: Subject) -> Want:
    """Return the bucket's place in the object store."""
    return Want(f"{subject.namespace_id}/{subject.id}/")


def plan(want: Want | None, have: Have) -> Sequence[Step]:
    """Return nothing, or for a deletion files first: the records tell that there may be files."""
    tables = tuple(sorted(table for table, count in have.records.items() if count))
    if want is not None or not tables:
        return []
    return [
        DeleteFiles(f"{have.namespace_id}/{have.bucket_id}/"),
        DeleteRecords(have.namespace_id, have.bucket_id, tables),
    ]
