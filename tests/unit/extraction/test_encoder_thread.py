"""The encoder thread: batches by length, queries first, failures only where they belong."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from mixpeek_operator.core.errors import UnavailableError
from mixpeek_operator.extraction.worker import EncoderThread


class LengthEncoder:
    """A text becomes its length; records batches, fails on `boom`, and waits where it is told to."""

    id = "length@1"

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Event()

    def tokenize(self, texts: Sequence[str], purpose: str) -> list[list[int]]:
        return [[ord(letter) for letter in text] for text in texts]

    def forward(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        self.started.set()
        self.gate.wait(10)
        self.batches.append([len(ids) for ids in batch])
        if any(bytes(ids) == b"boom" for ids in batch):
            raise RuntimeError("boom")
        return [[float(len(ids))] for ids in batch]


@pytest.fixture
async def thread() -> AsyncIterator[EncoderThread]:
    thread = EncoderThread(batch_size=4, batch_tokens=40)
    yield thread
    await thread.close()


async def test_results_keep_the_order_of_the_inputs(thread: EncoderThread) -> None:
    texts = ["x" * (1 + number * 7 % 20) for number in range(50)]
    assert await thread.embed(LengthEncoder(), texts, "document") == [[float(len(text))] for text in texts]


async def test_batches_are_of_like_lengths_and_bounded(thread: EncoderThread) -> None:
    encoder = LengthEncoder()
    await thread.embed(encoder, ["x" * length for length in (1, 30, 2, 12, 13, 1, 2, 1, 50)], "document")
    assert encoder.batches == [[50], [30], [13, 12, 2], [2, 1, 1, 1]]


async def test_calls_that_wait_together_share_a_batch(thread: EncoderThread) -> None:
    encoder = LengthEncoder()
    encoder.gate.clear()
    first = thread.embed(encoder, ["x"], "query")
    await asyncio.to_thread(encoder.started.wait, 10)
    others = [thread.embed(encoder, ["xx"], "query") for _ in range(3)]
    encoder.gate.set()
    await asyncio.gather(first, *others)
    assert encoder.batches == [[1], [2, 2, 2]]


async def test_a_query_goes_between_two_batches_of_documents(thread: EncoderThread) -> None:
    encoder = LengthEncoder()
    encoder.gate.clear()
    documents = thread.embed(encoder, ["x" * 5] * 12, "document")
    await asyncio.to_thread(encoder.started.wait, 10)
    query = thread.embed(encoder, ["q"], "query")
    encoder.gate.set()
    await asyncio.gather(documents, query)
    assert encoder.batches == [[5] * 4, [1], [5] * 4, [5] * 4]


async def test_a_failure_is_told_to_its_callers_only(thread: EncoderThread) -> None:
    encoder = LengthEncoder()
    with pytest.raises(RuntimeError, match="boom"):
        await thread.embed(encoder, ["boom"], "document")
    assert await thread.embed(encoder, ["fine"], "document") == [[4.0]]


async def test_a_long_job_spans_windows(thread: EncoderThread) -> None:
    texts = ["x" * (1 + number % 3) for number in range(5000)]
    vectors = await thread.embed(LengthEncoder(), texts, "document")
    assert [vector[0] for vector in vectors] == [float(len(text)) for text in texts]


async def test_closing_fails_what_waits_and_refuses_more() -> None:
    thread = EncoderThread(batch_size=1, batch_tokens=10)
    encoder = LengthEncoder()
    encoder.gate.clear()
    waiting = thread.embed(encoder, ["a", "b", "c"], "document")
    await asyncio.to_thread(encoder.started.wait, 10)
    closing = asyncio.create_task(thread.close())
    await asyncio.sleep(0)
    encoder.gate.set()
    await closing
    with pytest.raises(UnavailableError):
        await waiting
    with pytest.raises(UnavailableError):
        thread.embed(encoder, ["d"], "document")
