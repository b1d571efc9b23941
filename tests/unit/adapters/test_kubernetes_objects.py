from __future__ import annotations

from typing import Any

import pytest

from mixpeek_operator.adapters.kubernetes_objects import Objects
from mixpeek_operator.kinds import kinds

OBJECTS = Objects({name: kind.schema for name, kind in kinds().items()})


def raw(**metadata: Any) -> dict[str, Any]:
    return {
        "kind": "Bucket",
        "metadata": {
            "name": "shop.one",
            "namespace": "org",
            "uid": "u",
            "generation": 1,
            "resourceVersion": "5",
            **metadata,
        },
        "spec": {"namespace": "shop", "bucketSchema": {"properties": {"title": {"type": "text"}}}},
    }


@pytest.mark.parametrize(
    ("metadata", "kept"), [({}, True), ({"generation": 2}, False), ({"uid": "of another that had its name"}, False)]
)
def test_a_spec_is_read_once_per_generation(metadata: dict[str, Any], kept: bool) -> None:
    known = OBJECTS.decode(raw())
    found = OBJECTS.decode(raw(resourceVersion="6", labels={"a": "b"}, **metadata), known)
    assert (found.spec is known.spec) == kept
    assert found.spec == known.spec
    assert (found.metadata.resource_version, found.metadata.labels) == (6, {"a": "b"})
