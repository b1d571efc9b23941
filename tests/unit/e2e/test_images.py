"""Our Dockerfile, and the reader that builds its stages where there is no daemon."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml
from tests.e2e.archive import Image, pack
from tests.e2e.dockerfile import assignments, expand, read, words
from tests.e2e.images import REPOSITORY, Builder, mounts

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
    assert STAGES["operator"].base == "packages"
    assert STAGES["packages"].base == "base"
    assert instructions("operator", "COPY") == ["--from=program /opt/mixpeek /opt/mixpeek"]
    assert all("engine" not in script for stage in ("packages", "program") for script in instructions(stage, "RUN"))


def test_a_command_says_what_it_mounts() -> None:
    found, script = mounts("--mount=from=a,source=/b,target=/c --mount=type=cache,target=/root/.cache/uv  one && two")
    assert found == [
        {"from": "a", "source": "/b", "target": "/c"},
        {"type": "cache", "target": "/root/.cache/uv"},
    ]
    assert script == "one && two"
    with pytest.raises(ValueError, match="type=ssh is not understood"):
        mounts("--mount=type=ssh one")


def test_an_archive_holds_the_layers_as_its_configuration_says(tmp_path: Path) -> None:
    layers = [tmp_path / "below", tmp_path / "above"]
    for layer in layers:
        (layer / "etc").mkdir(parents=True)
        (layer / "etc" / layer.name).write_text(layer.name * 1000)
        (layer / f"{layer.name}.link").symlink_to("etc")
    images = {"a:1": Image(layers, "", user="65532"), "b:2": Image(layers[:1], "")}
    out = io.BytesIO()
    pack(images, out)
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        content = {entry.name: opened.read() for entry in archive if (opened := archive.extractfile(entry)) is not None}
    found = json.loads(content["manifest.json"])
    assert [entry["RepoTags"] for entry in found] == [["a:1"], ["b:2"]]
    assert len([name for name in content if name.endswith(".tar")]) == 2
    for entry, image in zip(found, images.values(), strict=True):
        config = json.loads(content[entry["Config"]])
        digests = [f"sha256:{hashlib.sha256(content[name]).hexdigest()}" for name in entry["Layers"]]
        assert config["rootfs"]["diff_ids"] == digests
        assert config["config"]["User"] == image.user
        for name, layer in zip(entry["Layers"], image.layers, strict=True):
            with tarfile.open(fileobj=io.BytesIO(content[name])) as packed:
                assert sorted(packed.getnames()) == sorted(["etc", f"etc/{layer.name}", f"{layer.name}.link"])
                opened = packed.extractfile(f"etc/{layer.name}")
                assert opened is not None
                assert opened.read() == (layer / "etc" / layer.name).read_bytes()


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
