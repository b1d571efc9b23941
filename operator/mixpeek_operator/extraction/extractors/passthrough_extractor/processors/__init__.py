"""Processors of passthrough_extractor."""
