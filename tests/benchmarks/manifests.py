"""Validate and plan of a manifest with 5,000 resources, against parsing the same file with PyYAML's C loader."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import yaml

from mixpeek_operator.core.settings import Settings
from mixpeek_operator.main import system
from tests.benchmarks.manifest_text import manifest
from tests.benchmarks.measure import Row, milliseconds, paired

RESOURCES = 5000


def run(quick: bool) -> list[Row]:
    """Measure the service itself: reading, every check, references, order and the plan."""
    return asyncio.run(_measure(3 if quick else 9))


async def _measure(repeat: int) -> list[Row]:
    text = manifest(RESOURCES)
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as folder:
        async with system(Settings(data=Path(folder))) as running:
            organization = running.bootstrap.organization

            def ours() -> None:
                call = running.services.manifest.validate(organization, [("large.yaml", text)])
                answer: dict[str, Any] = asyncio.run_coroutine_threadsafe(call, loop).result()
                if not answer["valid"]:
                    raise RuntimeError(str(answer["errors"][:3]))

            def bare() -> None:
                yaml.load(text, Loader=yaml.CSafeLoader)

            mine, parsing = await asyncio.to_thread(paired, ours, bare, repeat=repeat, warm_up=1)
    return [
        Row(
            f"validate + plan of {RESOURCES:,} resources",
            milliseconds(mine),
            f"{milliseconds(parsing)} yaml.CSafeLoader",
            f"{mine.median / parsing.median:.2f} ×",
            "≤ 2 ×",
        )
    ]
