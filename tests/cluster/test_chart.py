"""The chart and the plain manifests: rendered with many values, and held against a real API server's own schemas."""

from __future__ import annotations

import base64
import copy
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from tests.cluster import plain, values_table
from tests.servers.helm import CHART, KUBERNETES, helm, program, render
from tests.servers.kubernetes.control_plane import REPOSITORY, ControlPlane, Missing

Object = dict[str, Any]
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
EVERYTHING: Object = {
    "api": {
        "autoscaling": {"enabled": True},
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "hosts": ["search.example.com"],
            "tls": [{"secretName": "t"}],
        },
        "service": {"type": "LoadBalancer", "port": 8080, "annotations": {"a": "b"}},
        "publicUrl": "https://search.example.com",
        "nodeSelector": {"pool": "api"},
        "tolerations": [{"key": "api", "operator": "Exists"}],
        "topologySpreadConstraints": [
            {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
        ],
        "priorityClassName": "high",
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "podAnnotations": {"a": "b"},
    },
    "operator": {"replicas": 2, "podLabels": {"a": "b"}, "affinity": {"nodeAffinity": {}}},
    "image": {"digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "pull"}],
    "commonLabels": {"team": "search"},
    "settings": {"MIXPEEK_MAX_BODY_BYTES": 16777216, "MIXPEEK_LOG_LEVEL": "debug", "MIXPEEK_MODEL_HUB": True},
    "qdrant": {"persistence": {"storageClassName": "fast"}},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
}
LITTLE: Object = {
    "api": {"replicas": 1, "podDisruptionBudget": {"enabled": False}, "serviceAccount": {"create": False}},
    "operator": {"podDisruptionBudget": {"enabled": False}, "serviceAccount": {"create": False, "name": "mine"}},
    "crds": {"enabled": False},
    "admission": {"enabled": False},
    "rbac": {"create": False},
    "kuberay": {"enabled": False},
    "networkPolicy": {"enabled": False},
    "qdrant": {"persistence": {"enabled": False}},
}
RENDERINGS: dict[str, Object] = {
    "default": {},
    "everything": EVERYTHING,
    "external": plain.EXTERNAL,
    "little": LITTLE,
    "one namespace": {"watchNamespaces": ["watched-namespace"], "kuberay": {"enabled": False}},
}


@pytest.fixture(scope="module", autouse=True)
def _helm() -> None:
    try:
        program()
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[Object]]:
    return {name: render(values) for name, values in RENDERINGS.items()}


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Yield every pod that would be made: its maker's name and its template."""
    for item in objects:
        if item["kind"] == "Pod":
            yield item["metadata"]["name"], item
        elif item["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield item["metadata"]["name"], item["spec"]["template"]


def named(objects: list[Object], kind: str) -> dict[str, Object]:
    return {item["metadata"]["name"]: item for item in objects if item["kind"] == kind}


def accepted(plane: ControlPlane, objects: list[Object], namespace: str) -> None:
    """Hold objects against the server's own schemas and admission; Prometheus' kind is not there."""
    text = yaml.safe_dump_all(item for item in objects if item["kind"] != "ServiceMonitor")
    text = text.replace("watched-namespace", namespace).replace("mixpeek-system", namespace)
    run = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-")
    plane.kubectl("-n", namespace, *run, stdin=text)


@pytest.mark.parametrize("name", RENDERINGS)
def test_every_rendering_is_accepted_by_the_api_server(
    control_plane: ControlPlane,
    kubernetes_namespace: Callable[[], str],
    rendered: dict[str, list[Object]],
    name: str,
) -> None:
    accepted(control_plane, rendered[name], kubernetes_namespace())


@pytest.mark.parametrize("overlay", ["default", "minimal"])
def test_the_plain_manifests_are_accepted_by_the_api_server(
    control_plane: ControlPlane, kubernetes_namespace: Callable[[], str], overlay: str
) -> None:
    text = control_plane.kubectl("kustomize", REPOSITORY / "manifests" / overlay)
    objects = [item for item in yaml.load_all(text or "", yaml.CSafeLoader) if item["kind"] != "Namespace"]
    accepted(control_plane, objects, kubernetes_namespace())


@pytest.mark.parametrize("name", RENDERINGS)
def test_every_pod_is_admitted_where_only_the_most_restricted_are(
    control_plane: ControlPlane,
    kubernetes_namespace: Callable[[], str],
    rendered: dict[str, list[Object]],
    name: str,
) -> None:
    namespace = kubernetes_namespace()
    control_plane.kubectl("label", "namespace", namespace, RESTRICTED)
    documents = []
    for maker, template in pods(rendered[name]):
        spec = copy.deepcopy(template["spec"])
        spec.pop("priorityClassName", None)
        # Claims come from the set; accounts are not there in a dry run.
        claimed = {mount["name"] for part in spec["containers"] for mount in part["volumeMounts"]}
        volumes = {volume["name"] for volume in spec["volumes"]}
        spec["volumes"] += [{"name": missing, "emptyDir": {}} for missing in sorted(claimed - volumes)]
        spec["serviceAccountName"] = "default"
        documents.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": maker}, "spec": spec})
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert container["resources"]["limits"].keys() == {"memory"}
            assert maker.endswith("-test") or (container["livenessProbe"] and container["readinessProbe"])
    assert len(documents) >= 2
    text = yaml.safe_dump_all(documents)
    control_plane.kubectl("-n", namespace, "create", "--dry-run=server", "-f", "-", stdin=text)


@pytest.mark.parametrize("name", RENDERINGS)
def test_whatever_is_named_is_there(rendered: dict[str, list[Object]], name: str) -> None:
    objects = rendered[name]
    labels = [template["metadata"]["labels"] for _maker, template in pods(objects)]

    def selected(selector: Object) -> bool:
        return any(selector.items() <= item.items() for item in labels)

    for item in objects:
        what = f"{item['kind']}/{item['metadata']['name']}"
        spec = item.get("spec", {})
        if item["kind"] == "Service":
            assert selected(spec["selector"]), what
            ports = {port["name"] for part in containers(objects, spec["selector"]) for port in part["ports"]}
            assert {port["targetPort"] for port in spec["ports"]} <= ports, what
        elif item["kind"] in ("PodDisruptionBudget", "Deployment", "StatefulSet"):
            assert selected(spec["selector"]["matchLabels"]), what
        elif item["kind"] == "NetworkPolicy":
            assert selected(spec["podSelector"]["matchLabels"]), what
        elif item["kind"] == "HorizontalPodAutoscaler":
            assert spec["scaleTargetRef"]["name"] in named(objects, "Deployment")
            assert "replicas" not in named(objects, "Deployment")[spec["scaleTargetRef"]["name"]]["spec"]
        elif item["kind"].endswith("Binding") and "subjects" in item:
            assert item["roleRef"]["name"] in named(objects, item["roleRef"]["kind"]), what
            assert {subject["name"] for subject in item["subjects"]} <= named(objects, "ServiceAccount").keys(), what
    secrets = {key: item["data"].keys() for key, item in named(objects, "Secret").items()}
    for maker, template in pods(objects):
        for entry in template["spec"]["containers"][0].get("env", []):
            reference = entry.get("valueFrom", {}).get("secretKeyRef")
            if reference and reference["name"] in secrets:
                assert reference["key"] in secrets[reference["name"]], maker
            elif reference:
                assert reference["name"] in ("mixpeek-credentials", "mixpeek-stores"), maker


def containers(objects: list[Object], selector: Object) -> list[Object]:
    chosen = [item for _maker, item in pods(objects) if selector.items() <= item["metadata"]["labels"].items()]
    return [container for item in chosen for container in item["spec"]["containers"]]


def test_variables_are_settings_that_exist_and_keep_every_digit(rendered: dict[str, list[Object]]) -> None:
    known = yaml.safe_load((CHART / "files" / "settings.yaml").read_text())
    for name, objects in rendered.items():
        for maker in ("mixpeek-operator", "mixpeek-api"):
            env = named(objects, "Deployment")[maker]["spec"]["template"]["spec"]["containers"][0]["env"]
            names = [entry["name"] for entry in env]
            assert len(names) == len(set(names)), f"{name}: a variable twice"
            assert {item for item in names if item.startswith("MIXPEEK_")} <= set(known)
            for entry in env:
                for used in [part.partition(")")[0] for part in str(entry.get("value", "")).split("$(")[1:]]:
                    assert names.index(used) < names.index(entry["name"]), "only what stands above is expanded"
    entries = named(rendered["everything"], "Deployment")["mixpeek-api"]["spec"]["template"]["spec"]["containers"][0][
        "env"
    ]
    values = {entry["name"]: entry.get("value") for entry in entries}
    assert values["MIXPEEK_MAX_BODY_BYTES"] == "16777216"
    assert values["MIXPEEK_MODEL_HUB"] == "true"


def test_the_definitions_arrive_letter_by_letter(rendered: dict[str, list[Object]]) -> None:
    for name, item in named(rendered["default"], "CustomResourceDefinition").items():
        source = yaml.safe_load((REPOSITORY / "crds" / f"{name.partition('.')[0]}.yaml").read_text())
        assert item["spec"] == source["spec"]
        assert item["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": 3}, "replicas"),
        ({"operator": {"replica": 2}}, "replica"),
        ({"operator": {"replicas": "two"}}, "replicas"),
        ({"api": {"service": {"type": "Cluster"}}}, "type"),
        ({"api": {"service": {"port": 99999}}}, "port"),
        ({"api": {"ingress": {"host": "a"}}}, "host"),
        ({"api": {"resources": {"requests": {"memory": "1 GB"}}}}, "memory"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"qdrant": {"external": {"url": "qdrant:6333"}}}, "url"),
        ({"objectStorage": {"external": {"url": "file:///tmp"}}}, "url"),
        ({"watchNamespaces": "all"}, "watchNamespaces"),
        ({"settings": {"LOG_LEVEL": "debug"}}, "LOG_LEVEL"),
        ({"settings": {"MIXPEEK_LOGLEVEL": "debug"}}, "MIXPEEK_LOGLEVEL is no setting; there are"),
        ({"serviceMonitor": {"interval": "often"}}, "interval"),
        ({"mongodb": {"enabled": False}}, "mongodb.external.existingSecret: name the Secret"),
        ({"qdrant": {"enabled": False}}, "qdrant.external.url: write the URL"),
        ({"api": {"ingress": {"enabled": True}}}, "api.ingress.hosts: name at least one host"),
    ],
)
def test_a_wrong_or_misspelt_value_is_refused_with_its_name(values: Object, said: str) -> None:
    done = helm("template", "mixpeek", CHART, KUBERNETES, "--values", "-", stdin=yaml.safe_dump(values))
    assert done.returncode != 0
    assert said in done.stderr


def test_the_schema_knows_every_value_and_the_readme_tells_of_it() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def open_ended(part: Object, path: str) -> Iterator[str]:
        if "$ref" in part:
            part = schema["$defs"][part["$ref"].rpartition("/")[2]]
        if "properties" in part:
            if part.get("additionalProperties") is not False:
                yield path
            for name, inner in part["properties"].items():
                yield from open_ended(inner, f"{path}.{name}")

    assert list(open_ended(schema, "values")) == []
    readme = values_table.README.read_text()
    assert values_table.written(readme) == readme, "run `python -m tests.cluster.values_table`"
    without = [path for path, default, said in values_table.rows() if not said and path.count(".") == 0]
    assert without == ["imagePullSecrets"] or not without


def test_helm_finds_nothing_to_say(tmp_path: Any) -> None:
    done = helm("lint", "--strict", CHART, KUBERNETES)
    assert done.returncode == 0, done.stdout
    packed = helm("package", CHART, "--destination", tmp_path)
    assert packed.returncode == 0, packed.stderr
    assert next(tmp_path.glob("*.tgz")).stat().st_size < 200_000, "a release is kept in one Secret of 1 MiB"


def test_the_plain_manifests_are_what_the_chart_renders() -> None:
    stale = [name for name, text in plain.files().items() if (plain.MANIFESTS / name).read_text() != text]
    assert stale == [], "run `python -m tests.cluster.plain`"


def test_both_installations_are_the_same(control_plane: ControlPlane) -> None:
    text = control_plane.kubectl("kustomize", REPOSITORY / "manifests" / "default")
    ours = {key(item): item for item in yaml.load_all(text or "", yaml.CSafeLoader)}
    chart = {key(item): item for item in plain.plain(render(plain.IN_CLUSTER))}
    only_plain = {name for _kind, name in ours.keys() - chart.keys()}
    assert only_plain == {"mixpeek-system", "mixpeek-credentials", "mixpeek-credentials-script"}
    assert chart.keys() - ours.keys() == set()
    for name, item in chart.items():
        left, right = comparable(item), comparable(ours[name])
        assert left == right, name


def key(item: Object) -> tuple[str, str]:
    return item["kind"], item["metadata"]["name"]


def comparable(item: Object) -> Object:
    """An object without its own labels, and with the variables of its containers in one order."""
    item = copy.deepcopy(item)
    item["metadata"] = {"name": item["metadata"]["name"], "namespace": item["metadata"].get("namespace")}
    for container in plain.template(item).get("spec", {}).get("containers", []):
        container.get("env", []).sort(key=lambda entry: entry["name"])
    return item


def test_credentials_are_made_once_and_an_uninstalled_release_leaves_nothing(
    control_plane: ControlPlane, kubernetes_namespace: Callable[[], str]
) -> None:
    namespace = kubernetes_namespace()
    release = f"mixpeek-{namespace[-8:]}"
    flags = ("--kubeconfig", str(control_plane.kubeconfig), "--namespace", namespace)
    apart = {
        "crds": {"enabled": False},
        "admission": {"enabled": False},
        "stores": {"keepData": False},
    }

    def run(verb: str, *arguments: str, values: Object | None = None) -> None:
        text = None if values is None else yaml.safe_dump(values)
        done = helm(verb, release, *arguments, *flags, *(("--values", "-") if text else ()), stdin=text)
        assert done.returncode == 0, done.stderr

    def secret() -> Object:
        found = control_plane.kubectl("-n", namespace, "get", "secret", f"{release}-credentials", "-o", "json")
        return dict(json.loads(found or "")["data"])

    run("install", str(CHART), values=apart)
    before = secret()
    assert base64.b64decode(before["api-key"]).startswith(b"mxp_")
    assert len(set(before.values())) == 7
    run("upgrade", str(CHART), values=apart | {"commonLabels": {"second": "time"}})
    assert secret() == before
    run("uninstall")
    label = f"app.kubernetes.io/instance={release}"
    kinds = "all,secret,configmap,serviceaccount,role,rolebinding,networkpolicy,pdb,pvc,clusterrole,clusterrolebinding"

    def left() -> list[str]:
        found = control_plane.kubectl("-n", namespace, "get", kinds, "-l", label, "-o", "name", "--ignore-not-found")
        return [item for item in (found or "").split() if not item.startswith("pod/")]

    # The garbage collector follows: a Deployment's ReplicaSets go after it, some a moment after they were made.
    end = time.monotonic() + 120
    while (rest := left()) and time.monotonic() < end:
        time.sleep(0.5)
    assert rest == []
