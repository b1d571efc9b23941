"""What every Runner does: blocks in order, failures by row, vectors by index name, bounded read-ahead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from mixpeek_operator.core.errors import ModelUnavailableError, NotFoundError, SpecError
from mixpeek_operator.ports.compute import RowFailure, Runner, Segment, SourceRow
from mixpeek_operator.ports.vectors import SparseVector

DENSE = "text_extractor_v1_embedding"
SPARSE = "text_extractor_v1_sparse_embedding"


async def stream(*blocks: Sequence[SourceRow]) -> AsyncIterator[Sequence[SourceRow]]:
    for block in blocks:
        yield block


async def collect(
    runner: Runner,
    rows: AsyncIterator[Sequence[SourceRow]],
    parameters: Mapping[str, Any] | None = None,
    extractor: str = "text_extractor",
) -> list[list[Segment | RowFailure]]:
    results = runner.run(extractor=extractor, version="v1", parameters=parameters or {}, namespace_id="ns_a", rows=rows)
    return [list(block) async for block in results]


def text_rows(*texts: Any) -> list[SourceRow]:
    return [SourceRow(f"obj_{number}", {"text": text}) for number, text in enumerate(texts)]


async def test_a_text_becomes_a_segment_with_its_vectors(runner: Runner) -> None:
    [[segment]] = await collect(runner, stream(text_rows("A red car.")))
    assert isinstance(segment, Segment)
    assert (segment.source_id, segment.index, segment.fields) == ("obj_0", 0, {"text": "A red car."})
    assert set(segment.vectors) == {DENSE, SPARSE}
    assert len(segment.vectors[DENSE]) == 384  # type: ignore[arg-type]
    assert isinstance(segment.vectors[SPARSE], SparseVector)


async def test_each_block_answers_a_block_in_order(runner: Runner) -> None:
    blocks = [text_rows("a one", "b two"), [], text_rows("c three")]
    results = await collect(runner, stream(*blocks), {"sparse_embedding": False})
    assert [[made.fields["text"] for made in block] for block in results] == [  # type: ignore[union-attr]
        ["a one", "b two"],
        [],
        ["c three"],
    ]


async def test_segments_of_a_row_count_from_zero(runner: Runner) -> None:
    parameters = {"split_by": "words", "chunk_size": 2, "chunk_overlap": 1, "dense_embedding": False}
    [made] = await collect(runner, stream(text_rows("a b c", "d")), parameters)
    assert [(item.source_id, item.index, item.fields["text"]) for item in made] == [  # type: ignore[union-attr]
        ("obj_0", 0, "a b"),
        ("obj_0", 1, "b c"),
        ("obj_1", 0, "d"),
    ]


async def test_a_bad_row_fails_alone_and_in_its_place(runner: Runner) -> None:
    rows = [
        *text_rows("fine", ["no", "text"], b"\xff\xfe", "\ud800", b"bytes are text", 42),
        SourceRow("obj_empty", {}),
        SourceRow("obj_null", {"text": None}),
        SourceRow("obj_last", {"text": "fine too"}),
    ]
    [made] = await collect(runner, stream(rows))
    kinds = [item.error_type if isinstance(item, RowFailure) else item.fields["text"] for item in made]
    assert kinds == [
        "fine",
        "TypeError",
        "ValueError",
        "ValueError",
        "bytes are text",
        "42",
        "MissingInput",
        "MissingInput",
        "fine too",
    ]
    assert [item.source_id for item in made] == [row.id for row in rows]


async def test_a_text_without_content_makes_a_document_without_vectors(runner: Runner) -> None:
    [made] = await collect(runner, stream(text_rows("", " \n")), {"split_by": "sentences"})
    assert [(item.fields["text"].strip(), dict(item.vectors)) for item in made] == [("", {}), ("", {})]  # type: ignore[union-attr]


async def test_a_text_that_makes_too_many_chunks_fails(runner: Runner) -> None:
    parameters = {"split_by": "characters", "chunk_size": 1, "dense_embedding": False, "sparse_embedding": False}
    [[failure, fine]] = await collect(runner, stream(text_rows("x" * 10_001, "y")), parameters)
    assert isinstance(failure, RowFailure)
    assert "raise chunk_size" in failure.message
    assert isinstance(fine, Segment)


async def test_passthrough_keeps_every_value_and_its_type(runner: Runner) -> None:
    inputs = {"n": 1, "x": 1.5, "none": None, "flag": True, "list": [1, {"a": 2}], "text": "t", "big": 2**60}
    rows = [SourceRow("obj_0", inputs), SourceRow("obj_1", {"n": 2}), SourceRow("obj_2", {})]
    [made] = await collect(runner, stream(rows), extractor="passthrough_extractor")
    assert [item.fields for item in made] == [inputs, {"n": 2}, {}]  # type: ignore[union-attr]
    assert [dict(item.vectors) for item in made] == [{}, {}, {}]  # type: ignore[union-attr]
    assert all(type(made[0].fields[name]) is type(value) for name, value in inputs.items())  # type: ignore[union-attr]


async def test_a_missing_model_ends_the_run(runner_without_model: Runner) -> None:
    with pytest.raises(ModelUnavailableError, match="absent-model"):
        await collect(runner_without_model, stream(text_rows("a", "b")))


async def test_an_unknown_extractor_and_bad_parameters_end_the_run(runner: Runner) -> None:
    with pytest.raises(NotFoundError):
        await collect(runner, stream(), extractor="nothing_extractor")
    with pytest.raises(SpecError):
        await collect(runner, stream(), {"chunk_size": 0})


async def test_an_error_of_the_source_reaches_the_consumer(runner: Runner) -> None:
    async def broken() -> AsyncIterator[Sequence[SourceRow]]:
        yield text_rows("a")
        raise OSError("the store went away")

    with pytest.raises(OSError, match="went away"):
        await collect(runner, broken(), {"dense_embedding": False})


async def test_it_reads_one_block_ahead_and_stops_with_its_consumer(runner: Runner) -> None:
    read = 0

    async def endless() -> AsyncIterator[Sequence[SourceRow]]:
        nonlocal read
        while True:
            read += 1
            yield text_rows("a")

    results = runner.run(
        extractor="text_extractor",
        version="v1",
        parameters={"dense_embedding": False},
        namespace_id="ns_a",
        rows=endless(),
    )
    for expected in range(1, 4):
        await anext(results)
        await asyncio.sleep(0.1)
        assert read <= expected + 1
    await results.aclose()  # type: ignore[attr-defined]
    stopped = read
    await asyncio.sleep(0.1)
    assert read == stopped
