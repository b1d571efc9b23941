"""The operator on a real API server with 1,000 resources of all kinds; vectors on a Qdrant server beside it.

The operator is `mixpeekctl operator` in an environment made as its image is: the distribution's interpreter where there
is one (a Python that somebody compiled without profiling is slower by a fifth), and the packages of the image.
"""

from __future__ import annotations

import json
import os
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.benchmarks.measure import Row
from tests.cluster.declared import Object, bucket, collection, retriever, whole_set
from tests.servers.kubernetes.control_plane import REPOSITORY, ControlPlane, Missing
from tests.servers.operator import OperatorProcess
from tests.servers.process import running

_WRITES = {"POST", "PUT", "PATCH", "DELETE", "APPLY"}
_WAIT_S = 900
_PROGRAM = Path(sys.prefix) / "image" / "bin" / "mixpeekctl"
"""`make bench` installs it."""
_POLICIES = REPOSITORY / "manifests" / "base" / "admission.yaml"


def run(quick: bool) -> list[Row]:
    """Measure applying, one edit, standing still and starting."""
    count = 200 if quick else 1000
    with tempfile.TemporaryDirectory() as folder:
        try:
            plane = ControlPlane(Path(folder) / "plane")
        except Missing as missing:
            print(f"kubernetes is not measured: {missing}", file=sys.stderr)
            return []
        command = [sys.executable, "-m", "tests.servers.qdrant", "--data", str(Path(folder) / "qdrant"), "--port"]
        with running(lambda port: [*command, str(port)], Path(folder) / "qdrant.log") as qdrant:
            try:
                plane.up()
                # As an installation has them; the API server asks them at each creation and change.
                plane.kubectl("apply", "--server-side", f"--filename={_POLICIES}")
                return _Measured(plane, Path(folder), f"http://127.0.0.1:{qdrant.port}", count, quick).rows()
            finally:
                plane.down()


class _Measured:
    def __init__(self, plane: ControlPlane, folder: Path, qdrant: str, count: int, quick: bool) -> None:
        self._plane = plane
        self._count = count
        self._quick = quick
        self._operator = OperatorProcess(
            folder / "operator",
            plane.kubeconfig,
            program=_PROGRAM,
            namespace="ours",
            qdrant_url=qdrant,
            lease_identity="bench",
        )
        config = yaml.safe_load(plane.kubeconfig.read_text())
        authority = ssl.create_default_context(cafile=str(plane.folder / "pki" / "ca.crt"))
        token = config["users"][0]["user"]["token"]
        self._api = httpx.Client(
            base_url=plane.url,
            verify=authority,
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
            timeout=60,
        )

    def rows(self) -> list[Row]:
        """Measure all of it, the operator left running from one to the next."""
        objects = resources(self._count)
        bare = [self._apply(name, objects) for name in ("bare-1", "bare-2")]
        self._operator.start()
        try:
            return [
                *self._applied(objects, bare),
                *self._edited(objects),
                *self._still(),
                *self._started(),
            ]
        finally:
            self._operator.kill()
            self._api.close()

    def _applied(self, objects: list[Object], bare: list[float]) -> list[Row]:
        writes, cpu, began = self._writes(), self._cpu_s(), time.perf_counter()
        self._apply("ours", objects)
        self._until(lambda: self._ready() == self._count)
        ours = time.perf_counter() - began
        cpu = self._cpu_s() - cpu
        self._until(lambda: self._operator.metrics().get("mixpeek_events_unwritten") == 0)
        told = time.perf_counter() - began
        writes = (self._writes() - writes) / self._count
        # The operator rests, and follows another namespace.
        bare = sorted([*bare, self._apply("bare-3", objects)])
        alone = f"{bare[1]:.1f} s ({bare[0]:.1f} to {bare[2]:.1f} s, kubectl apply alone)"
        return [
            Row(
                f"{self._count:,} custom resources until all Ready",
                f"{ours:.1f} s",
                alone,
                f"{ours / bare[1]:.2f} ×",
                "≤ 2 ×",
            ),
            Row("until all Events are written too", f"{told:.1f} s", alone, f"{told / bare[1]:.2f} ×", "–"),
            Row(
                "of it the operator's CPU until all Ready",
                f"{cpu:.1f} s",
                "–",
                f"{writes:.1f} writes a resource, kubectl's and Events with them",
                "–",
            ),
        ]

    def _edited(self, objects: list[Object]) -> list[Row]:
        buckets = [item["metadata"]["name"] for item in objects if item["kind"] == "Bucket"]
        took, writes = [], []
        for number in range(5 if self._quick else 20):
            before = self._writes()
            path = f"/apis/mixpeek.com/v1alpha1/namespaces/ours/buckets/{buckets[number % len(buckets)]}"
            began = time.perf_counter()
            body = {"spec": {"description": f"edited {number} {began}"}}
            made = self._api.patch(
                path, content=json.dumps(body), headers={"Content-Type": "application/merge-patch+json"}
            ).json()
            while not _ready_at(self._api.get(path).json(), made["metadata"]["generation"]):
                time.sleep(0.005)
            took.append(time.perf_counter() - began)
            time.sleep(0.3)
            writes.append(self._writes() - before - 1)
        median = statistics.median(took)
        return [
            Row(
                "one edit among them until Ready", f"{median * 1000:.0f} ms", "–", f"{max(took):.2f} s at most", "< 1 s"
            ),
            Row("writes per edit", f"{statistics.median(writes):.0f}", "–", f"{max(writes):.0f} at most", "1"),
        ]

    def _still(self) -> list[Row]:
        seconds = 20 if self._quick else 90
        writes, cpu, began = self._writes(), self._cpu_s(), time.perf_counter()
        time.sleep(seconds)
        used = (self._cpu_s() - cpu) / (time.perf_counter() - began)
        return [
            Row("writes while nothing happens", f"{self._writes() - writes:.0f}", "–", f"in {seconds} s", "0"),
            Row("CPU while nothing happens", f"{used * 100:.1f} %", "–", "of a core", "< 2 %"),
            Row("memory", f"{self._memory_mib():.0f} MiB", "–", f"{self._peak_mib():.0f} MiB at most", "< 200 MiB"),
        ]

    def _started(self) -> list[Row]:
        self._operator.stop()
        writes, began = self._writes(), time.perf_counter()
        self._operator.start()
        self._until(self._settled)
        took = time.perf_counter() - began
        return [
            Row("operator start until settled", f"{took:.1f} s", "–", f"{took:.1f} s", "< 20 s"),
            Row("writes at a start", f"{self._writes() - writes:.0f}", "–", "", "0"),
        ]

    def _settled(self) -> bool:
        now = self._operator.metrics()
        visited = now.get("mixpeek_reconciles_total", 0) >= self._count
        return visited and not now["mixpeek_queue_waiting"] and not now["mixpeek_queue_active"]

    # -- reading -----------------------------------------------------------------------------------------------

    def _apply(self, name: str, objects: Iterable[Object]) -> float:
        self._plane.kubectl("create", "namespace", name)
        body = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        began = time.perf_counter()
        self._plane.kubectl("-n", name, "apply", "-f", "-", stdin=body)
        return time.perf_counter() - began

    def _ready(self) -> int:
        page = self._operator.labelled("mixpeek_resources")
        return int(sum(value for labels, value in page if labels["ready"] == "True"))

    def _writes(self) -> float:
        """Writes that the API server took so far, the Lease's aside."""
        total = 0.0
        for family in text_string_to_metric_families(self._api.get("/metrics").text):
            if family.name != "apiserver_request":
                continue
            for sample in family.samples:
                labels = sample.labels
                ours = labels.get("group") == "mixpeek.com" or labels.get("resource") == "events"
                if sample.name == "apiserver_request_total" and labels["verb"] in _WRITES and ours:
                    total += 0.0 if labels.get("dry_run") else sample.value
        return total

    def _until(self, holds: Any) -> None:
        end = time.monotonic() + _WAIT_S
        while not holds():
            if time.monotonic() > end:
                raise RuntimeError(f"not within {_WAIT_S} s: {self._operator.metrics()}")
            time.sleep(0.1)

    def _cpu_s(self) -> float:
        fields = Path(f"/proc/{self._operator.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _memory_mib(self) -> float:
        return self._status("VmRSS")

    def _peak_mib(self) -> float:
        return self._status("VmHWM")

    def _status(self, name: str) -> float:
        for line in Path(f"/proc/{self._operator.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
        raise AssertionError(name)


def resources(count: int) -> list[Object]:
    """Return `count` custom resources of every kind, in ten Mixpeek namespaces."""
    made: list[Object] = []
    for number in range(10):
        owner = f"tenant{number}"
        made += whole_set(owner)
        rest = count // 10 - 9
        for each in range(rest // 3):
            made += [
                bucket(owner, f"bucket{each}"),
                collection(owner, f"collection{each}", f"bucket{each}"),
                retriever(owner, f"retriever{each}", f"collection{each}"),
            ]
        made += [bucket(owner, f"spare{each}") for each in range(rest % 3)]
    return made


def _ready_at(item: Object, generation: int) -> bool:
    conditions = (item.get("status") or {}).get("conditions") or []
    return any(
        one["type"] == "Ready" and one["status"] == "True" and one["observedGeneration"] == generation
        for one in conditions
    )
