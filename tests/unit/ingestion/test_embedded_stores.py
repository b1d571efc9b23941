"""The same walks on the real vector store, and processes that are killed for real."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mixpeek_operator.adapters.qdrant_edge import QdrantEdgeVectors
from mixpeek_operator.core.filters import equals, parse
from mixpeek_operator.core.listing import ListQuery
from mixpeek_operator.ports.vectors import VectorParams, scroll_all

OBJECTS = 500

CHILD = """
    import asyncio, importlib.util, sys
    from pathlib import Path

    spec = importlib.util.spec_from_file_location("ingestion_world", sys.argv[1])
    module = importlib.util.module_from_spec(spec)
    sys.modules["ingestion_world"] = module
    spec.loader.exec_module(module)
    from mixpeek_operator.adapters.qdrant_edge import QdrantEdgeVectors

    async def main():
        world = module.World(Path(sys.argv[2]), vectors=QdrantEdgeVectors(Path(sys.argv[2]) / "vectors"))
        bucket = world.bucket()
        chunks = world.directory.add("chunks", bucket.id)
        world.directory.add("words", chunks.id, input_mappings={"text": "text"})

        async def slowly():
            await asyncio.sleep(0.02)

        world.runner.before = slowly
        print("ready", flush=True)
        await world.worker(lease_s=0.3).run(asyncio.Event())

    asyncio.run(main())
"""


async def edge(path: Path) -> QdrantEdgeVectors:
    vectors = QdrantEdgeVectors(path)
    dense = {"text_extractor_v1_embedding": VectorParams("dense", 2)}
    await vectors.create_collection("ns_aaaaaaaaaa", dense, labels={})
    for name in ("collection_id", "_internal.lineage.root_object_id"):
        await vectors.create_payload_index("ns_aaaaaaaaaa", name, "keyword")
    return vectors


@pytest.fixture
async def world(make_world: Callable[..., Any], tmp_path: Path) -> AsyncIterator[Any]:
    vectors = await edge(tmp_path / "vectors")
    made = make_world(tmp_path, vectors=vectors)
    yield made
    await vectors.close()
    await made.close()


async def stored(world: Any, collection: str) -> list[dict[str, Any]]:
    points = scroll_all(world.vectors, "ns_aaaaaaaaaa", filter=equals("collection_id", collection))
    return [dict(point.payload) async for point in points]


async def test_two_tiers_shrink_list_and_delete(world: Any) -> None:
    bucket = world.bucket()
    chunks = world.directory.add("chunks", bucket.id)
    world.directory.add("words", chunks.id, input_mappings={"text": "text"})
    ids = await world.fill(bucket.id, [f"one {number}\ntwo {number}" for number in range(60)] + ["bad"])
    batch = await world.process(bucket.id, ids)
    assert batch["status"] == "COMPLETED_WITH_ERRORS"
    assert len(await stored(world, "col_chunks")) == len(await stored(world, "col_words")) == 120
    await world.objects.update(world.scope, bucket.id, ids[0], {"content": "short"})
    await world.process(bucket.id, ids)
    assert len(await stored(world, "col_words")) == 119
    regex = parse({"AND": [{"field": "title", "value": "t7"}, {"field": "text", "operator": "regex", "value": "^two"}]})
    page = await world.documents.list(world.scope, "words", ListQuery(filters=regex, include_total=True))
    assert [item["text"] for item in page.items] == ["two 7"] and page.total == 1
    groups = await world.documents.list(world.scope, "words", ListQuery(limit=5), group_by="title")
    assert groups.total == 60 and groups.items[0]["count"] == 2
    await world.objects.delete(world.scope, bucket.id, ids[1])
    assert len(await stored(world, "col_words")) == 117


@pytest.mark.slow
async def test_killed_twenty_times_each_document_exists_once(make_world: Callable[..., Any], tmp_path: Path) -> None:
    vectors = await edge(tmp_path / "vectors")
    world = make_world(tmp_path, vectors=vectors)
    bucket = world.bucket()
    chunks = world.directory.add("chunks", bucket.id)
    world.directory.add("words", chunks.id, input_mappings={"text": "text"})
    ids = await world.fill(bucket.id, [f"one {n}\ntwo {n}" if n % 2 else f"only {n}" for n in range(OBJECTS)])
    batch_id = await world.submit(bucket.id, ids)
    await vectors.close()
    await world.close()
    script = tmp_path / "child.py"
    script.write_text(textwrap.dedent(CHILD))
    chance = random.Random(7)
    for _ in range(20):
        await asyncio.to_thread(_run_and_kill, script, tmp_path, chance.uniform(0.0, 0.5))
    await asyncio.sleep(0.4)
    vectors = QdrantEdgeVectors(tmp_path / "vectors")
    world = make_world(tmp_path, vectors=vectors)
    world.bucket()
    world.directory.kept = {"col_chunks": chunks}
    world.directory.add("words", chunks.id, input_mappings={"text": "text"})
    await world.worker().run_until_idle()
    batch = await world.batches.get(world.scope, bucket.id, batch_id)
    assert batch["status"] == "COMPLETED"
    for collection in ("col_chunks", "col_words"):
        documents = await stored(world, collection)
        assert len(documents) == OBJECTS * 3 // 2
        assert {item["_internal"]["lineage"]["root_object_id"] for item in documents} == set(ids)
    assert batch["documents_written"] == 2 * (OBJECTS * 3 // 2)
    await vectors.close()
    await world.close()


def _run_and_kill(script: Path, data: Path, after_s: float) -> None:
    conftest = Path(__file__).with_name("conftest.py")
    package = Path(__file__).parents[3] / "operator"
    child = subprocess.Popen(
        [sys.executable, str(script), str(conftest), str(data)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(package)},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    time.sleep(after_s)
    child.send_signal(signal.SIGKILL)
    child.communicate()
