"""`code_execution` with the real sandbox: what the code makes of documents, and what becomes of those it fails on."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from tests.unit.retrieval.stages.running import Outcome, refused, run

from mixpeek_operator.adapters.process_sandbox import ProcessSandbox
from mixpeek_operator.core.errors import SpecError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: seccomp isolates the code")

DOCUMENTS = [
    {"document_id": "a", "score": 1, "content": "one two", "_internal": {"lineage": "a"}},
    {"document_id": "b", "score": 3, "content": ""},
    {"document_id": "c", "score": 2},
]


def execute(code: str, inputs: dict[str, Any] | None = None, **parameters: Any) -> Outcome:
    return run("code_execution", DOCUMENTS, {"code": code, **parameters}, inputs, sandbox=ProcessSandbox())


def test_documents_are_changed_or_left_out() -> None:
    found = execute(
        "import re\n"
        "def transform(doc):\n"
        "    if doc['score'] < INPUT['least']: return None\n"
        "    doc['words'] = len(re.findall(r'[a-z]+', doc.get('content', '')))\n"
        "    doc['said'] = ENV['word']\n"
        "    return doc",
        {"least": 2, "word": "hello"},
        env={"word": "{{INPUT.word}}"},
    )
    assert found == [{**DOCUMENTS[1], "words": 0, "said": "hello"}, {**DOCUMENTS[2], "words": 0, "said": "hello"}]
    assert found.metadata == {"isolation": found.metadata["isolation"], "failed": 0}
    assert "seccomp" in found.metadata["isolation"]


def test_what_the_server_keeps_for_itself_is_out_of_reach() -> None:
    found = execute("def transform(doc): return {**doc, 'seen': sorted(doc), '_internal': {'lineage': 'forged'}}")
    assert found[0]["seen"] == ["content", "document_id", "score"]
    assert [item.get("_internal") for item in found] == [{"lineage": "a"}, None, None]


def test_all_at_once() -> None:
    code = "best = max(d['score'] for d in docs)\nresult = [d['score'] / best for d in docs]"
    found = execute(code, output_field="meta.share", timeout_ms=20_000)
    assert [item["meta"]["share"] for item in found] == [1 / 3, 1.0, 2 / 3]
    other = execute("out = [1, 2, 3]", result_variable="out")
    assert [item["computed"] for item in other] == [1, 2, 3]
    short = execute("result = [1]")
    assert short == DOCUMENTS
    assert "no list of 3 values" in short.warnings[0]


FAILING = "def transform(doc):\n    doc['n'] = len(doc['content'])\n    return doc"


def test_what_fails_stays_or_goes_or_stops() -> None:
    found = execute(FAILING)
    assert [item.get("n") for item in found] == [7, 0, None]
    assert found[2] == DOCUMENTS[2]
    assert found.metadata["failed"] == 1
    assert found.warnings == ["code_execution: 1 documents are unchanged: KeyError in line 2: 'content'"]
    assert [item["document_id"] for item in execute(FAILING, on_error="remove")] == ["a", "b"]
    with pytest.raises(SpecError, match="1 of 3 documents: KeyError in line 2"):
        execute(FAILING, on_error="raise")
    wrong = execute("def transform(doc): return [doc]")
    assert wrong == DOCUMENTS
    assert "returned list" in wrong.warnings[0]


def test_limits_are_those_of_the_stage() -> None:
    found = execute("def transform(doc):\n    while doc['score'] == 3: pass\n    return {'ok': 1}", timeout=1500)
    assert found == [{"ok": 1, "_internal": {"lineage": "a"}}, DOCUMENTS[1], {"ok": 1}]
    assert "more than 1.5 seconds" in found.warnings[0]
    with pytest.raises(SpecError, match="memory"):
        execute("def transform(doc): return len('x' * 100_000_000)", memory=32)
    execute("def transform(doc): return {'n': len('x' * 100_000_000)}", memory=256)
    assert "3009" in execute("def transform(doc): return {'x': 'x' * 3000}", max_output_size=2000).warnings[0]


def test_debug_tells_what_was_printed() -> None:
    found = execute("def transform(doc):\n    print(doc['document_id'])\n    return doc", debug=True)
    assert found.metadata["printed"] == "a\nb\nc\n"


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({}, "'code' is required"),
        ({"code": "def transform(doc:"}, "line 1"),
        ({"code": "x = 1"}, "no function transform(doc)"),
        ({"code": "import os\ndef transform(doc): return doc"}, "imports os"),
        ({"code": "def transform(doc):\n    from socket import socket\n    return doc"}, "imports socket"),
        ({"code": "def transform(doc): return {{INPUT.query}}"}, "use the variables INPUT"),
        ({"code": "(" * 5000 + ")" * 5000}, "no Python"),
        ({"code": "def transform(doc): return doc", "timeout": 1}, "greater than or equal to 100"),
        ({"code": "def transform(doc): return doc", "langage": "python"}, "did you mean 'language'"),
        ({"code": "def transform(doc): return doc", "language": "javascript"}, "python"),
    ],
)
def test_refused(parameters: dict[str, Any], says: str) -> None:
    refused("code_execution", parameters, says)


def test_packages_of_the_server() -> None:
    code = "import yaml\ndef transform(doc): return {'a': yaml.safe_load('[1]')}"
    with pytest.raises(SpecError, match="MIXPEEK_CODE_PACKAGES"):
        execute(code, packages=["PyYAML"])
    found = run(
        "code_execution",
        DOCUMENTS[1:],
        {"code": code, "packages": ["PyYAML"]},
        sandbox=ProcessSandbox(packages=["pyyaml"]),
    )
    assert found == [{"a": [1]}, {"a": [1]}]
