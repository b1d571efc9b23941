"""Cluster: checked against the collections it groups."""

from __future__ import annotations

from mixpeek_operator.core.lifecycle import Kind
from mixpeek_operator.kinds.cluster.client import ClusterClient
from mixpeek_operator.kinds.cluster.plan import plan, want
from mixpeek_operator.kinds.cluster.spec import SCHEMA
from mixpeek_operator.kinds.cluster.status import status

KIND = Kind(schema=SCHEMA, want=want, plan=plan, status=status, client=ClusterClient)
