"""What an extractor says of itself. Pure."""

from __future__ import annotations

from enum import StrEnum

from mixpeek_operator.core.conditions import Finding
from mixpeek_operator.core.lifecycle import Report, Subject
from mixpeek_operator.extraction.features import features_of
from mixpeek_operator.extraction.ray import applications
from mixpeek_operator.kinds.extractor.plan import Have, Want, on_own_machines
from mixpeek_operator.ports.machines import FAILED, RUNNING, Application, ClusterState

_LOOK_AGAIN_S = 5.0


class Reason(StrEnum):
    """Why an extractor's own conditions are what they are."""

    LOADED = "Loaded"
    """ArchiveReady surfaces it when the extractor can be used by collections."""
    NOT_UPLOADED = "ArchiveNotUploaded"
    """Surfaces when the source is no uploaded archive."""
    ARCHIVE_MISSING = "ArchiveMissing"
    """Surfaces when no file is stored under the declared key."""
    HASH_MISMATCH = "ArchiveHashMismatch"
    """Surfaces when the stored file has another hash than declared."""
    NOT_LOADED = "ArchiveNotLoaded"
    """Surfaces when the archive is there and no runner of this server has taken it up."""
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    """Surfaces when a container image is asked for where none can run."""
    IN_IMAGE = "InImage"
    """ArchiveReady surfaces it when the code is in an image that the namespace's Ray cluster runs."""
    SERVING = "Serving"
    """EndpointReady surfaces it when the declared version answers queries."""
    DEPLOYING = "Deploying"
    """Surfaces while the application is made or replaced; a version before it goes on answering."""
    DEPLOY_FAILED = "DeployFailed"
    """Surfaces when Ray Serve could not deploy the application."""
    UNHEALTHY = "Unhealthy"
    """Surfaces when the application was deployed and fails its health check."""
    NOT_SERVED = "NotServed"
    """Surfaces when the extractor is realtime and nothing could serve it."""


def status(subject: Subject, want: Want | None, have: Have) -> Report:
    """Return whether the extractor can be used, and its facts."""
    if want is None:
        return Report()
    name, version = subject.resource.name, str(subject.spec.get("version"))
    facts: dict[str, object] = {"plugin_id": f"{name}_{version.replace('.', '_')}"}
    if have.archive is not None:
        facts["archive_sha256"] = have.archive.sha256
    info = subject.catalog.extractors().get((name, version))
    facts["deployed"] = info is not None
    if info is not None:
        facts["feature_uris"] = [item.uri for item in features_of(name, version, info.vector_indexes)]
    findings = [_archive(subject, want, have)]
    if not subject.spec.get("realtime") or not on_own_machines(subject):
        return Report(tuple(findings), facts)
    application, cluster = want.application, have.cluster
    if application is not None and cluster is not None:
        facts["endpoint"] = f"{cluster.serve_url}{application.route}"
        state = cluster.applications.get(application.name)
        facts["serve_status"] = state.status if state is not None else None
    findings.append(_endpoint(subject, application, cluster))
    return Report(tuple(findings), facts, None if findings[-1].ok else _LOOK_AGAIN_S)


def _endpoint(subject: Subject, application: Application | None, cluster: ClusterState | None) -> Finding:
    def no(reason: Reason, message: str, *, stalled: bool = False) -> Finding:
        return Finding("EndpointReady", False, reason, message, stalled)

    if application is None:
        variables = applications.mixed(subject.spec.get("environment") or {})
        if variables:
            message = f"environment.{variables[0]}: a placeholder of a secret must be the whole value"
        else:
            message = "there is no code to serve; name an image based on the engine's in source.container_image"
        return no(Reason.NOT_SERVED, message, stalled=True)
    if cluster is None:
        return no(Reason.DEPLOYING, "waits for the Ray cluster of its namespace")
    state = cluster.applications.get(application.name)
    if state is None:
        return no(Reason.DEPLOYING, f"waits for Ray cluster {cluster.name} to deploy {application.name}")
    if state.status in FAILED:
        reason = Reason.DEPLOY_FAILED if state.status == "DEPLOY_FAILED" else Reason.UNHEALTHY
        return no(reason, f"{application.name} is {state.status}: {state.last_line or 'no reason given'}")
    if state.status != RUNNING or not cluster.serving or cluster.updating:
        return no(Reason.DEPLOYING, f"{application.name} is {state.status} on Ray cluster {cluster.name}")
    return Finding("EndpointReady", True, Reason.SERVING)


def _archive(subject: Subject, want: Want, have: Have) -> Finding:
    def no(reason: Reason, message: str) -> Finding:
        return Finding("ArchiveReady", False, reason, message, stalled=True)

    name, version = subject.resource.name, str(subject.spec.get("version"))
    if (name, version) in subject.catalog.extractors():
        return Finding("ArchiveReady", True, Reason.LOADED)
    source = subject.spec.get("source") or {}
    if source.get("container_image"):
        if want.application is not None:
            return Finding("ArchiveReady", True, Reason.IN_IMAGE)
        if on_own_machines(subject):
            message = (
                "code in an image answers queries and runs in no batch; set realtime, or use the engine's extractors"
            )
            return no(Reason.IMAGE_UNAVAILABLE, message)
        return no(
            Reason.IMAGE_UNAVAILABLE, "a container image needs a namespace with a dedicated compute tier on Kubernetes"
        )
    if want.blob is None:
        return no(Reason.NOT_UPLOADED, "the archive was not uploaded; upload it and set source.blob to its key")
    if have.archive is None:
        return no(Reason.ARCHIVE_MISSING, f"no archive is stored under {want.blob}; upload it")
    if want.sha256 and have.archive.sha256 and have.archive.sha256 != want.sha256:
        found = have.archive.sha256
        return no(Reason.HASH_MISMATCH, f"the archive has the hash {found}, declared is {want.sha256}; upload it again")
    return no(Reason.NOT_LOADED, f"this server has no runner for custom code, so {name}@{version} cannot be used")
