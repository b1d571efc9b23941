"""Retriever: compiled and checked against the collections it searches."""

from __future__ import annotations

from mixpeek_operator.core.lifecycle import Kind
from mixpeek_operator.kinds.retriever.client import RetrieverClient
from mixpeek_operator.kinds.retriever.plan import plan, want
from mixpeek_operator.kinds.retriever.spec import SCHEMA
from mixpeek_operator.kinds.retriever.status import status

KIND = Kind(schema=SCHEMA, want=want, plan=plan, status=status, client=RetrieverClient)
