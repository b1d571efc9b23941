"""Bucket: objects of one schema under a storage prefix."""

from __future__ import annotations

from mixpeek_operator.core.lifecycle import Kind
from mixpeek_operator.kinds.bucket.client import BucketClient
from mixpeek_operator.kinds.bucket.plan import plan, want
from mixpeek_operator.kinds.bucket.spec import SCHEMA
from mixpeek_operator.kinds.bucket.status import status

KIND = Kind(schema=SCHEMA, want=want, plan=plan, status=status, client=BucketClient)
