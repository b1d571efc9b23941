"""What processes on Ray have to know of the server's settings."""

from __future__ import annotations

from mixpeek_operator.core.settings import Settings

_SHARED = (
    "blobs_url",
    "blobs_endpoint_url",
    "embedding_model",
    "embedding_batch_size",
    "embedding_threads",
    "model_hub",
    "ray_workers",
    "ray_worker_cpus",
    "ray_worker_gpus",
)
"""Settings of the server that hold for its jobs, too; paths are the image's own."""


def variables(settings: Settings) -> dict[str, str]:
    """Return them as variables; credentials are not among them."""
    named = {name: getattr(settings, name) for name in _SHARED}
    return {f"MIXPEEK_{name.upper()}": str(value) for name, value in named.items() if value is not None}
