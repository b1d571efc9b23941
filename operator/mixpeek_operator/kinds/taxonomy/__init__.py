"""Taxonomy: checked against the retrievers and collections it refers to."""

from __future__ import annotations

from mixpeek_operator.core.lifecycle import Kind
from mixpeek_operator.kinds.taxonomy.client import TaxonomyClient
from mixpeek_operator.kinds.taxonomy.plan import plan, want
from mixpeek_operator.kinds.taxonomy.spec import SCHEMA
from mixpeek_operator.kinds.taxonomy.status import status

KIND = Kind(schema=SCHEMA, want=want, plan=plan, status=status, client=TaxonomyClient)
