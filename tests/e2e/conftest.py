"""The cluster that `run.sh` started, seen from its node: cluster IPs, pod IPs and names are reachable from here."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mixpeek
import pytest
import yaml

from tests.servers import stores as servers
from tests.servers.process import running

collect_ignore = [] if "MIXPEEK_E2E" in os.environ else ["test_e2e.py"]
"""Nothing here runs without the cluster that `make e2e` starts."""

REPOSITORY = Path(__file__).parents[2]
NODE = "10.244.0.1"
"""The node's own address, which pods reach."""
RELEASE, SYSTEM = "mixpeek", "mixpeek-system"
QDRANT_KEY = "the-key-of-qdrant"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the stores are, and what they keep on disk."""

    folder: Path
    values: dict[str, Any]
    secret: dict[str, str]

    @property
    def files(self) -> list[str]:
        """Files in the object storage."""
        return sorted(str(file) for file in (self.folder / "s3" / "data").rglob("*") if file.is_file())


def kubectl(*arguments: str | Path, stdin: str | None = None, check: bool = True, timeout: float = 600) -> str:
    """Run kubectl and return what it prints. Raises AssertionError with what it says."""
    done = subprocess.run(["kubectl", *arguments], input=stdin, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0 or not check, f"kubectl {' '.join(map(str, arguments))[:200]}: {done.stderr[-3000:]}"
    return done.stdout


def helm(*arguments: str | Path, stdin: str | None = None) -> str:
    """Run Helm and return what it prints. Raises AssertionError with what it says and what the pods do."""
    done = subprocess.run(["helm", *arguments], input=stdin, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{done.stderr[-3000:]}\n{state()}"
    return done.stdout


def state() -> str:
    """What an operator of a cluster would look at first."""
    looks = (
        ("get", "pods,mixpeek,rayservices,rayclusters", "-A", "-o", "wide"),
        ("get", "events", "-A", "--sort-by=.lastTimestamp"),
        ("-n", SYSTEM, "logs", "deployment/mixpeek-operator", "--tail=20"),
        ("-n", SYSTEM, "logs", "deployment/mixpeek-api", "--tail=20"),
    )
    return "\n\n".join(kubectl(*look, check=False)[-4000:] for look in looks)


def eventually(check: Callable[[], Any], what: str, *, within_s: float = 300) -> Any:
    """Return the first true answer of `check`. Raises AssertionError with the cluster's state."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if found := check():
            return found
        time.sleep(0.5)
    raise AssertionError(f"{what}: not within {within_s} s\n{state()}")


def inventory() -> set[str]:
    """Every object of the cluster but those that come and go by themselves."""
    kinds = kubectl("api-resources", "--verbs=list", "-o", "name").split()
    passing = ("events", "leases", "endpoints", "endpointslices", "componentstatuses", "apiservices", "ipaddresses")
    wanted = [kind for kind in kinds if kind.partition(".")[0] not in passing]
    shape = "jsonpath={range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name}{'\\n'}{end}"
    return set(kubectl("get", ",".join(wanted), "-A", "-o", shape).split())


@pytest.fixture(scope="session")
def before() -> set[str]:
    """What was there before anything of ours."""
    return inventory()


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """The stores of the user: processes on the node."""
    folder = tmp_path_factory.mktemp("stores")
    (folder / "qdrant").mkdir()

    def qdrant(port: int) -> list[str | Path]:
        command = [sys.executable, "-m", "tests.servers.qdrant", "--host", NODE, "--port", str(port)]
        return [*command, "--data", folder / "qdrant" / "data", "--api-key", QDRANT_KEY]

    with (
        servers.ferretdb(folder / "mongo", NODE) as mongo,
        servers.redis(folder / "redis", NODE) as redis,
        servers.s3proxy(folder / "s3", NODE) as s3,
        running(qdrant, folder / "qdrant" / "log", NODE) as vectors,
    ):
        values = {
            "qdrant": {
                "enabled": False,
                "external": {"url": f"http://{NODE}:{vectors.port}", "existingSecret": "stores"},
            },
            "mongodb": {"enabled": False, "external": {"existingSecret": "stores", "key": "mongodb"}},
            "redis": {"enabled": False, "external": {"existingSecret": "stores", "key": "redis"}},
            "objectStorage": {
                "enabled": False,
                "external": {"url": "s3://test", "endpoint": f"http://{NODE}:{s3.port}", "existingSecret": "stores"},
            },
        }
        secret = {
            "api-key": QDRANT_KEY,
            "mongodb": f"mongodb://{NODE}:{mongo.port}/mixpeek",
            "redis": f"redis://{NODE}:{redis.port}/0",
            "access-key": servers.ACCESS_KEY,
            "secret-key": servers.SECRET_KEY,
        }
        yield Places(folder, values, secret)


@pytest.fixture(scope="session")
def kuberay() -> set[str]:
    """The KubeRay operator in a pod of its own, installed from its own manifests. Returns what that brought."""
    there = inventory()
    rendered = kubectl("kustomize", Path(os.environ["MIXPEEK_E2E"], "default"))
    image = re.compile(r"quay\.io/kuberay/operator:\S+")
    kubectl("apply", "--server-side", "-f", "-", stdin=image.sub("localhost/kuberay-operator:e2e", rendered))
    kubectl("rollout", "status", "deployment/kuberay-operator", "--timeout=120s")
    return inventory() - there


@pytest.fixture(scope="session")
def release(before: set[str], places: Places) -> str:
    """Our release, installed as the chart's README says. Returns the API's first key."""
    kubectl("create", "namespace", SYSTEM)
    given = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "stores"}, "stringData": places.secret}
    kubectl("-n", SYSTEM, "apply", "-f", "-", stdin=json.dumps(given))
    values = {
        **places.values,
        # Two cores for everything, Ray's pods among it.
        "api": {"replicas": 1, "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}}},
        "settings": {
            "MIXPEEK_EMBEDDING_THREADS": 1,
            # Ray rounds a worker's 1.1 cores up to two: one for the platform's models, one for the rest. What asks for
            # none at all would be put on the head.
            "MIXPEEK_RAY_HEAD_CPUS": 0.3,
            "MIXPEEK_RAY_HEAD_MEMORY": "3Gi",
            "MIXPEEK_RAY_POD_CPUS": 1.1,
            "MIXPEEK_RAY_POD_MEMORY": "6Gi",
            "MIXPEEK_RAY_WORKERS": 1,
            "MIXPEEK_RAY_WORKER_CPUS": 0.5,
        },
    }
    chart = REPOSITORY / "charts" / "mixpeek-operator"
    install = ("install", RELEASE, chart, "--namespace", SYSTEM, "--values", "-", "--wait", "--timeout", "10m")
    helm(*install, stdin=yaml.safe_dump(values))
    found = json.loads(kubectl("-n", SYSTEM, "get", "secret", f"{RELEASE}-credentials", "-o", "json"))
    return base64.b64decode(found["data"]["api-key"]).decode()


@pytest.fixture(scope="session")
def connect(release: str) -> Iterator[Callable[[str], mixpeek.ApiClient]]:
    """Gives the public SDK's client for a namespace, through the Service."""
    with contextlib.ExitStack() as opened:

        @cache
        def client(namespace: str) -> mixpeek.ApiClient:
            host = f"http://{RELEASE}-api.{SYSTEM}.svc.cluster.local"
            key = {"NamespaceHeader": namespace}
            configuration = mixpeek.Configuration(host=host, access_token=release, api_key=key)
            return opened.enter_context(mixpeek.ApiClient(configuration))

        yield client
