"""Collection: its vectors and indexes in the namespace's vector collection, and its documents."""

from __future__ import annotations

from mixpeek_operator.core.lifecycle import Kind
from mixpeek_operator.kinds.collection import client, plan, spec, status

KIND = Kind(schema=spec.SCHEMA, want=plan.want, plan=plan.plan, status=status.status, client=client.CollectionClient)
