"""YAML and JSON as plain values: every bad file ends in a problem with its place."""

import pytest

from mixpeek_operator.core.errors import TooLargeError
from mixpeek_operator.manifest.text import MAX_DEPTH, read


def _bomb(levels: int = 12) -> str:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for index in range(levels):
        this, last = chr(98 + index), chr(97 + index)
        lines.append(f"{this}: &{this} [{', '.join([f'*{last}'] * 9)}]")
    return "\n".join(lines)


BAD = [
    ("a:\n\t- b", "not_yaml", 2, "tab", "tabs cannot indent"),
    ("a: [1, 2", "not_yaml", None, "flow sequence", "a bracket stays open"),
    ("a: b\n- c", "not_yaml", 2, "expected", "a list inside a mapping"),
    ("a: \x01", "not_yaml", 1, "not allowed", "a control character"),
    ("a: 1\nb: 2\na: 3", "duplicate_key", 3, "line 1", "both places are named"),
    ('{"a": 1,\n "a": 2}', "duplicate_key", 2, "line 1", "JSON too"),
    ("a: !!python/object:os.system x", "tag_not_allowed", 1, "plain values", "no object is ever made"),
    ("a: !secret x", "tag_not_allowed", 1, "plain values", "nor a custom tag"),
    ("a: !!int x", "wrong_type", 1, "!!int", "a tag that does not fit"),
    ("x:\n  1: b", "key_not_text", 2, "quotes", "a number for a key"),
    ("? [a]\n: b", "key_not_text", 1, "mapping or a list", "a list for a key"),
    ("a: &a [*a]", "recursive_alias", 1, "contains itself", "an endless value"),
    ("a: *nobody", "not_yaml", 1, "no anchor", "an alias of nothing"),
    ("<<: 3\na: 1", "not_yaml", 1, "merge key", "a merge of a number"),
    (_bomb(), "too_many_values", None, "aliases", "billion laughs"),
    ("[" * 5000, "too_deep", 1, str(MAX_DEPTH), "deep enough to overflow a stack"),
    ('{"a":' * 3000 + "1" + "}" * 3000, "too_deep", 1, str(MAX_DEPTH), "deep JSON"),
    ("é".encode("latin-1"), "not_text", 1, "UTF-8", "another encoding"),
]


@pytest.mark.parametrize(("text", "code", "line", "says", "reason"), BAD)
def test_a_bad_text_is_a_problem_with_its_place(text, code, line, says, reason):
    source = read(text, file="m.yaml")

    assert [problem.code for problem in source.problems] == [code], reason
    problem = source.problems[0]
    assert problem.place.file == "m.yaml"
    assert line is None or problem.place.line == line
    assert says in problem.message


def test_a_long_text_is_refused_before_it_is_read():
    with pytest.raises(TooLargeError) as caught:
        read("[" * (50 * 1024 * 1024), file="big.yaml")

    assert "52,428,800" in str(caught.value)


def test_all_problems_of_a_text_are_reported_at_once():
    source = read("a: 1\na: 2\nb: !x y\n1: z")

    assert [problem.code for problem in source.problems] == ["duplicate_key", "tag_not_allowed", "key_not_text"]


VALUES = [
    ("yes", "yes", "YAML 1.1 would say true"),
    ("no", "no", "YAML 1.1 would say false"),
    ("12:30", "12:30", "YAML 1.1 would say 750"),
    ("2026-01-31", "2026-01-31", "YAML 1.1 would say a date"),
    ("010", "010", "YAML 1.1 would say 8"),
    ("1e3", 1000.0, "YAML 1.1 would say text"),
    ("0x1f", 31, "hexadecimal"),
    ("-7", -7, "an integer"),
    ("1.50", 1.5, "a float"),
    (".inf", ".inf", "JSON has no infinity"),
    ("~", None, "null"),
    ("True", True, "a boolean"),
    ("'5'", "5", "quoted"),
    ("!!str 5", "5", "tagged"),
    ("!!float 5", 5.0, "tagged as another number"),
]


@pytest.mark.parametrize(("text", "value", "reason"), VALUES)
def test_plain_scalars_have_the_types_of_yaml_1_2(text, value, reason):
    found = read(f"a: {text}").documents[0]["a"]

    assert (found, type(found)) == (value, type(value)), reason


def test_merge_keys_and_aliases_are_understood():
    document = read("base: &b {x: 1, y: 2}\none: {<<: *b, y: 3}\ntwo: *b").documents[0]

    assert document["one"] == {"x": 1, "y": 3}
    assert document["two"] == {"x": 1, "y": 2}


def test_a_place_names_the_nearest_parent_that_exists():
    source = read("a:\n  - b: 1\n    c: 2\n", file="m.yaml")

    assert str(source.place(("a", 0, "c"))) == "m.yaml:3:5 a[0].c"
    assert str(source.place(("a", 0, "missing", "deeper"))) == "m.yaml:2:5 a[0].missing.deeper"


def test_json_is_read_as_json():
    assert read('{"a": "\\u00e9", "b": [1, 2.5, null, true]}').documents == [{"a": "é", "b": [1, 2.5, None, True]}]
    assert read("{a: 1}").documents == [{"a": 1}]
