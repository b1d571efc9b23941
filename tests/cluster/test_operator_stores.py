"""Two operators over one cluster, and stores that go away or lose a collection."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.cluster.declared import Tenant, declare, eventually, namespace, whole_set
from tests.servers import stores
from tests.servers.kubernetes.control_plane import ControlPlane
from tests.servers.operator import OperatorProcess, operating
from tests.servers.process import Program, running

from mixpeek_operator.access.connections import TABLE as CONNECTIONS
from mixpeek_operator.adapters.mongo_metadata import MongoMetadata

GRACE_S = 120
LEASE_S = 9


@pytest.fixture
def tenant(control_plane: ControlPlane, kubernetes_namespace: Callable[[], str]) -> Tenant:
    return Tenant(control_plane, kubernetes_namespace())


@pytest.fixture
def qdrant(tmp_path: Path) -> Iterator[Program]:
    command = [sys.executable, "-m", "tests.servers.qdrant", "--data", str(tmp_path / "qdrant"), "--port"]
    with running(lambda port: [*command, str(port)], tmp_path / "qdrant.log") as server:
        yield server


@pytest.fixture
def replica(
    control_plane: ControlPlane, tenant: Tenant, qdrant: Program, tmp_path: Path
) -> Iterator[Callable[..., OperatorProcess]]:
    """Starts replicas that share lease, cluster and vector server."""
    with contextlib.ExitStack() as stack:

        def start(name: str, **settings: Any) -> OperatorProcess:
            given = {
                "namespace": tenant.name,
                "lease": tenant.name,
                "lease_duration_s": LEASE_S,
                "qdrant_url": f"http://127.0.0.1:{qdrant.port}",
                "drift_interval_s": 3,
                **settings,
            }
            return stack.enter_context(operating(tmp_path / name, control_plane.kubeconfig, **given))

        yield start


def test_of_two_operators_one_works_and_the_other_takes_over(
    replica: Callable[..., OperatorProcess], tenant: Tenant
) -> None:
    one = replica("one")
    eventually(one.leads, GRACE_S)
    two = replica("two")
    tenant.apply(whole_set("news"))
    eventually(lambda: tenant.all_ready(9), GRACE_S, say=tenant.everything)
    assert two.ready() and not two.leads()
    assert two.metrics().get("mixpeek_reconciles_total", 0) == 0

    # One that is frozen is taken over from, and does nothing when it wakes up.
    one.send(signal.SIGSTOP)
    eventually(two.leads, 3 * LEASE_S + 20)
    one.send(signal.SIGCONT)
    eventually(lambda: not one.leads(), 20)
    for _ in range(20):
        assert not (one.leads() and two.leads())
        time.sleep(0.1)
    tenant.apply(whole_set("shop"))
    eventually(lambda: tenant.all_ready(18), GRACE_S, say=tenant.everything)

    # What is given back is taken at once, and nobody has lost anything.
    two.stop()
    eventually(one.leads, 3 * LEASE_S)
    tenant.apply(whole_set("desk"))
    eventually(lambda: tenant.all_ready(27), GRACE_S, say=tenant.everything)
    assert not [item for item in tenant.everything() if "dataLostAt" in item["status"]]


def test_a_vector_server_away_is_told_and_its_return_noticed_within_seconds(
    replica: Callable[..., OperatorProcess], tenant: Tenant, qdrant: Program
) -> None:
    operator = replica("one")
    first, late = namespace("news"), namespace("late")
    tenant.apply([first])
    eventually(lambda: tenant.ready(first), GRACE_S, say=tenant.everything)
    qdrant.kill()
    tenant.apply([late])
    for made in (first, late):
        told = eventually(
            lambda made=made: (now := tenant.condition(made)).get("reason") == "BackendUnavailable" and now,
            GRACE_S,
            say=tenant.everything,
        )
        assert told["status"] != "True" and str(qdrant.port) in told["message"]
    assert operator.ready()
    qdrant.start()
    eventually(lambda: tenant.ready(first, late), GRACE_S, say=tenant.everything)
    assert "dataLostAt" not in (tenant.get(first) or {})["status"]


@pytest.mark.parametrize(
    ("server", "setting", "url"),
    [
        (stores.ferretdb, "mongo_uri", "mongodb://127.0.0.1:{port}/mixpeek"),
        (stores.redis, "redis_url", "redis://127.0.0.1:{port}/0"),
        (stores.s3proxy, "blobs_url", "s3://test/mixpeek"),
    ],
    ids=["mongodb", "redis", "s3"],
)
def test_a_store_away_is_told_and_its_return_noticed_within_seconds(
    replica: Callable[..., OperatorProcess], tenant: Tenant, tmp_path: Path, server: Any, setting: str, url: str
) -> None:
    with stores.s3_credentials(), server(tmp_path / "server") as store:
        given = {setting: url.format(port=store.port)}
        if setting == "blobs_url":
            given["blobs_endpoint_url"] = f"http://127.0.0.1:{store.port}"
        operator = replica("one", **given)
        pid = operator.pid
        tenant.apply(whole_set("news"))
        eventually(lambda: tenant.all_ready(9), GRACE_S, say=tenant.everything)
        before = {item["metadata"]["name"]: item["metadata"]["uid"] for item in tenant.everything()}
        store.kill()

        def told() -> list[Any]:
            conditions = [tenant.condition(item) for item in tenant.everything()]
            return [item for item in conditions if item.get("reason") == "BackendUnavailable"]

        found = eventually(told, GRACE_S, say=tenant.everything)
        assert all(item["status"] != "True" and str(store.port) in item["message"] for item in found), found
        assert operator.ready() and operator.pid == pid
        store.start()
        eventually(lambda: tenant.all_ready(9), GRACE_S, say=tenant.everything)
        assert before == {item["metadata"]["name"]: item["metadata"]["uid"] for item in tenant.everything()}
        assert not [item for item in tenant.everything() if "dataLostAt" in item["status"]]


def test_a_connection_that_the_api_wrote_makes_a_retriever_ready_and_waiting_for_it_writes_nothing(
    replica: Callable[..., OperatorProcess], tenant: Tenant, tmp_path: Path
) -> None:
    stage = {"stageName": "rows", "stageId": "sql_lookup", "parameters": {"connection_id": "crm", "query": "SELECT 1"}}
    lookup = declare("Retriever", "lookup", {"stages": [stage]}, "news")
    with stores.ferretdb(tmp_path / "server") as store:
        uri = f"mongodb://127.0.0.1:{store.port}/mixpeek"
        operator = replica("one", mongo_uri=uri, drift_interval_s=300)
        tenant.apply([namespace("news"), lookup])
        told = eventually(
            lambda: (now := tenant.condition(lookup)).get("reason") == "ConnectionMissing" and now,
            GRACE_S,
            say=tenant.everything,
        )
        assert "there is no connection 'crm', which stage 'rows' names" in told["message"]

        def visits() -> float:
            found = operator.labelled("mixpeek_reconciles_total")
            return sum(count for labels, count in found if labels["kind"] == "Retriever")

        before, seen = tenant.get(lookup), visits()
        eventually(lambda: visits() > seen + 1, GRACE_S)
        assert tenant.get(lookup) == before

        async def connect() -> None:
            metadata = MongoMetadata(uri)
            await metadata.put(CONNECTIONS, tenant.name, "conn_1", {"name": "crm"})
            await metadata.close()

        asyncio.run(connect())
        eventually(lambda: tenant.ready(lookup), GRACE_S, say=tenant.everything)


@pytest.mark.parametrize("policy", ["Correct", "Report"])
def test_a_collection_deleted_behind_our_back_is_told_as_loss_and_made_again_only_where_the_policy_says_so(
    replica: Callable[..., OperatorProcess], tenant: Tenant, qdrant: Program, policy: str
) -> None:
    replica("one")
    made = namespace("news", driftPolicy=policy)
    tenant.apply([made])
    eventually(lambda: tenant.ready(made), GRACE_S, say=tenant.everything)
    url = f"http://127.0.0.1:{qdrant.port}"
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        (name,) = [one["name"] for one in client.get("/collections").json()["result"]["collections"]]
        client.delete(f"/collections/{name}").raise_for_status()
        if policy == "Correct":
            eventually(lambda: "dataLostAt" in (tenant.get(made) or {})["status"], GRACE_S, say=tenant.everything)
            eventually(lambda: tenant.ready(made), GRACE_S, say=tenant.everything)
            told = eventually(lambda: tenant.events("DriftFound"), 60)
            assert "is lost" in told[0]["message"]
        else:
            told = eventually(
                lambda: (now := tenant.condition(made, "Synced")).get("reason") == "Drifted" and now,
                GRACE_S,
                say=tenant.everything,
            )
            assert "create vector collection" in told["message"]
            assert client.get("/collections").json()["result"]["collections"] == []
