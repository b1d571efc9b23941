"""Namespace: one vector collection with the vectors and indexes its extractors and its users need."""

from __future__ import annotations

from mixpeek_operator.core.lifecycle import Kind
from mixpeek_operator.kinds.namespace.client import NamespaceClient
from mixpeek_operator.kinds.namespace.plan import plan, want
from mixpeek_operator.kinds.namespace.spec import SCHEMA
from mixpeek_operator.kinds.namespace.status import status

KIND = Kind(schema=SCHEMA, want=want, plan=plan, status=status, client=NamespaceClient)
