"""The operator on a real API server: order, references, deletion, and silence when nothing happens."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cluster.declared import (
    Tenant,
    bucket,
    collection,
    condition,
    eventually,
    is_ready,
    namespace,
    retriever,
    whole_set,
)
from tests.servers.kubernetes.control_plane import ControlPlane
from tests.servers.operator import OperatorProcess, operating

GRACE_S = 60


@pytest.fixture
def tenant(control_plane: ControlPlane, kubernetes_namespace: Callable[[], str]) -> Tenant:
    return Tenant(control_plane, kubernetes_namespace())


@pytest.fixture
def operator(control_plane: ControlPlane, tenant: Tenant, tmp_path: Path) -> Iterator[OperatorProcess]:
    with operating(
        tmp_path, control_plane.kubeconfig, namespace=tenant.name, lease=tenant.name, drift_interval_s=2
    ) as process:
        yield process


@pytest.mark.parametrize("seed", range(3))
def test_every_kind_in_any_order_in_one_go_becomes_ready(operator: OperatorProcess, tenant: Tenant, seed: int) -> None:
    tenant.shuffled(whole_set("news"), seed)
    tenant.plane.kubectl(
        "-n", tenant.name, "wait", "--for=condition=Ready", "--timeout=60s", "--all", "retrievers.mixpeek.com"
    )
    eventually(lambda: tenant.all_ready(9), GRACE_S, say=tenant.everything)


def test_nothing_is_written_when_nothing_happens_and_kopf_leaves_no_trace(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    tenant.apply(whole_set("news"))
    eventually(lambda: tenant.all_ready(9), GRACE_S, say=tenant.everything)
    before = {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in tenant.everything()}
    visits = operator.metrics()["mixpeek_reconciles_total"]
    # Three drift checks of each.
    eventually(lambda: operator.metrics()["mixpeek_reconciles_total"] > visits + 3 * 9, GRACE_S)
    after = tenant.everything()
    assert {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in after} == before
    assert "kopf" not in json.dumps(after)
    for item in after:
        ours = [entry for entry in item["metadata"]["managedFields"] if entry["manager"] == "mixpeek-operator"]
        assert {entry.get("subresource", "") for entry in ours} == {"", "status"}
        spec = [entry for entry in ours if "f:spec" in entry["fieldsV1"]]
        assert not spec, "the operator has no business in a spec"


def test_a_fix_wakes_who_waits_for_it_at_once(operator: OperatorProcess, tenant: Tenant) -> None:
    late, kept = bucket("news", "articles"), collection("news", "article_texts", "articles")
    search = retriever("news", "search", "article_texts")
    tenant.apply([search, kept, namespace("news")])
    waits = eventually(lambda: tenant.condition(kept) or None, GRACE_S)
    waits = eventually(
        lambda: (found := tenant.condition(kept)).get("reason") == "WaitingForBucket" and found,
        GRACE_S,
        say=lambda: waits,
    )
    assert 'Bucket "articles" does not exist' in waits["message"]
    tenant.apply([late])
    eventually(lambda: tenant.ready(search, kept, late), 20, say=tenant.everything)


def test_a_spec_that_cannot_be_meant_is_named_and_mended(operator: OperatorProcess, tenant: Tenant) -> None:
    wrong = namespace("news", featureExtractors=[{"featureExtractorName": "no_such_extractor", "version": "v1"}])
    first, *rest = whole_set("news")
    tenant.apply([wrong, *rest])
    found = eventually(
        lambda: (now := tenant.condition(wrong)).get("reason") == "SpecInvalid" and now, GRACE_S, say=tenant.everything
    )
    assert "no_such_extractor" in found["message"]
    assert tenant.condition(wrong, "Stalled")["status"] == "True"
    tenant.apply([first])
    eventually(lambda: tenant.all_ready(9), GRACE_S, say=tenant.everything)


def test_a_deletion_waits_for_who_refers_and_names_them_and_a_whole_set_leaves_nothing(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    made = whole_set("news")
    tenant.apply(made)
    eventually(lambda: tenant.all_ready(9), GRACE_S, say=tenant.everything)
    tenant.delete(made[1])
    held = eventually(lambda: (now := tenant.condition(made[1])).get("reason") == "StillReferredTo" and now, GRACE_S)
    assert "Collection/news.article-texts" in held["message"]
    assert tenant.get(made[1]) is not None
    tenant.delete(*(item for item in made if item is not made[1]))
    eventually(lambda: not tenant.everything(), GRACE_S, say=tenant.everything)
    folder = Path(operator.log).parent / "data" / "vectors"
    assert not [path for path in folder.rglob("*") if path.is_file() and path.name.startswith("segment")]


def test_the_command_runs_says_what_is_missing_and_ends_in_good_order(
    control_plane: ControlPlane, tenant: Tenant, operator: OperatorProcess
) -> None:
    assert operator.stop() == 0
    lines = [json.loads(line) for line in operator.log.read_text().splitlines() if line.startswith("{")]
    assert lines[-1]["event"] == "stopped"
    lease = json.loads(control_plane.kubectl("-n", "default", "get", "lease", tenant.name, "-o", "json") or "")
    assert "holderIdentity" not in lease["spec"], "it was given back"
    done = subprocess.run(
        [sys.executable, "-m", "mixpeek_operator.cli", "operator", "--kubeconfig", "/nowhere/config"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr == "error: the kubeconfig /nowhere/config cannot be read: No such file or directory\n"


def test_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, mixpeek_operator.cli.operating\n"
        "print([name for name in ('torch', 'ray', 'fastapi', 'pandas', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_ready_is_told_per_generation(operator: OperatorProcess, tenant: Tenant) -> None:
    made = namespace("news")
    tenant.apply([made])
    eventually(lambda: tenant.ready(made), GRACE_S, say=tenant.everything)
    changed = namespace("news", payloadIndexes=[{"fieldName": "topic", "type": "keyword"}])
    tenant.apply([changed])
    eventually(lambda: is_ready(found := tenant.get(made)) and found["metadata"]["generation"] == 2, GRACE_S)
    assert "topic" in (tenant.get(made) or {})["status"]["payloadIndexes"]
    assert condition(tenant.get(made), "Synced")["reason"] == "InSync"
