"""Reading a list request, as a table."""

from __future__ import annotations

from typing import Any

import pytest

from mixpeek_operator.api import lists
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.filters import And, Compare, Operator
from mixpeek_operator.core.listing import ListPage, ListQuery

_A = Compare("a", Operator.EQ, 1)


@pytest.mark.parametrize(
    ("reason", "query", "body", "expected"),
    [
        ("nothing said", {}, None, ListQuery()),
        ("limit", {"limit": "5"}, None, ListQuery(limit=5)),
        ("page_size is limit", {"page_size": "5"}, {}, ListQuery(limit=5)),
        ("the body wins", {"limit": "5"}, {"limit": 7}, ListQuery(limit=7)),
        ("null says nothing", {"limit": "5"}, {"limit": None}, ListQuery(limit=5)),
        ("a page counts from 1", {"page": "3", "limit": "10"}, None, ListQuery(limit=10, offset=20)),
        ("an offset wins over a page", {"offset": "4"}, {"page": 3}, ListQuery(offset=4)),
        ("cursor", {"cursor": "abc"}, None, ListQuery(cursor="abc")),
        ("next_cursor is cursor", {}, {"next_cursor": "abc"}, ListQuery(cursor="abc")),
        ("after is cursor", {"after": "abc"}, None, ListQuery(cursor="abc")),
        ("an empty cursor is none", {"cursor": ""}, None, ListQuery()),
        ("search", {}, {"search": "Ada"}, ListQuery(search="Ada")),
        ("total from text", {"include_total": "true"}, None, ListQuery(include_total=True)),
        ("total from JSON", {"include_total": "true"}, {"include_total": False}, ListQuery()),
        ("a filter", {}, {"filters": {"field": "a", "value": 1}}, ListQuery(filters=_A)),
        ("a filter in the query", {"filters": '{"field":"a","value":1}'}, None, ListQuery(filters=_A)),
        ("two filters", {}, {"filters": [{"field": "a", "value": 1}] * 2}, ListQuery(filters=And((_A, _A)))),
        ("a sort", {}, {"sort": {"field": "a", "direction": "desc"}}, ListQuery(sort=(("a", "desc"),))),
        ("a sort defaults to asc", {}, {"sort": {"field": "a"}}, ListQuery(sort=(("a", "asc"),))),
        ("sorts", {}, {"sorts": [{"field": "a"}, {"field": "b"}]}, ListQuery(sort=(("a", "asc"), ("b", "asc")))),
        ("a sort in the query", {"sort": "-a,b:desc"}, None, ListQuery(sort=(("a", "desc"), ("b", "desc")))),
        ("a whole float", {}, {"limit": 5.0}, ListQuery(limit=5)),
    ],
)
def test_a_list_request_reads_as(reason: str, query: dict[str, str], body: Any, expected: ListQuery) -> None:
    assert lists.parse(query, body) == expected, reason


def test_every_mistake_is_reported_with_its_place() -> None:
    query = {"offset": "-1", "include_total": "maybe"}
    body = {
        "limit": 100_000,
        "page": "x",
        "search": 3,
        "cursor": ["x"],
        "filters": {"AND": [{"field": "a", "operator": "like"}, {"value": 1}]},
        "sort": {"field": "a", "direction": "up"},
        "sorts": [{"direction": "asc"}],
    }
    with pytest.raises(SpecError) as raised:
        lists.parse(query, body)
    assert {problem.location for problem in raised.value.problems} == {
        ("query", "offset"),
        ("query", "include_total"),
        ("body", "limit"),
        ("body", "page"),
        ("body", "search"),
        ("body", "cursor"),
        ("body", "filters", "AND", 0),
        ("body", "filters", "AND", 1),
        ("body", "sort"),
        ("body", "sorts", 0),
    }


@pytest.mark.parametrize("value", [True, "ten", 2.5, [], 0])
def test_a_limit_is_a_positive_whole_number(value: Any) -> None:
    with pytest.raises(SpecError):
        lists.parse({}, {"limit": value})


def test_the_last_page_leads_nowhere() -> None:
    answer = lists.envelope(ListPage([{"a": 1}], None, None), ListQuery(limit=1, offset=2))
    assert answer == {
        "results": [{"a": 1}],
        "total_count": None,
        "pagination": {
            "total": None,
            "page": 3,
            "page_size": 1,
            "total_pages": None,
            "next_page": None,
            "previous_page": "2",
            "next_cursor": None,
        },
    }
