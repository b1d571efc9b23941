"""Extractor: an archive or image, checked before anything uses it."""

from __future__ import annotations

from mixpeek_operator.core.lifecycle import Kind
from mixpeek_operator.kinds.extractor.client import ExtractorClient
from mixpeek_operator.kinds.extractor.plan import plan, want
from mixpeek_operator.kinds.extractor.spec import SCHEMA
from mixpeek_operator.kinds.extractor.status import status

KIND = Kind(schema=SCHEMA, want=want, plan=plan, status=status, client=ExtractorClient)
