"""The runner with archives as others write them: what a processor may do, and what happens when it fails."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mixpeek_operator.core.errors import RefusedError
from mixpeek_operator.extraction import sdk
from mixpeek_operator.extraction.archive import Archive, load_archive
from mixpeek_operator.extraction.models.registry import ModelRegistry
from mixpeek_operator.extraction.registry import ExtractorRegistry
from mixpeek_operator.extraction.runner import InProcessRunner
from mixpeek_operator.ports.compute import RowFailure, Segment, SourceRow

pytest.importorskip("pandas", reason="needs mixpeek-operator[models]")

MANIFEST = """
from pydantic import BaseModel, ConfigDict

class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")
    condition: str = "always"
    keep_rows: bool = True

feature_extractor_name = "toy_extractor"
version = "1.0.0"
parameter_schema = Params
features = [{"feature_type": "embedding", "feature_name": "toy", "embedding_dim": 2}]
output_schema = {"length": {"type": "integer"}}
compute_profile = {"batch_size": 4}
"""
PIPELINE = """
import pandas as pd
from mixpeek_operator.extraction.sdk import PipelineDefinition, RowCondition, StepDefinition, build_pipeline_steps

calls = []

class Measure:
    def __init__(self, config):
        self.config = config

    def __call__(self, batch):
        texts = batch["data"].tolist()
        calls.append(len(texts))
        if "boom" in texts:
            raise ValueError("cannot measure boom")
        batch["toy"] = [[len(text), 0.5] if text != "wide" else [1.0, 2.0, 3.0] for text in texts]
        batch["length"] = [len(text) for text in texts]
        if not self.config["keep_rows"]:
            batch = pd.DataFrame({"toy": batch["toy"], "length": batch["length"]})
        return batch

class Off:
    def __init__(self, config):
        raise AssertionError("a step that is off is not built")

def build_steps(extractor_request, container=None, **kwargs):
    parameters = dict(extractor_request.extractor_config.parameters)
    condition = RowCondition(parameters.get("condition", "always"))
    config = {"keep_rows": parameters.get("keep_rows", True)}
    steps = [
        StepDefinition(service_class=Measure, condition=condition, config=config),
        StepDefinition(service_class=Off, enabled=False),
    ]
    return {"steps": build_pipeline_steps(PipelineDefinition(name="toy", version="1.0.0", steps=steps))}
"""


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    folder = tmp_path / "toy_extractor"
    folder.mkdir()
    for name, text in (("__init__", ""), ("manifest", MANIFEST), ("pipeline", PIPELINE)):
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield load_archive("toy_extractor")
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy_extractor"]:
        del sys.modules[name]


class NoInference:
    """The toy needs no model."""

    async def embed(self, model: str, inputs: Sequence[str], *, purpose: str, namespace_id: str) -> list:
        raise AssertionError("not called")

    async def identity(self, model: str, *, namespace_id: str) -> str:
        raise AssertionError("not called")

    async def health(self) -> None: ...
    async def close(self) -> None: ...


async def run(archive: Archive, *texts: object, **parameters: object) -> list[Segment | RowFailure]:
    registry = ExtractorRegistry(ModelRegistry(default="all-MiniLM-L6-v2"), [archive])

    async def rows() -> AsyncIterator[Sequence[SourceRow]]:
        yield [SourceRow(f"obj_{number}", {"content": text}) for number, text in enumerate(texts)]

    blocks = InProcessRunner(registry, NoInference()).run(
        extractor="toy_extractor", version="1.0.0", parameters=parameters, namespace_id="ns_a", rows=rows()
    )
    return [result async for block in blocks for result in block]


async def test_columns_become_fields_and_features_become_vectors(archive: Archive) -> None:
    [segment] = await run(archive, "abc")
    assert segment == Segment("obj_0", 0, {"length": 3}, {"toy_extractor_1_0_0_toy": [3, 0.5]})


async def test_a_row_that_raises_is_found_by_halving_and_the_rest_is_done(archive: Archive) -> None:
    results = await run(archive, "a", "b", "boom", "d", "e")
    assert results[2] == RowFailure("obj_2", "ValueError", "cannot measure boom")
    assert [result.fields["length"] for result in results if isinstance(result, Segment)] == [1, 1, 1, 1]
    assert sys.modules["toy_extractor.pipeline"].calls == [4, 2, 2, 1, 1, 1]


async def test_a_vector_of_the_wrong_size_fails_its_row(archive: Archive) -> None:
    results = await run(archive, "a", "wide")
    assert isinstance(results[0], Segment)
    assert results[1] == RowFailure("obj_1", "SpecError", "toy has 3 dimensions, not 2")


async def test_a_processor_may_return_only_its_own_columns(archive: Archive) -> None:
    results = await run(archive, "a", "bc", keep_rows=False)
    assert [result.fields for result in results] == [{"length": 1}, {"length": 2}]  # type: ignore[union-attr]


async def test_a_step_sees_only_the_rows_of_its_condition(archive: Archive) -> None:
    results = await run(archive, b"\x00", "ab", condition="is_text")
    assert [result.source_id for result in results] == ["obj_0", "obj_1"]
    assert "toy_extractor_1_0_0_toy" not in results[0].vectors  # type: ignore[union-attr]
    assert results[1].fields == {"length": 2}  # type: ignore[union-attr]


async def test_code_of_a_customer_never_runs_in_this_process(archive: Archive) -> None:
    with pytest.raises(RefusedError, match="never in this process"):
        await run(replace(archive, source="custom"), "a")
    assert "toy_extractor.pipeline" not in sys.modules


def test_the_vocabulary_of_customers_is_all_there() -> None:
    for names in sdk.CUSTOMER_MODULES.values():
        assert all(hasattr(sdk, name) for name in names)


def test_io_and_calls_keep_their_order() -> None:
    async def double(number: int) -> int:
        return 2 * number

    assert sdk.parallel_io([1, 2, 3], lambda number: number + 1) == {0: 2, 1: 3, 2: 4}
    assert sdk.concurrent_api_calls([1, 2, 3], double, max_concurrent=2) == [2, 4, 6]


@pytest.mark.parametrize(
    ("condition", "mime_type", "seen"),
    [
        ("always", None, True),
        ("is_text", "text/plain", True),
        ("is_image", "text/plain", False),
        ("is_pdf", "application/pdf", True),
        ("is_video", "video/mp4", True),
        ("is_audio", None, False),
    ],
)
def test_row_conditions(condition: str, mime_type: str | None, seen: bool) -> None:
    assert sdk.RowCondition(condition).matches(mime_type) is seen
