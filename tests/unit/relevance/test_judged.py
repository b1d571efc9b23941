"""Judged sets in SMART's format are read as they are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.benchmarks.judged import read

TEXTS = """.I 1
.T
A title
.A
Nobody, N.
.W
A body of
two lines. 1 2
.X
1\t5\t1
.I 2
.W
Only a body
"""


def test_reading(tmp_path: Path) -> None:
    (tmp_path / "TINY.ALL").write_text(TEXTS)
    (tmp_path / "TINY.QRY").write_text(".I 1\n.W\nwhat of\ntitles?\n.I 2\n.W\nnever judged\n")
    (tmp_path / "TINY.REL").write_text("     1      2\t0\t0.000000\n     1      1\t0\t0.000000\n")
    found = read(tmp_path)
    assert found.name == "TINY"
    assert found.texts == {"1": "A title A body of two lines. 1 2", "2": "Only a body"}
    assert found.queries == {"1": "what of titles?"}
    assert found.relevant == {"1": {"1", "2"}}
    (tmp_path / "TINY.REL").unlink()
    with pytest.raises(FileNotFoundError, match=r"\.REL"):
        read(tmp_path)
