"""The template language: what it means, what it refuses, and that text can never become structure."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpeek_operator.retrieval.templating.errors import TemplateError
from mixpeek_operator.retrieval.templating.template import compile_json, compile_text, is_template


def text(source: str, **names: Any) -> Any:
    return compile_text(source).render(names)


def made(source: str, **names: Any) -> Any:
    return compile_json(source).render(names)


@pytest.mark.parametrize(
    ("source", "names", "value"),
    [
        ("{{INPUT.q}}", {"INPUT": {"q": "a"}}, "a"),
        ("{{ inputs.q }}", {"INPUT": {"q": [1, 2]}}, [1, 2]),
        ("{{20 * inputs.page_size}}", {"INPUT": {"page_size": 3}}, 60),
        ("{{CONTEXT.budget_remaining > 50 ? 200 : 50}}", {"CONTEXT": {"budget_remaining": 51}}, 200),
        ("{{context.budget_remaining > 50 ? 200 : 50}}", {"CONTEXT": {"budget_remaining": 5}}, 50),
        ("{{DOC.media_type == 'image' ? 'image_url' : 'video_url'}}", {"DOC": {"media_type": "x"}}, "video_url"),
        ("{{ DOC.a ? 'is ? it : so' : \"b'\" }}", {"DOC": {"a": 1}}, "is ? it : so"),
        ("{{ DOC.a ? 1 : DOC.b ? 2 : 3 }}", {"DOC": {"b": True}}, 2),
        ("{{ DOC.a ? DOC.b ? 1 : 2 : 3 }}", {"DOC": {"a": 1}}, 2),
        ("{{ !DOC.a && (DOC.b || DOC.c) }}", {"DOC": {"c": 5}}, 5),
        ("{{ !DOC.a == true }}", {"DOC": {}}, True),
        ("{{ !!DOC.a }}", {"DOC": {"a": 1}}, True),
        ("{{ {'a': DOC.x ? 1 : 2, 'b': [DOC.x ? 3 : 4]} }}", {"DOC": {}}, {"a": 2, "b": [4]}),
        ("{{ max(DOC.x ? 3 : 4, 1) }}", {"DOC": {}}, 4),
        ("{{ 'yes' if DOC.n >= 2 and DOC.n != 3 else 'no' }}", {"DOC": {"n": 2}}, "yes"),
        ("{{ DOC.a.b.c }}", {"DOC": {}}, None),
        ("x{{ DOC.a.b.c }}y", {"DOC": {"a": None}}, "xy"),
        ("{{ DOC.n * 2 }}", {"DOC": {}}, None),
        ("{{ DOC.n > 2 }}", {"DOC": {}}, False),
        ("{{ DOC.tags[0] }}-{{ DOC.tags.1 }}", {"DOC": {"tags": ["a", "b"]}}, "a-b"),
        ("{{ DOC['the key'] }}", {"DOC": {"the key": 1.5}}, 1.5),
        ("{{ DOC.ok }} {{ DOC.n }} {{ DOC.l }}", {"DOC": {"ok": True, "n": 1, "l": ["a"]}}, 'true 1 ["a"]'),
        ("{{ DOC.t | upper | default('none') }}", {"DOC": {"t": "é"}}, "É"),
        ("{{ DOC.t | default('none') }}", {"DOC": {}}, "none"),
        ("{{ stage.search.top_score }}", {"STAGE": {"search": {"top_score": 0.5}}}, 0.5),
        ("{{ DOC.items }}", {"DOC": {"items": [1]}}, [1]),
        ("{{ 7 // 2 + 7 % 2 - 2 ** 3 / 4 }}", {}, 2.0),
        ("no template { at } all", {}, "no template { at } all"),
        ("${{ secrets.KEY }}", {}, "${{ secrets.KEY }}"),
        ("{% if x %}", {}, "{% if x %}"),
    ],
)
def test_means(source: str, names: dict[str, Any], value: Any) -> None:
    result = text(source, **names)
    assert result == value
    assert type(result) is type(value)


def test_single_braces_only_where_asked() -> None:
    source = "https://x/{DOC.id}/{INPUT.a.b}?q={other}&z={{DOC.id}}"
    names = {"DOC": {"id": 7}, "INPUT": {"a": {"b": "c"}}}
    assert compile_text(source, braces=True).render(names) == "https://x/7/c?q={other}&z=7"
    assert text(source, **names) == "https://x/{DOC.id}/{INPUT.a.b}?q={other}&z=7"
    assert is_template("{DOC.id}", braces=True)
    assert not is_template("{DOC.id}")


HUGE = 10**9
ATTACKS = [
    "{{ 9**9**9 }}",
    "{{ 10**90 * 10**90 }}",
    f"{{{{ 'a' * {HUGE} }}}}",
    f"{{{{ range({HUGE}) | list }}}}",
    f"{{{{ '%{HUGE}d' % 1 }}}}",
    f"{{{{ 'a'.center({HUGE}) }}}}",
    f"{{{{ 'a' | center({HUGE}) }}}}",
    "{{ 'a'.__class__.__mro__ }}",
    "{{ ''.__class__ ? 1/0 : 1/0 }}",
    "{{ self }}",
    "{{ config }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ lipsum.__globals__ }}",
    "{{ DOC.__class__() }}",
    "{{ DOC.format(1) }}",
    "{{ '{0.__class__}'.format(DOC) }}",
    "{{ DOC | attr('__class__') }}",
    "{{ DOC | map('attr', '__class__') | list }}",
    "{{ [DOC] | map('tojson', **DOC) }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "1+" * 20000 + "1 }}",
    "{{ " + "!" * 20000 + "1 }}",
    "{{ " + "[" * 3000 + "]" * 3000 + " }}",
    "{{ 1" + " ? 1 : 1" * 5000 + " }}",
    "{{ 1 / 0 }}",
    "{{ 'a' - 1 }}",
    "{{ 1 }",
    "{{ }}",
    "{{ 1 ? 2 }}",
    "{{ INPUT.x y }}",
    "{{ unknown }}",
    "{{ DOC.x | unknown }}",
    "{{ import('os') }}",
    "x" * 70_000 + "{{ 1 }}",
]


@pytest.mark.parametrize("source", ATTACKS, ids=lambda source: source[:40])
def test_attack_on_an_expression_is_refused_quickly(source: str) -> None:
    began = time.monotonic()
    try:
        value = text(source, DOC={"x": 1})
    except TemplateError:
        pass
    else:
        assert value is None, "only a missing value may come out"
    assert time.monotonic() - began < 60, "unbounded work would take hours"


BLOCK_ATTACKS = [
    "{% for i in range(10000) %}" * 3 + "{% endfor %}" * 3,
    "{% for i in range(10000) %}{% for j in range(10000) %}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}{% endfor %}",
    "{% set x = [1] %}" + "{% set x = [x, x, x] %}" * 60 + "{{ x }}",
    "{% set x = [1] %}" + "{% set x = x + x %}" * 60 + "{{ x }}",
    "{% set x = 'aaaaaaaa' %}" + "{% set x = x ~ x %}" * 60 + "{{ x }}",
    "{% set x = 'aaaaaaaa' %}" + "{% set x = x | replace('a', x) %}" * 60 + "{{ x }}",
    "{% set x = 9 %}" + "{% set x = x * x %}" * 60 + "{{ x }}",
    "{% set x = ['aaaaaaaaaaaaaaaa'] %}" + "{% set x = [x | join(x | join), x | join] %}" * 60 + "{{ x }}",
    "{% set x = {} %}{% for i in range(10000) %}{% set x = {'a': x} %}{% endfor %}"
    + "{% set x={'a':x} %}" * 500
    + "{{ x }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'x' %}",
    "{% set DOC = 1 %}",
    "{% for DOC in [1] %}{% endfor %}",
    "{% if %}{% endif %}",
    "{% for x in [1] %}",
    "{% call f() %}{% endcall %}",
    "{% filter upper %}x{% endfilter %}",
    "{% set ns = namespace(x=1) %}",
    "{% raw %}",
    "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
]


@pytest.mark.parametrize("source", BLOCK_ATTACKS, ids=lambda source: source[:40])
def test_attack_on_a_json_template_is_refused_quickly(source: str) -> None:
    began = time.monotonic()
    with pytest.raises(TemplateError):
        made(source, DOC={"x": 1})
    assert time.monotonic() - began < 60, "unbounded work would take hours"


def test_json_template_of_the_documentation() -> None:
    source = (
        '{"id": "{{DOC.document_id}}", "title": "{{DOC.metadata.title}}", "price": {{DOC.catalog_data.price}}, '
        '"tags": [{% for tag in DOC.tags %}"{{ tag }}"{% if not loop.last %}, {% endif %}{% endfor %}]'
        '{% if DOC.kind == "VIDEO" %}, "src": "{{ DOC.url }}"{% endif %}, "raw": {{ DOC.raw | tojson }}}'
    )
    document = {
        "document_id": "d",
        "metadata": {"title": 'A "b"\n\\ </script> 日本'},
        "catalog_data": {"price": 3},
        "tags": ['"', "x"],
        "kind": "VIDEO",
        "url": "u",
        "raw": {"a": [None, True]},
    }
    assert made(source, DOC=document) == {
        "id": "d",
        "title": document["metadata"]["title"],  # type: ignore[index]
        "price": 3,
        "tags": ['"', "x"],
        "src": "u",
        "raw": {"a": [None, True]},
    }
    assert made(source, DOC={}) == {"id": "", "title": "", "price": None, "tags": [], "raw": None}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ('{"a": {{ DOC.t }}}', {"a": 'x"y'}),
        ('{"a": "{{ DOC.t | tojson }}"}', {"a": '"x\\"y"'}),
        ('{"a": [{{ "1," if DOC.t }} {{ 2 }}]}', {"a": [1, 2]}),
        ('{"a": {{ DOC.none | default("null") }}}', {"a": None}),
        ('{"a": {{ DOC.none | default("N/A") }}}', {"a": "N/A"}),
        ('{"a": {{ DOC.t ? true : false }}}', {"a": True}),
        ('{% set x = DOC.t ~ "!" %}{"a": {{ x }}}', {"a": 'x"y!'}),
        ('{"a": {% raw %}"{{ x }}"{% endraw %}}', {"a": "{{ x }}"}),
        ("{# note #}{{ DOC }}", {"t": 'x"y', "n": [1, 2]}),
        ('{"a": [{% for k, v in DOC.items() %}{{ k }}{{ "," if !loop.last }}{% endfor %}]}', {"a": ["t", "n"]}),
        ('{"a": {%- if DOC.t && DOC.n -%} 1 {%- else -%} 2 {%- endif -%} }', {"a": 1}),
    ],
)
def test_json_template_inserts(source: str, value: Any) -> None:
    assert made(source, DOC={"t": 'x"y', "n": [1, 2]}) == value


def test_not_json_is_an_error() -> None:
    with pytest.raises(TemplateError, match="does not make JSON"):
        made('{"a": {{ DOC.a }} oops}', DOC={})


@given(st.text())
def test_text_survives_a_json_string(value: str) -> None:
    value.encode("utf-8", "surrogatepass")
    if any(0xD800 <= ord(char) < 0xE000 for char in value):
        return
    assert made('{"a": "<{{ DOC.a }}>", "b": {{ DOC.a }}}', DOC={"a": value}) == {"a": f"<{value}>", "b": value}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_whole_expression_keeps_any_value(value: Any) -> None:
    assert text("{{ DOC.a }}", DOC={"a": value}) == value
    assert made('{"a": {{ DOC.a | tojson }}, "b": {{ DOC.a }}}', DOC={"a": value}) == {"a": value, "b": value}


@given(st.text("{}%#()[]'\"?:!&|+-*/ .,aDOC19=<>~", max_size=60))
@settings(max_examples=300)
def test_any_source_ends_in_a_value_or_a_template_error(source: str) -> None:
    for compiler in (compile_text, compile_json):
        try:
            compiler(source).render({"DOC": {"a": 1}})
        except TemplateError:
            continue


@given(st.booleans(), st.booleans(), st.booleans())
def test_c_operators_agree_with_python(a: bool, b: bool, c: bool) -> None:
    names = {"DOC": {"a": a, "b": b, "c": c}}
    assert text("{{ DOC.a && DOC.b || !DOC.c }}", **names) == ((a and b) or not c)
    assert text("{{ DOC.a ? DOC.b ? 1 : 2 : DOC.c ? 3 : 4 }}", **names) == ((1 if b else 2) if a else 3 if c else 4)


def test_json_rendering_equals_the_standard_library() -> None:
    document = {"a": {"b": [1, 2.5, "x", None, True]}}
    assert made("{{ DOC | tojson }}", DOC=document) == json.loads(json.dumps(document))


@pytest.mark.parametrize(
    ("template", "paths"),
    [
        ("{{STAGE.search.count}}", {("STAGE", "search", "count")}),
        ('{{DOC.a.b}} {{INPUT["x"]}} {{INPUT}}', {("DOC", "a", "b"), ("INPUT", "x"), ("INPUT",)}),
        ("{{INPUT[DOC.k]}}", {("DOC", "k"), ("INPUT",)}),
        ("{{INPUT.a[INPUT.b].c}}", {("INPUT", "a"), ("INPUT", "b")}),
    ],
)
def test_paths_are_told_as_far_as_they_are_written(template: str, paths: set[tuple[str, ...]]) -> None:
    assert compile_text(template).paths == paths
