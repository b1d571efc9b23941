"""Validate and plan of a manifest with 5,000 resources, against parsing the same file with PyYAML's C loader."""

from __future__ import annotations
