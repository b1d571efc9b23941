"""Bucket: objects of one schema under a storage prefix."""

from __future__ import annotations

from mixpeek_operator.core.lifecycle import Kind
from mixpeek_operator.kinds.bucket import client, plan, spec, status

KIND = Kind(schema=spec.SCHEMA, want=plan.want, plan=plan.plan, status=status.status, client=client.BucketClient)
