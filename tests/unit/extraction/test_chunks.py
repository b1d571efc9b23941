"""Splitting text: the laws every chunk keeps, and the boundaries people expect."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpeek_operator.extraction.extractors.text_extractor.processors.chunks import split, units

UNITS = ("characters", "words", "sentences", "paragraphs", "pages")
texts = st.text(alphabet=st.sampled_from("ab C.!?…\n\f \t。éß”)"), max_size=120)
sizes = st.integers(1, 6).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1)))


def parts(text: str, split_by: str) -> list[str]:
    return list(text) if split_by == "characters" else [text[a:b] for a, b in units(text, split_by)]


@given(texts, st.sampled_from(UNITS), sizes)
def test_every_unit_is_in_a_chunk_and_sizes_and_overlaps_are_exact(text: str, split_by: str, size_overlap) -> None:
    size, overlap = size_overlap
    wanted = parts(text, split_by)
    chunks = list(split(text, split_by, size, overlap))
    step = size - overlap
    expected = 0 if not wanted else 1 + max(0, -(-(len(wanted) - size) // step))
    assert len(chunks) == expected
    for number, chunk in enumerate(chunks):
        inside = wanted[number * step : number * step + size]
        assert chunk in text
        assert chunk.startswith(inside[0])
        assert chunk.endswith(inside[-1])
        assert parts(chunk, split_by) == inside or split_by == "sentences"
    if wanted:
        assert chunks[-1].endswith(wanted[-1])


@given(texts, st.sampled_from(("characters",)), st.integers(1, 9))
def test_chunks_without_overlap_concatenate_to_the_text(text: str, split_by: str, size: int) -> None:
    assert "".join(split(text, split_by, size, 0)) == text


@given(texts, st.sampled_from(UNITS[1:]))
def test_units_hold_all_that_is_not_white_space(text: str, split_by: str) -> None:
    joined = "".join(parts(text, split_by))
    assert "".join(joined.split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("split_by", "text", "expected", "reason"),
    [
        ("sentences", "One. Two! Three?", ["One.", "Two!", "Three?"], "each end mark ends one"),
        ("sentences", "It costs 3.14 euros. Fine.", ["It costs 3.14 euros.", "Fine."], "a decimal point is none"),
        ("sentences", "Dr. Who met Mr. X. They left.", ["Dr. Who met Mr. X. They left."], "abbreviations, initials"),
        ("sentences", "Made in the U.S. and sold. Yes.", ["Made in the U.S. and sold.", "Yes."], "dotted letters"),
        ("sentences", 'He said "Go." Then left.', ['He said "Go."', "Then left."], "a quote closes with it"),
        ("sentences", "一。二。", ["一。", "二。"], "no space after a full-width mark"),
        ("sentences", "A title\n\nA text.", ["A title", "A text."], "a blank line ends a sentence"),
        ("paragraphs", "a\nb\n \n\nc\n", ["a\nb", "c"], "blank lines, also with spaces"),
        ("pages", "a\f\fb", ["a", "b"], "an empty page is left out"),
        ("words", "  a  b\nc ", ["a", "b", "c"], "any white space"),
    ],
)
def test_units_end_where_people_expect(split_by: str, text: str, expected: list[str], reason: str) -> None:
    assert list(split(text, split_by, 1, 0)) == expected, reason


def test_chunks_keep_the_white_space_between_their_units() -> None:
    assert list(split("a  b\nc d", "words", 2, 1)) == ["a  b", "b\nc", "c d"]


def test_none_keeps_the_text_whole() -> None:
    assert list(split(" a b ", "none", 1, 0)) == [" a b "]


@pytest.mark.parametrize(("size", "overlap"), [(3, 3), (3, 4), (0, 0), (3, -1)])
def test_an_overlap_without_progress_is_refused(size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="less than chunk_size"):
        list(split("abc", "characters", size, overlap))


@pytest.mark.parametrize(
    "text", ["." * 1_000_000 + "x", "\n" * 1_000_000, '."' * 500_000, "\n \t" * 300_000, "a." * 500_000]
)
@pytest.mark.parametrize("split_by", UNITS[1:])
def test_a_hostile_text_takes_linear_time(text: str, split_by: str) -> None:
    assert sum(1 for _ in split(text, split_by, 10, 1)) <= 1
