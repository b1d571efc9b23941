"""What a dedicated tier asks for, step by step, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mixpeek_operator.core.catalog import Catalog
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.lifecycle import Facilities, Refs, Subject
from mixpeek_operator.core.refs import immutable_changes
from mixpeek_operator.core.resource import ID_ANNOTATION, Metadata, Resource
from mixpeek_operator.kinds.extractor import plan as extractor_plan
from mixpeek_operator.kinds.extractor import status as extractor_status
from mixpeek_operator.kinds.extractor.spec import SCHEMA as EXTRACTOR
from mixpeek_operator.kinds.namespace import compute
from mixpeek_operator.ports.machines import ApplicationState, ClusterState

CATALOG = cast(Catalog, SimpleNamespace(extractors=lambda: {("text_extractor", "v1"): None}))
PLATFORM = "ns_1.text_extractor_v1"


def declared(kind: str, name: str, spec: dict[str, Any], id: str = "") -> Resource:
    annotations = {ID_ANNOTATION: id} if id else {}
    return Resource(kind, Metadata(name, "acme", uid=f"uid-{name}", annotations=annotations), {"name": name, **spec})


def subject(*extractors: Resource, facilities: Facilities | None = None, **infrastructure: Any) -> Subject:
    given = {"compute_tier": "dedicated_gpu", **infrastructure}
    owner = declared("Namespace", "news", {"infrastructure": given}, "ns_1")
    return Subject(owner, Refs(), CATALOG, "ns_1", facilities or Facilities(dedicated_compute=True), extractors)


def extractor(name: str = "own", **spec: Any) -> Resource:
    given = {"namespace": "news", "version": "1", "realtime": True, "source": {"container_image": "own:1"}, **spec}
    return declared("Extractor", name, given)


STATE = ClusterState("ray-ns-1", "uid-news", serving=True, applications={PLATFORM: ApplicationState("RUNNING")})


def test_defaults_are_those_of_the_spec() -> None:
    want = compute.wanted(subject())
    assert want is not None
    assert compute.described(want.workers) == "1 to 10 workers with 1 GPU"
    assert [item.name for item in want.applications] == [PLATFORM]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (subject(compute_tier="shared"), "the shared tier has no machines"),
        (subject(facilities=Facilities()), "there is nothing that could make them"),
    ],
)
def test_none_are_wanted(given: Subject, reason: str) -> None:
    assert compute.wanted(given) is None, reason


def test_without_autoscaling_the_number_is_fixed_and_never_none() -> None:
    want = compute.wanted(
        subject(autoscaling_enabled=False, min_workers=0, max_workers=4, compute_tier="dedicated_cpu")
    )
    assert want is not None
    assert (want.workers.minimum, want.workers.grows, want.workers.gpus) == (1, False, 0)


def test_a_label_that_no_node_can_have_is_refused() -> None:
    with pytest.raises(SpecError, match=r"infrastructure\.gpu_type: 'A100 80GB' is no value of a node label"):
        compute.wanted(subject(gpu_type="A100 80GB"))


def test_realtime_extractors_with_code_are_served_and_no_others() -> None:
    served = [
        extractor("own"),
        extractor("batch", realtime=False),
        extractor("archive", source={"blob": "plugins/x.zip"}),
        extractor("mixed", environment={"A": "Bearer ${{ secrets.TOKEN }}"}),
    ]
    want = compute.wanted(subject(*served))
    assert want is not None
    assert [item.route for item in want.applications] == ["/ns_1/text_extractor_v1", "/ns_1/extractors/own"]


@pytest.mark.parametrize(
    ("have", "steps", "reason"),
    [
        (None, ["create Ray cluster of ns_1 with 1 to 10 workers with 1 GPU"], "nothing is there"),
        (STATE, [], "all is there"),
        (
            replace(STATE, differs=("applications",)),
            ["update Ray cluster of ns_1 in place (applications)"],
            "pods stay",
        ),
        (
            replace(STATE, differs=("rayClusterConfig.headGroupSpec",)),
            ["update Ray cluster of ns_1 by a new one that takes over (rayClusterConfig.headGroupSpec)"],
            "pods are made anew",
        ),
        (replace(STATE, owner_uid="x", differs=("applications",)), [], "another's is not touched"),
    ],
)
def test_steps(have: ClusterState | None, steps: list[str], reason: str) -> None:
    want = compute.wanted(subject())
    assert [step.todo() for step in compute.steps(want, "acme", "ns_1", have)] == steps, reason


def test_the_shared_tier_and_a_deletion_remove_it() -> None:
    assert [step.todo() for step in compute.steps(None, "acme", "ns_1", STATE)] == ["delete Ray cluster of ns_1"]
    assert compute.steps(None, "acme", "ns_1", None) == []


FAILED = ApplicationState("DEPLOY_FAILED", "Traceback:\n  x\nNotFoundError: no model\n\n")


@pytest.mark.parametrize(
    ("have", "ok", "reason", "message"),
    [
        (None, False, "ClusterMissing", "there is no Ray cluster of ns_1"),
        (STATE, True, "ClusterReady", ""),
        (
            replace(STATE, serving=False, workers_ready=1, workers_wanted=2),
            False,
            "ClusterProvisioning",
            "waits for Ray cluster ray-ns-1: 1 of 2 workers are ready",
        ),
        (
            replace(STATE, serving=False, problem="quota exceeded"),
            False,
            "ClusterProvisioning",
            "waits for Ray cluster ray-ns-1: quota exceeded",
        ),
        (
            replace(STATE, applications={PLATFORM: FAILED}),
            False,
            "ApplicationFailed",
            f"{PLATFORM} is DEPLOY_FAILED: NotFoundError: no model",
        ),
        (
            replace(STATE, updating=True, applications={"ns_1.extractors.own": FAILED}),
            True,
            "ClusterUpdating",
            "another cluster takes over from ray-ns-1; it waits: ns_1.extractors.own is DEPLOY_FAILED",
        ),
        (
            replace(STATE, owner_uid="x"),
            False,
            "ClusterOwnedByAnother",
            "Ray cluster ray-ns-1 belongs to another resource",
        ),
    ],
)
def test_what_is_said_of_a_cluster(have: ClusterState | None, ok: bool, reason: str, message: str) -> None:
    given = subject()
    found = compute.finding(given, compute.wanted(given), have)
    assert (found.ok, found.reason, found.message) == (ok, reason, message)


def _endpoint(state: ApplicationState | None, **cluster: Any) -> tuple[bool | None, str, str]:
    made = extractor()
    refs = Refs({("Namespace", "news"): subject().resource})
    given = Subject(made, refs, CATALOG, "ns_1", Facilities(dedicated_compute=True))
    shown = {} if state is None else {"ns_1.extractors.own": state}
    have = extractor_plan.Have(None, replace(STATE, serve_url="http://serve:8000", applications=shown, **cluster))
    report = extractor_status.status(given, extractor_plan.want(given), have)
    assert report.facts["endpoint"] == "http://serve:8000/ns_1/extractors/own"
    (found,) = (item for item in report.findings if item.type == "EndpointReady")
    return found.ok, str(found.reason), found.message


def test_health_of_an_endpoint_is_that_of_its_application_although_the_cluster_serves() -> None:
    assert _endpoint(ApplicationState("RUNNING")) == (True, "Serving", "")
    assert _endpoint(FAILED) == (
        False,
        "DeployFailed",
        "ns_1.extractors.own is DEPLOY_FAILED: NotFoundError: no model",
    )
    assert _endpoint(ApplicationState("UNHEALTHY"))[1] == "Unhealthy"
    assert _endpoint(ApplicationState("DEPLOYING"))[1] == "Deploying"
    assert _endpoint(None)[1] == "Deploying"
    assert _endpoint(ApplicationState("RUNNING"), serving=False)[:2] == (False, "Deploying")
    assert _endpoint(ApplicationState("RUNNING"), updating=True)[:2] == (False, "Deploying")


def test_the_source_of_an_extractor_changes_only_with_its_version() -> None:
    old = extractor().spec
    other = {**old, "source": {"container_image": "own:2"}}
    assert [path for path, _ in immutable_changes(EXTRACTOR, old, other)] == [("source",)]
    assert immutable_changes(EXTRACTOR, old, {**other, "version": "2"}) == []
    assert immutable_changes(EXTRACTOR, old, {**old, "version": "2"}) == []


@pytest.mark.parametrize("field", ["ray_cluster_id", "ray_head_node_url", "ray_dashboard_url"])
def test_a_cluster_of_somebody_else_is_refused_because_jobs_carry_credentials(field: str) -> None:
    given = subject(compute_tier="shared", **{field: "http://ray.example.com"})
    found = compute.finding(given, compute.wanted(given), None)
    assert (found.ok, found.stalled) == (False, True)
    assert field in found.message
