"""`operator`: reconcile the custom resources of a Kubernetes cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

KubeconfigOption = Annotated[Path | None, typer.Option("--kubeconfig", help="How to reach the cluster.")]
NamespaceOption = Annotated[
    list[str] | None, typer.Option("--namespace", "-n", help="Kubernetes namespace to work in; repeat it. Every one.")
]
LeaseOption = Annotated[str | None, typer.Option("--lease", help="Lease by which one of several operators works.")]
LeaseNamespaceOption = Annotated[str | None, typer.Option("--lease-namespace", help="Where that Lease is.")]
HostOption = Annotated[str | None, typer.Option("--probe-host", help="Address of the probes and metrics.")]
PortOption = Annotated[int | None, typer.Option("--probe-port", help="Port of the probes and metrics.")]


def operator(
    kubeconfig: KubeconfigOption = None,
    namespace: NamespaceOption = None,
    lease: LeaseOption = None,
    lease_namespace: LeaseNamespaceOption = None,
    probe_host: HostOption = None,
    probe_port: PortOption = None,
) -> None:
    """Reconcile the custom resources of a Kubernetes cluster until told to stop. Replicas stand by."""
    from mixpeek_operator.cli.operating import run

    run(
        kubeconfig=kubeconfig,
        namespace=",".join(namespace) if namespace else None,
        lease=lease,
        lease_namespace=lease_namespace,
        probe_host=probe_host,
        probe_port=probe_port,
    )


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(operator)
