"""Namespace: one vector collection with the vectors and indexes its extractors and its users need."""

from __future__ import annotations

from mixpeek_operator.core.lifecycle import Kind
from mixpeek_operator.kinds.namespace import client, plan, spec, status

KIND = Kind(
    schema=spec.SCHEMA,
    want=plan.want,
    plan=plan.plan,
    status=status.status,
    client=client.NamespaceClient,
    # The Ray cluster of a namespace serves its realtime extractors.
    gathers=("Extractor",),
)
