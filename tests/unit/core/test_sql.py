"""Which queries are one SELECT, and where their values stand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.sql import parse


@pytest.mark.parametrize(
    ("query", "written"),
    [
        ("SELECT * FROM a WHERE b = :x", "SELECT * FROM a WHERE b = <x>"),
        ("select :y, :x, :y", "select <y>, <x>, <y>"),
        ("SELECT $2, $1", "SELECT <y>, <x>"),
        ("SELECT :x::int, a::text FROM b", "SELECT <x>::int, a::text FROM b"),
        (
            "SELECT ':x', \":x\", `:x`, $$:x ; into$$, $t$ $1 $t$",
            "SELECT ':x', \":x\", `:x`, $$:x ; into$$, $t$ $1 $t$",
        ),
        ("SELECT 'it''s' || :x", "SELECT 'it''s' || <x>"),
        ("-- ; drop\nSELECT 1 /* :z ; */ ; -- end", " SELECT 1     "),
        ("WITH a AS (SELECT 1) SELECT * FROM a", "WITH a AS (SELECT 1) SELECT * FROM a"),
        ("  (SELECT 1) UNION SELECT 2;", "  (SELECT 1) UNION SELECT 2"),
        ("SELECT a[1:2]", "SELECT a[1:2]"),
    ],
)
def test_where_values_stand(query: str, written: str) -> None:
    statement = parse(query, ("x", "y"))
    names = statement.names
    assert statement.written(lambda index: f"<{names[index]}>") == written


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("DELETE FROM a", "begins with DELETE"),
        ("", "begins with nothing"),
        ("/* SELECT */ DROP TABLE a", "begins with DROP"),
        ("SELECT 1; DROP TABLE a", "behind the semicolon"),
        ("SELECT 1; /* x */ SELECT 2", "behind the semicolon"),
        ("SELECT * INTO b FROM a", "INTO writes"),
        ("SELECT 1 /*! INTO */ iNtO OUTFILE 'x'", "INTO writes"),
        ("SELECT :z", "uses :z"),
        ("SELECT $3", r"uses \$3"),
        ("SELECT $0", r"uses \$0"),
        ("SELECT 'a", "never closes"),
        ("SELECT '\\' ; DROP TABLE a -- '", "backslash"),
        ('SELECT "a', "never closes"),
        ("SELECT /* a", "never closes"),
        ("SELECT " + "1" * 20_000, "20000 characters"),
    ],
)
def test_what_is_no_single_select(query: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse(query, ("x", "y"))


@given(st.text(st.sampled_from("SELECT ':\"`$;/*-x1\\\n"), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        statement = parse("SELECT " + text, ("x",))
    except SpecError:
        return
    assert set(statement.names) <= {"x"}
    assert len(statement.parts) % 2 == 1
