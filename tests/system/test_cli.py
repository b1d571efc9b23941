"""Every command of `mixpeekctl` against a real server: what it prints, in every form, and how it exits."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.servers.mixpeek import KEY, Server, free_port

from mixpeek_operator.cli.app import main

NAMESPACE = "cli_shop"
SPACE = """version: "1.0"
metadata: {name: cli}
namespaces:
  - name: cli_shop
    feature_extractors: [{name: text_extractor, version: v1}, {name: passthrough_extractor, version: v1}]
buckets:
  - name: notes
    namespace: cli_shop
    schema:
      properties:
        text: {type: text, required: true}
        topic: {type: string}
"""
SEARCH = """version: "1.0"
metadata: {name: cli}
collections:
  - name: notes
    namespace: cli_shop
    source: {type: bucket, bucket_ids: [notes]}
    feature_extractor:
      feature_extractor_name: text_extractor
      version: v1
      input_mappings: {text: text}
      field_passthrough: [{source_path: topic}]
retrievers:
  - name: ask
    namespace: cli_shop
    collection_identifiers: [notes]
    input_schema: {query: {type: text, required: true}}
    stages:
      - stage_name: search
        stage_type: filter
        config:
          stage_id: feature_search
          parameters:
            searches:
              - feature_uri: mixpeek://text_extractor@v1/text_embedding
                query: {input_mode: text, value: "{{INPUT.query}}"}
                top_k: 5
"""
COMMANDS = [
    "serve",
    "up",
    "apply",
    "validate",
    "lint",
    "diff",
    "export",
    "convert",
    "generate",
    "get",
    "describe",
    "wait",
    "delete",
    "upload",
    "batch",
    "execute",
    "explain",
]
SCREEN = 80


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def yaml(self) -> Any:
        return yaml.safe_load(self.out)


class Ctl:
    """Runs `mixpeekctl` in this process, as the entry point does."""

    def __init__(self, url: str, key: str = KEY) -> None:
        self._environment = {"MIXPEEK_SERVER": url, "MIXPEEK_API_KEY": key, "COLUMNS": str(SCREEN)}

    def __call__(self, *arguments: object, answer: str = "") -> Ran:
        out, err = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            patch.delenv("MIXPEEK_NAMESPACE", raising=False)
            patch.setattr(sys, "stdin", io.StringIO(answer))
            for name, value in self._environment.items():
                patch.setenv(name, value)
            main([str(each) for each in arguments])
        return Ran(int(ended.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def ctl(live: Server) -> Ctl:
    return Ctl(live.url)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest in two files of one folder."""
    made = tmp_path_factory.mktemp("manifest")
    (made / "1-space.yaml").write_text(SPACE)
    (made / "2-search.yml").write_text(SEARCH)
    return made


@pytest.fixture(scope="module")
def shop(ctl: Ctl, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder, applied, with three notes ingested."""
    applied = ctl("apply", folder)
    assert applied.code == 0, applied
    assert "4 created, 0 updated, 0 skipped, 0 failed" in applied.out
    notes = tmp_path_factory.mktemp("notes")
    lines = [("Soup stays hot in a steel flask", "kitchen"), ("The moon is full tonight", "sky")]
    (notes / "lines.jsonl").write_text("\n".join(json.dumps({"text": a, "topic": b}) for a, b in lines) + "\n\n")
    (notes / "boots.txt").write_text("Grease your boots before the winter")
    put = ctl("upload", "notes", notes / "lines.jsonl", "-n", NAMESPACE)
    assert (put.code, put.out) == (0, "2 objects put into bucket notes\n"), put
    put = ctl("upload", "notes", notes / "boots.txt", "--property", "text", "--field", "topic=shoes", "-n", NAMESPACE)
    assert (put.code, put.out) == (0, "1 object put into bucket notes\n"), put
    done = ctl("batch", "notes", "-n", NAMESPACE)
    assert done.code == 0, done
    assert "COMPLETED" in done.out
    yield folder
    gone = ctl("delete", "--file", folder, "--yes")
    assert gone.code == 0, gone
    assert gone.out.splitlines()[-1] == "namespaces/cli_shop deleted"


def test_apply_twice_changes_nothing(ctl: Ctl, shop: Path) -> None:
    again = ctl("apply", shop, "-o", "json")
    assert (again.code, again.json["skipped_count"]) == (0, 4)
    assert {item["status"] for item in again.json["resources"]} == {"exists"}
    table = ctl("apply", shop)
    assert "0 created, 0 updated, 4 skipped, 0 failed" in table.out
    assert max(map(len, table.out.splitlines())) <= SCREEN


def test_a_dry_run_changes_nothing(ctl: Ctl, shop: Path, tmp_path: Path) -> None:
    file = tmp_path / "more.yaml"
    file.write_text(
        f'version: "1.0"\nbuckets:\n  - {{name: extra, namespace: {NAMESPACE}, schema: {{properties: {{}}}}}}\n'
    )
    ran = ctl("apply", "--dry-run", file)
    assert ran.code == 0, ran
    assert "1 would be created, nothing was changed" in ran.out
    assert ctl("get", "bucket", "extra", "-n", NAMESPACE).code == 2


def test_validate_says_where_every_mistake_is(ctl: Ctl, shop: Path, tmp_path: Path) -> None:
    assert ctl("validate", shop).out.startswith("valid: 1 namespace, 1 bucket, 1 collection, 1 retriever")
    (tmp_path / "one.yaml").write_text(SPACE.replace("type: text,", "type: txet,"))
    (tmp_path / "two.yaml").write_text(SEARCH.replace("bucket_ids: [notes]", "bucket_ids: [notse]"))
    wrong = ctl("validate", tmp_path)
    assert wrong.code == 1
    assert "one.yaml:11:" in wrong.err
    assert "two.yaml:6:" in wrong.err
    assert "Traceback" not in wrong.err
    as_json = ctl("validate", tmp_path, "-o", "json")
    assert (as_json.code, as_json.json["valid"]) == (1, False)
    assert ctl("validate", tmp_path, "-o", "yaml").yaml == as_json.json


def test_apply_refuses_what_validate_refuses(ctl: Ctl, shop: Path, tmp_path: Path) -> None:
    (tmp_path / "not.yaml").write_text("a: [1,\nb: }")
    ran = ctl("apply", tmp_path / "not.yaml")
    assert ran.code in (1, 2)
    assert "not.yaml:2:" in ran.err


def test_parameters_are_passed(ctl: Ctl, shop: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        'version: "1.0"\nparameters:\n  - {name: what, type: string}\n'
        f"buckets:\n  - name: p_bucket\n    namespace: {NAMESPACE}\n    description: ${{{{ params.what }}}}\n"
        "    schema: {properties: {}}\n"
    )
    assert ctl("validate", file).code == 1
    assert ctl("validate", file, "--param", "what=tents").code == 0
    applied = ctl("apply", file, "-p", "what=tents")
    assert applied.code == 0, applied
    assert ctl("get", "bucket", "p_bucket", "-n", NAMESPACE, "-o", "json").json["spec"]["description"] == "tents"
    assert ctl("diff", file, "--param", "what=tents").code == 0
    assert ctl("diff", file, "--param", "what=boots").code == 1
    broken = ctl("validate", file, "--param", "what")
    assert (broken.code, broken.err) == (2, "error: --param takes NAME=VALUE, got 'what'\n")
    assert ctl("delete", "bucket", "p_bucket", "-n", NAMESPACE, "-y").code == 0


def test_lint(ctl: Ctl, shop: Path) -> None:
    found = ctl("lint", shop)
    assert found.code == 0
    assert max(map(len, found.out.splitlines())) <= SCREEN
    rules = {item["code"] for item in ctl("lint", shop, "-o", "json").json["results"]}
    assert rules
    skipped = [part for rule in rules for part in ("--skip-rule", rule)]
    assert ctl("lint", shop, *skipped).out == "nothing to complain about\n"


def test_diff_exits_as_kubectl_diff(ctl: Ctl, shop: Path, tmp_path: Path) -> None:
    same = ctl("diff", shop)
    assert (same.code, same.out) == (0, "no differences\n")
    changed = tmp_path / "changed.yaml"
    changed.write_text(SPACE.replace("- name: notes", "- name: notes\n    description: What people write"))
    ran = ctl("diff", changed)
    assert ran.code == 1
    assert "update" in ran.out
    assert "description" in ran.out
    assert ctl("diff", changed, "-o", "json").json["differences"]
    changed.write_text("nothing: [")
    assert ctl("diff", changed).code == 2
    assert ctl("diff", tmp_path / "absent.yaml").code == 2


def test_export_and_convert_lose_nothing(ctl: Ctl, shop: Path, tmp_path: Path) -> None:
    text = ctl("export", "-n", NAMESPACE).out
    assert "ns_" not in text
    (tmp_path / "exported.yaml").write_text(text)
    assert ctl("diff", tmp_path / "exported.yaml").code == 0
    assert ctl("export", "-n", NAMESPACE, "-o", "json").json["namespaces"][0]["name"] == NAMESPACE
    written = ctl("export", "-n", NAMESPACE, "--file", tmp_path / "written.yaml")
    assert (tmp_path / "written.yaml").read_text() == text, written

    documents = ctl("convert", tmp_path / "exported.yaml")
    assert documents.code == 0, documents
    kinds = [item["kind"] for item in yaml.safe_load_all(documents.out)]
    assert set(kinds) >= {"Namespace", "Bucket", "Collection", "Retriever"}
    (tmp_path / "kubernetes.yaml").write_text(documents.out)
    back = ctl("convert", tmp_path / "kubernetes.yaml", "--to", "manifest")
    assert yaml.safe_load(back.out) == yaml.safe_load(text)
    listed = ctl("convert", tmp_path / "exported.yaml", "-o", "json").json
    assert [item["kind"] for item in listed["items"]] == kinds
    assert ctl("convert", tmp_path / "exported.yaml", "--to", "stone").code == 2
    (tmp_path / "bytes.yaml").write_bytes(b"name: \xff")
    assert "bytes.yaml: not UTF-8 at byte 6" in ctl("convert", tmp_path / "bytes.yaml").err


def test_generate_says_what_to_configure(ctl: Ctl) -> None:
    ran = ctl("generate", "search for my notes")
    assert ran.code == 2
    assert "MIXPEEK_LLM_BASE_URL" in ran.err


def test_get_shows_what_there_is(ctl: Ctl, shop: Path) -> None:
    everything = ctl("get", "all")
    assert everything.code == 0
    assert max(map(len, everything.out.splitlines())) <= SCREEN
    by_name = {tuple(line.split()[:3]): line for line in everything.out.splitlines()}
    assert "Ready" in by_name["Bucket", NAMESPACE, "notes"]
    for spelling in ("retriever", "retrievers", "ret", "Retriever"):
        assert "ask" in ctl("get", spelling).out
    one = ctl("get", "collection", "notes", "-n", NAMESPACE, "-o", "json").json
    assert ctl("get", "collection", "notes", "-n", NAMESPACE, "-o", "yaml").yaml == one
    by_id = ctl("get", "collection", one["metadata"]["annotations"]["mixpeek.com/id"], "-n", NAMESPACE, "-o", "json")
    assert by_id.json["spec"] == one["spec"]
    assert ctl("get", "cluster", "-n", NAMESPACE).err == "no resources found\n"
    assert "unknown kind 'toaster'" in ctl("get", "toaster").err
    missing = ctl("get", "bucket", "no such one?", "-n", NAMESPACE)
    assert missing.code == 2
    assert "no such one?" in missing.err


@pytest.mark.parametrize(
    ("kind", "held"), [("bucket", "3 objects"), ("collection", "3 documents"), ("ns", "3 documents")]
)
def test_get_counts_what_resources_hold(ctl: Ctl, shop: Path, kind: str, held: str) -> None:
    name = NAMESPACE if kind == "ns" else "notes"
    assert held in ctl("get", kind, name, "-n", NAMESPACE).out


def test_describe(ctl: Ctl, shop: Path) -> None:
    ran = ctl("describe", "collection", "notes", "-n", NAMESPACE)
    assert ran.code == 0
    assert ran.out.startswith(f"Collection notes in namespace {NAMESPACE}, col_")
    assert "feature_extractor_name: text_extractor" in ran.out
    assert "VectorsReady" in ran.out
    assert "BecameReady" in ran.out
    assert ctl("describe", "collection", "notes", "-n", NAMESPACE, "-o", "json").json["events"]


def test_describe_tells_what_to_do_about_a_resource_that_waits(ctl: Ctl, tmp_path: Path) -> None:
    file = tmp_path / "dedicated.yaml"
    file.write_text(
        'version: "1.0"\nnamespaces:\n  - name: cli_dedicated\n    infrastructure: {compute_tier: dedicated}\n'
        "    feature_extractors: [{name: text_extractor, version: v1}]\n"
    )
    refused = ctl("apply", file, "--timeout", "2")
    assert refused.code == 1, refused
    assert "compute_tier" in refused.err + refused.out


def test_wait(ctl: Ctl, shop: Path) -> None:
    ready = ctl("wait", "collection/notes", "-n", NAMESPACE)
    assert (ready.code, ready.out) == (0, "collection/notes condition met\n")
    assert ctl("wait", "collection/notes", "-n", NAMESPACE, "-o", "json").json["condition"]["status"] == "True"
    late = ctl("wait", "bucket/notes", "--for", "delete", "--timeout", "0.3", "-n", NAMESPACE)
    assert late.code == 1
    assert "timed out after 0.3 s: bucket/notes is still there" in late.err
    assert ctl("wait", "bucket/none", "--for", "delete", "-n", NAMESPACE).code == 0
    assert ctl("wait", "bucket/none", "-n", NAMESPACE).code == 2
    assert ctl("wait", "bucket", "-n", NAMESPACE).code == 2


def test_delete_asks(ctl: Ctl, shop: Path, tmp_path: Path) -> None:
    file = tmp_path / "doomed.yaml"
    file.write_text(
        f'version: "1.0"\nbuckets:\n  - {{name: doomed, namespace: {NAMESPACE}, schema: {{properties: {{}}}}}}\n'
    )
    assert ctl("apply", file).code == 0
    kept = ctl("delete", "bucket", "doomed", "-n", NAMESPACE, answer="n\n")
    assert kept.code == 1
    assert "buckets/doomed" in kept.out
    assert ctl("get", "bucket", "doomed", "-n", NAMESPACE).code == 0
    gone = ctl("delete", "bucket", "doomed", "-n", NAMESPACE, answer="y\n")
    assert gone.code == 0, gone
    assert ctl("delete", "bucket", "doomed", "-n", NAMESPACE, "--yes").out == "buckets/doomed was not there\n"
    assert ctl("delete", "-y").code == 2


def test_a_deletion_waits_for_who_refers_to_it(ctl: Ctl, shop: Path, tmp_path: Path) -> None:
    held = tmp_path / "held.yaml"
    held.write_text(
        f'version: "1.0"\nbuckets:\n  - name: held\n    namespace: {NAMESPACE}\n'
        "    schema: {properties: {text: {type: text}}}\n"
        f"collections:\n  - name: holder\n    namespace: {NAMESPACE}\n"
        "    source: {type: bucket, bucket_ids: [held]}\n"
        "    feature_extractor:\n      {feature_extractor_name: passthrough_extractor, version: v1}\n"
    )
    assert ctl("apply", held).code == 0
    ran = ctl("delete", "bucket", "held", "-n", NAMESPACE, "--yes", "--timeout", "2")
    assert ran.code == 1
    assert "still referred to by Collection/cli-shop.holder" in ran.err
    assert "not gone after 2 s" in ran.err
    assert "Deleting" in ctl("get", "bucket", "held", "-n", NAMESPACE).out
    refused = ctl("apply", held)
    assert (refused.code, "is being deleted" in refused.err) == (1, True), "nobody can begin to refer to it"
    asked = ctl("delete", "bucket", "held", "-n", NAMESPACE, "--yes", "--no-wait", "-o", "json")
    assert (asked.code, asked.json[0]["deleted"]) == (0, False)
    assert ctl("delete", "collection", "holder", "-n", NAMESPACE, "--yes").out == "collections/holder deleted\n"
    gone = ctl("wait", "bucket/held", "--for", "delete", "-n", NAMESPACE)
    assert (gone.code, gone.out) == (0, "bucket/held deleted\n")

    assert ctl("apply", held).code == 0
    both = ctl("delete", "-f", held, "--yes")
    assert (both.code, sorted(both.out.splitlines())) == (0, ["buckets/held deleted", "collections/holder deleted"])
    assert ctl("apply", held).code == 0
    assert ctl("delete", "bucket", "held", "-n", NAMESPACE, "--yes", "--cascade").code == 0
    assert "was not there" in ctl("delete", "collection", "holder", "-n", NAMESPACE, "--yes").out


def test_upload_says_which_line_is_wrong(ctl: Ctl, shop: Path, tmp_path: Path) -> None:
    lines = tmp_path / "bad.jsonl"
    lines.write_text('{"text": "fine"}\n{"text": \n')
    ran = ctl("upload", "notes", lines, "-n", NAMESPACE)
    assert ran.code == 2
    assert "bad.jsonl:2:" in ran.err
    lines.write_text("[1]\n")
    assert "bad.jsonl:1: a line must hold one JSON object" in ctl("upload", "notes", lines, "-n", NAMESPACE).err
    lines.write_text('{"topic": "no text"}\n')
    refused = ctl("upload", "notes", lines, "-n", NAMESPACE, "-o", "json")
    assert refused.code == 1
    assert len(refused.json["failed"]) == 1
    assert ctl("upload", "nowhere", lines, "-n", NAMESPACE).code == 2
    assert ctl("upload", "notes", lines, "--field", "x", "-n", NAMESPACE).code == 2


def test_batch_in_every_form(ctl: Ctl, shop: Path) -> None:
    state = ctl("batch", "notes", "-n", NAMESPACE, "-o", "json")
    assert (state.code, state.json["status"]) == (0, "COMPLETED")
    sent = ctl("batch", "notes", "--no-wait", "-n", NAMESPACE, "-o", "yaml")
    assert (sent.code, sent.yaml["batch_id"][:5]) == (0, "btch_")
    late = ctl("batch", "notes", "--timeout", "0", "-n", NAMESPACE)
    assert late.code in (0, 1)  # it may be done at the first look
    assert ("timed out" in late.err) == (late.code == 1)


def test_execute_and_explain(ctl: Ctl, shop: Path) -> None:
    ran = ctl("execute", "ask", "-i", "query=a lunch that stays warm", "-n", NAMESPACE)
    assert ran.code == 0, ran
    assert "Soup stays hot" in ran.out.splitlines()[2]
    assert max(map(len, ran.out.splitlines())) <= SCREEN
    only = ctl("execute", "ask", "-i", "query=boots", "--limit", "1", "-n", NAMESPACE, "-o", "json").json
    assert [item["topic"] for item in only["documents"]] == ["shoes"]
    sky = '{"field": "topic", "operator": "eq", "value": "sky"}'
    filtered = ctl("execute", "ask", "-i", "query=boots", "--filters", sky, "-n", NAMESPACE, "-o", "yaml").yaml
    assert [item["topic"] for item in filtered["documents"]] == ["sky"]
    plan = ctl("explain", "ask", "-i", "query=boots", "-n", NAMESPACE)
    assert "search" in plan.out
    assert ctl("explain", "ask", "-i", "query=boots", "-n", NAMESPACE, "-o", "json").json["execution_plan"]
    assert "query" in ctl("execute", "ask", "-n", NAMESPACE).err
    assert ctl("execute", "ask", "-i", "query=x", "--filters", "{", "-n", NAMESPACE).code == 2
    assert ctl("execute", "ask", "-i", "query", "-n", NAMESPACE).code == 2
    assert ctl("execute", "nobody", "-i", "query=x", "-n", NAMESPACE).code == 2


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ran = Ctl(url)("get", "all")
    assert ran.code == 2
    assert url in ran.err
    assert "mixpeekctl serve" in ran.err
    assert len(ran.err.splitlines()) == 1
    for wrong in ("nonsense", "http://[::1", "ftp://x"):
        ran = Ctl(wrong)("get", "all")
        assert ran.code == 2
        assert ran.err.startswith("error: ")


def test_a_wrong_key(live: Server) -> None:
    for key in ("sk_wrong_0123456789abcdef0123456789", "schlüssel"):
        ran = Ctl(live.url, key)("get", "all")
        assert ran.code == 2
        assert "key" in ran.err
        assert key not in ran.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(ctl: Ctl, command: str) -> None:
    ran = ctl(command, "--help")
    assert ran.code == 0
    assert "Usage: " in ran.out
    assert command in ("serve", "up") or "--output" in ran.out


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom mixpeek_operator.cli.app import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in COMMANDS:
        assert f"  {command} " in ran.stdout
    loaded = set(yaml.safe_load(ran.stderr))
    heavy = {
        "torch",
        "ray",
        "pandas",
        "numpy",
        "fastapi",
        "uvicorn",
        "qdrant_edge",
        "transformers",
        "pydantic",
        "httpx",
    }
    assert not loaded & heavy


def test_shell_completion_and_version() -> None:
    environment = {**os.environ, "_MIXPEEKCTL_COMPLETE": "source_bash"}
    script = str(Path(sys.executable).parent / "mixpeekctl")
    ran = subprocess.run([script], capture_output=True, text=True, env=environment, check=False)
    assert "complete" in ran.stdout
    assert "mixpeekctl" in ran.stdout
    version = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("mixpeekctl 0.")
