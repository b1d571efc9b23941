"""What the operator must survive, on a control plane of its own that is stopped, killed and made to forget."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.declared import (
    Tenant,
    bucket,
    collection,
    eventually,
    namespace,
    whole_set,
)
from tests.servers.kubernetes.control_plane import ControlPlane
from tests.servers.operator import OperatorProcess, operating

GRACE_S = 90
_numbers = itertools.count()


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    private = ControlPlane(tmp_path_factory.mktemp("plane"))
    try:
        private.up()
        yield private
    finally:
        private.down()


@pytest.fixture
def tenant(plane: ControlPlane) -> Tenant:
    name = f"tenant-{next(_numbers)}"
    plane.kubectl("create", "namespace", name)
    return Tenant(plane, name)


@pytest.fixture
def operator(plane: ControlPlane, tenant: Tenant, tmp_path: Path) -> Iterator[OperatorProcess]:
    with operating(
        tmp_path,
        plane.kubeconfig,
        namespace=tenant.name,
        lease=tenant.name,
        # As in a pod: whoever is started again there knows that nobody else has its name.
        lease_identity="the-pod",
        drift_interval_s=5,
    ) as process:
        yield process


def going(item: dict[str, Any]) -> bool:
    """Whether its deletion was asked for."""
    return "deletionTimestamp" in item["metadata"]


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_it_converges_with_nothing_twice_and_nothing_orphaned(
    operator: OperatorProcess, tenant: Tenant, seed: int
) -> None:
    chance = random.Random(seed)
    names = ["news", "shop", "desk"]
    for _ in range(3):
        name = chance.choice(names)
        if chance.random() < 0.7:
            tenant.shuffled(whole_set(name), seed)
        else:
            tenant.delete(*whole_set(name))
        time.sleep(chance.random() * 1.5)
        operator.kill()
        operator.launch()
    # What is being deleted cannot be declared again before it is gone.
    eventually(lambda: not any(map(going, tenant.everything())), GRACE_S, say=tenant.everything)
    tenant.apply(item for name in names for item in whole_set(name))
    eventually(lambda: tenant.all_ready(27), GRACE_S, say=tenant.everything)
    found = tenant.everything()
    ids = {item["metadata"]["annotations"]["mixpeek.com/id"] for item in found}
    assert len(ids) == 27
    kept = {item["metadata"]["annotations"]["mixpeek.com/id"] for item in found if item["kind"] == "Namespace"}
    assert stored(operator) == kept
    tenant.delete(*(item for name in names for item in whole_set(name)))
    eventually(lambda: not tenant.everything(), GRACE_S, say=tenant.everything)
    assert stored(operator) == set()


def test_the_api_server_away_for_a_while(operator: OperatorProcess, tenant: Tenant) -> None:
    tenant.apply(whole_set("news"))
    eventually(lambda: tenant.all_ready(9), GRACE_S, say=tenant.everything)
    process = operator.pid
    away(tenant.plane, "kube-apiserver", 6)
    tenant.apply(whole_set("shop"))
    eventually(lambda: tenant.all_ready(18), 30, say=tenant.everything)
    assert operator.pid == process and operator.ready()


def test_without_the_api_server_no_replica_is_ready_and_with_it_one_that_stands_by_is(
    plane: ControlPlane, tenant: Tenant, tmp_path: Path
) -> None:
    own = {"namespace": tenant.name, "lease": tenant.name, "lease_duration_s": 6}
    with (
        operating(tmp_path / "one", plane.kubeconfig, **own) as one,
        operating(tmp_path / "two", plane.kubeconfig, **own) as two,
    ):
        processes = one.pid, two.pid
        eventually(one.leads, GRACE_S)
        assert two.ready() and not two.leads()
        plane.stop("kube-apiserver")
        try:
            eventually(lambda: not one.ready() and not two.ready(), GRACE_S)
        finally:
            plane.start("kube-apiserver")
        eventually(lambda: one.ready() and two.ready(), GRACE_S)
        assert (one.pid, two.pid) == processes


@pytest.mark.slow
def test_the_api_server_away_for_a_minute(operator: OperatorProcess, tenant: Tenant) -> None:
    tenant.apply(whole_set("news"))
    away(tenant.plane, "kube-apiserver", 60)
    eventually(lambda: tenant.all_ready(9), 30, say=tenant.everything)


def test_etcd_restarted_in_the_middle_of_work(operator: OperatorProcess, tenant: Tenant) -> None:
    tenant.apply(whole_set("news"))
    tenant.plane.kill("etcd")
    time.sleep(2)
    tenant.plane.start("etcd")
    eventually(tenant.plane.ready, GRACE_S)
    eventually(lambda: tenant.all_ready(9), GRACE_S, say=tenant.everything)


def test_what_a_forgotten_watch_missed_is_found_out(operator: OperatorProcess, tenant: Tenant) -> None:
    made = whole_set("news")
    tenant.apply(made)
    eventually(lambda: tenant.all_ready(9), GRACE_S, say=tenant.everything)
    operator.send(signal.SIGSTOP)
    # Somebody takes the finalizer away, so that the bucket goes unseen.
    gone = made[1]
    tenant.delete(gone)
    tenant.plane.kubectl(
        *("-n", tenant.name, "patch", "buckets.mixpeek.com", gone["metadata"]["name"], "--type=merge"),
        *("-p", '{"metadata": {"finalizers": null}}'),
    )
    tenant.apply([bucket("news", "unseen"), collection("news", "unseen_texts", "unseen")])
    compact(tenant.plane)
    tenant.plane.restart("kube-apiserver")
    operator.send(signal.SIGCONT)
    eventually(lambda: tenant.ready(collection("news", "unseen_texts", "unseen")), GRACE_S, say=tenant.everything)
    waits = eventually(
        lambda: (now := tenant.condition(made[3])).get("reason") == "WaitingForBucket" and now,
        GRACE_S,
        say=tenant.everything,
    )
    assert "articles" in waits["message"]


def test_another_who_writes_all_the_time_does_not_keep_it_from_its_work(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    made = whole_set("news")
    with busy(tenant, [item["metadata"]["name"] for item in made[:5]]):
        tenant.apply(made)
        eventually(lambda: tenant.all_ready(9), GRACE_S, say=tenant.everything)


def test_it_ends_in_good_order_in_the_middle_of_work(operator: OperatorProcess, tenant: Tenant) -> None:
    names = [f"n{number}" for number in range(6)]
    tenant.apply(item for name in names for item in whole_set(name))
    assert operator.stop() == 0
    for item in tenant.everything():
        found = {one["type"]: one for one in (item.get("status") or {}).get("conditions") or []}
        assert not found or {"Ready", "Synced"} <= set(found), "a status is written whole or not at all"
    operator.start()
    eventually(lambda: tenant.all_ready(54), GRACE_S, say=tenant.everything)


def test_a_poisoned_tenant_delays_no_other(plane: ControlPlane, tmp_path: Path) -> None:
    bad, good = Tenant(plane, "poisoned"), Tenant(plane, "healthy")
    for each in (bad, good):
        plane.kubectl("create", "namespace", each.name)
    poison = [namespace("bad"), bucket("bad", "b")]
    # A circle, one that asks for what nobody has, and many big ones.
    circle = [
        collection("bad", name, "b", source={"type": "collection", "collectionIds": [other]})
        for name, other in (("one", "two"), ("two", "three"), ("three", "one"))
    ]
    twice = [
        {"featureExtractorName": "text_extractor", "version": "v1", "parameters": {"model": f"model-{number}"}}
        for number in range(2)
    ]
    impossible = namespace("torn", featureExtractors=twice)
    big = [bucket("bad", f"big{number}", description="x" * 900, bucketSchema=wide(300)) for number in range(60)]
    bad.apply([*poison, *circle, impossible, *big])
    with operating(
        tmp_path, plane.kubeconfig, namespace="poisoned,healthy", lease="fair", reconcile_concurrency=2
    ) as process:
        good.apply(whole_set("news"))
        eventually(lambda: good.all_ready(9), GRACE_S, say=good.everything)
        found = eventually(lambda: (now := bad.condition(circle[0])).get("reason") == "SpecInvalid" and now, GRACE_S)
        assert "one" in found["message"] and "two" in found["message"] and "three" in found["message"]
        eventually(lambda: bad.condition(impossible).get("status") in ("False", "Unknown"), GRACE_S)
        assert process.ready()


# -- what tests do to others --------------------------------------------------------------------------------------


def away(plane: ControlPlane, part: str, for_s: float) -> None:
    plane.stop(part)
    time.sleep(for_s)
    plane.start(part)


def compact(plane: ControlPlane) -> None:
    """Make etcd forget everything but the present."""
    url = f"http://127.0.0.1:{plane._ports['etcd']}/v3/kv"
    key = {"key": "AA==", "range_end": "AA==", "limit": "1"}
    revision = int(_post(f"{url}/range", key)["header"]["revision"])
    _post(f"{url}/compaction", {"revision": str(revision), "physical": True})


def stored(operator: OperatorProcess) -> set[str]:
    """Return the vector collections that there are."""
    folder = operator.log.parent / "data" / "vectors"
    return {path.name for path in folder.iterdir() if path.is_dir()} if folder.exists() else set()


def wide(fields: int) -> dict[str, Any]:
    return {"properties": {f"field_{number}": {"type": "string"} for number in range(fields)}}


@contextlib.contextmanager
def busy(tenant: Tenant, names: list[str]) -> Iterator[None]:
    """Change an annotation of each of these, as fast as it goes, until the block ends."""
    stop = threading.Event()

    def write() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            tenant.plane.kubectl(
                *("-n", tenant.name, "annotate", "--overwrite", "--all", "namespaces.mixpeek.com,buckets.mixpeek.com"),
                f"example.com/beat={number}",
                check=False,
            )

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        yield
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return dict(json.load(answer))
