"""Our Dockerfile, and the reader that builds its stages where there is no daemon."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml
from tests.e2e.dockerfile import assignments, expand, read, words
from tests.e2e.images import REPOSITORY, Builder

STAGES = read(REPOSITORY / "Dockerfile")


def instructions(stage: str, word: str) -> list[str]:
    return [item.text for item in STAGES[stage].instructions if item.word == word]


@pytest.mark.parametrize("stage", ["operator", "engine"])
def test_an_image_has_no_privilege_and_starts_without_a_shell(stage: str) -> None:
    assert instructions(stage, "USER") == ["65532:65532"]
    assert words(instructions(stage, "CMD")[-1])
    assert words(instructions(stage, "ENTRYPOINT")[-1]) == ([] if stage == "engine" else ["mixpeekctl"])


def test_every_package_is_pinned_with_its_hash() -> None:
    for stage in STAGES:
        for script in instructions(stage, "RUN"):
            for command in script.split("&&"):
                if "pip install" in command:
                    assert "--require-hashes" in command or "--no-deps /wheels/" in command


def test_no_stage_is_built_on_another_than_our_own_base() -> None:
    assert {stage.base for stage in STAGES.values()} - STAGES.keys() == {"debian:bookworm-slim"}


def test_the_small_image_holds_nothing_of_the_large_one() -> None:
    ours = ["--from=packages /opt/mixpeek /opt/mixpeek", "--from=program /opt/mixpeek /opt/mixpeek"]
    assert instructions("operator", "COPY") == ours
    assert all("engine" not in script for stage in ("packages", "program") for script in instructions(stage, "RUN"))


def test_chart_and_package_have_one_version() -> None:
    chart = yaml.safe_load((REPOSITORY / "charts/mixpeek-operator/Chart.yaml").read_text())
    package = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert chart["version"] == chart["appVersion"] == package


def test_what_is_not_understood_is_an_error_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text('ARG BASE=a\nFROM ${BASE} AS x\nRUN one \\\n    && two\n# no\nENV A=1 B="two words"\n')
    stage = read(file)["x"]
    assert stage.base == "a"
    assert stage.instructions[0].text == "one      && two"
    assert assignments(stage.instructions[1].text) == {"A": "1", "B": "two words"}
    assert expand("$A-${B}-$C", {"A": "1", "B": "2"}) == "1-2-"
    file.write_text("FROM a\n\nVOLUME /data\n")
    with pytest.raises(ValueError, match="line 3: VOLUME is not understood"):
        read(file)
    with pytest.raises(ValueError, match="JSON list"):
        words("mixpeekctl serve")


def test_only_what_docker_would_send_is_copied(tmp_path: Path) -> None:
    for name in ("operator/a.py", "operator/__pycache__/a.pyc", "tests/b.py", "Dockerfile", ".dockerignore"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "Dockerfile").write_text("FROM a AS b\nCOPY operator/ operator/\n")
    (tmp_path / ".dockerignore").write_text((REPOSITORY / ".dockerignore").read_text())
    builder = Builder(tmp_path / "work", tmp_path / "Dockerfile")
    assert list(builder._files("operator/")) == ["operator/a.py"]
    assert list(builder._files("tests/")) == []
