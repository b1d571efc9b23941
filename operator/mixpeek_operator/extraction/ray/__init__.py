"""Extraction and inference on Ray. Only this folder imports ray, and only inside functions; needs the extra `ray`."""
