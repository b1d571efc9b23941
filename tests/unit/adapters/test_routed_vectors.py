"""Namespaces with a vector server of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from tests.servers.qdrant.local import LocalQdrant

from mixpeek_operator.adapters._qdrant_calls import Server
from mixpeek_operator.adapters.qdrant_server import QdrantServerVectors
from mixpeek_operator.adapters.routed_vectors import Place, RoutedVectors
from mixpeek_operator.core.errors import NotFoundError, SpecError, UnavailableError
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.lifecycle import Facilities, Refs, Subject
from mixpeek_operator.core.resource import ID_ANNOTATION, Metadata, Resource
from mixpeek_operator.kinds import kinds
from mixpeek_operator.kinds.namespace.placement import VectorPlacement
from mixpeek_operator.kinds.namespace.plan import Have, Want
from mixpeek_operator.kinds.namespace.status import status
from mixpeek_operator.ports.resources import Change
from mixpeek_operator.ports.vectors import Point

ID = "00000000-0000-0000-0000-000000000001"


class Values:
    """Secrets that a test changes."""

    def __init__(self, **values: str) -> None:
        self.values = values

    async def value(self, organization: str, name: str) -> str:
        try:
            return self.values[f"{organization}_{name}"]
        except KeyError:
            raise NotFoundError(f"there is no secret {name!r}") from None

    async def names(self, organization: str) -> list[str]:
        return sorted(self.values)


def index(infrastructure: dict[str, str] | None) -> ResourceIndex:
    made = ResourceIndex({name: kind.schema for name, kind in kinds().items()})
    metadata = Metadata(name="a", organization="int", uid="u", resource_version=1, annotations={ID_ANNOTATION: "ns_a"})
    spec = {"name": "a"} | ({"infrastructure": infrastructure} if infrastructure else {})
    made.apply(Change("ADDED", Resource("Namespace", metadata, spec)))
    return made


async def test_a_placement_is_url_and_key() -> None:
    secrets = Values(int_QDRANT_KEY="v-1")
    own = {"qdrant_url": "https://q.example:6333", "qdrant_api_key": "${{ secrets.QDRANT_KEY }}"}
    place = VectorPlacement(index(own), secrets)
    assert await place("ns_a") == ("https://q.example:6333", "v-1")
    secrets.values["int_QDRANT_KEY"] = "v-2"
    assert await place("ns_a") == ("https://q.example:6333", "v-2")
    assert await place("ns_other") is None
    assert await VectorPlacement(index(None), secrets)("ns_a") is None
    assert await VectorPlacement(index({"qdrant_url": "http://q"}), secrets)("ns_a") == ("http://q", None)
    with pytest.raises(UnavailableError):
        await VectorPlacement(index(own), Values())("ns_a")
    with pytest.raises(SpecError, match="placeholder") as caught:
        await VectorPlacement(index({**own, "qdrant_api_key": "sk-plain"}), secrets)("ns_a")
    assert "sk-plain" not in str(caught.value)


@pytest.fixture
async def servers() -> AsyncIterator[dict[str, QdrantServerVectors]]:
    made = {name: QdrantServerVectors(Server(LocalQdrant(), name)) for name in ("common", "own")}
    yield made
    for store in made.values():
        await store.close()


async def test_each_collection_is_on_its_own_server(servers: dict[str, QdrantServerVectors]) -> None:
    async def locate(collection: str) -> Place | None:
        return ("own", None) if collection == "ns_own" else None

    routed = RoutedVectors(servers["common"], lambda url, key: servers[url])
    routed.follow(locate)
    for name in ("ns_own", "ns_common"):
        await routed.create_collection(name, {}, labels={"of": name})
        await routed.upsert(name, [Point(ID, {}, {"of": name})])
        assert (await routed.get(name, [ID]))[0].payload == {"of": name}
        state = await routed.describe(name)
        assert state is not None
        assert state.labels == {"of": name}
    assert await servers["own"].list_collections() == ["ns_own"]
    assert await servers["common"].list_collections() == await routed.list_collections() == ["ns_common"]
    await routed.delete_collection("ns_own")
    assert await servers["own"].list_collections() == []


@pytest.mark.parametrize(
    ("facilities", "infrastructure", "says"),
    [
        (Facilities(), {"qdrant_url": "http://q"}, "MIXPEEK_QDRANT_URL"),
        (Facilities(own_vector_server=True), {"qdrant_url": "http://q"}, "does not exist"),
        (Facilities(own_vector_server=True), {"qdrant_collection": "ns_b"}, "qdrant_collection"),
    ],
)
def test_a_server_of_its_own_needs_a_server_as_the_common_store(
    facilities: Facilities, infrastructure: dict[str, str], says: str
) -> None:
    namespace = index(infrastructure).by_id("ns_a")
    assert namespace is not None
    subject = Subject(namespace, Refs(), cast(Any, None), "ns_a", facilities)
    report = status(subject, Want("ns_a", {}, {}, frozenset(), {}), Have("ns_a", None))
    assert says in report.findings[0].message
