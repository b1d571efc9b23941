"""Processors of text_extractor."""
