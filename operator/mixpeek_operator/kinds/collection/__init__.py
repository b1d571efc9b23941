"""Collection: its vectors and indexes in the namespace's vector collection, and its documents."""

from __future__ import annotations

from mixpeek_operator.core.lifecycle import Kind
from mixpeek_operator.kinds.collection.client import CollectionClient
from mixpeek_operator.kinds.collection.plan import plan, want
from mixpeek_operator.kinds.collection.spec import SCHEMA
from mixpeek_operator.kinds.collection.status import status

KIND = Kind(schema=SCHEMA, want=want, plan=plan, status=status, client=CollectionClient)
