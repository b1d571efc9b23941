"""Each lint rule finds its case, and only its case."""

# ruff: noqa: E501 - a table of cases reads best with one case per line

import pytest

from mixpeek_operator.manifest.lint import RULES, View, lint, response
from mixpeek_operator.manifest.parse import parse
from mixpeek_operator.manifest.registry import schemas


def _found(text, **options):
    return lint(View(parse(text, schemas()), schemas(), ("API_KEY",)), **options)


def _edit(old, new):
    return lambda text: text.replace(old, new, 1)


_FILTER = "      - {stage_name: cut, stage_id: attribute_filter, parameters: {field: price, operator: gt, value: 3}}\n"
_LLM = "      - {stage_name: judge, stage_id: llm_filter, parameters: {criteria: good}}\n"

CASES = [
    ("UNUSED_EXTRACTOR", _edit("- {name: text_extractor, version: v1}", "- {name: text_extractor, version: v1}\n      - {name: passthrough_extractor, version: v1}"), "namespaces[0].feature_extractors[1]", "warning"),
    ("UNUSED_COLLECTION", _edit("    collection_identifiers: [titles]\n", ""), "collections[0]", "info"),
    ("MISSING_INPUT_SCHEMA", _edit("    input_schema:\n      query: {type: text, required: true}\n", ""), "retrievers[0]", "warning"),
    ("MISSING_CACHE_CONFIG", _edit("    cache_config: {enabled: true, ttl_seconds: 60}\n", ""), "retrievers[0]", "info"),
    ("SUBOPTIMAL_STAGE_ORDER", _edit("    cache_config", _LLM + _FILTER + "    cache_config"), "retrievers[0].stages[2]", "warning"),
    ("DUPLICATE_FEATURE_URI", _edit("    cache_config", '            - feature_uri: mixpeek://text_extractor@v1/text_embedding\n              query: {input_mode: text, value: "{{INPUT.query}}"}\n    cache_config'), "retrievers[0].stages[0].searches[1]", "warning"),
    ("MISSING_DESCRIPTION", _edit("    description: What we sell\n", ""), "buckets[0]", "info"),
    ("NO_SEARCH_STAGE", _edit("stage_id: feature_search", "stage_id: limit"), "retrievers[0]", "warning"),
    ("EXTRACTOR_NOT_IN_NAMESPACE", _edit("feature_extractor_name: text_extractor", "feature_extractor_name: passthrough_extractor"), "collections[0].feature_extractor", "error"),
    ("MISSING_SECRET", _edit("description: What we sell", "description: ${{ secrets.NOPE }} ${{ secrets.API_KEY }}"), "buckets[0].description", "error"),
]  # fmt: skip


def test_a_good_manifest_gets_no_advice(manifest):
    assert _found(manifest) == []


@pytest.mark.parametrize(("code", "change", "location", "severity"), CASES, ids=[case[0] for case in CASES])
def test_a_rule_finds_its_case(manifest, code, change, location, severity):
    text = change(manifest)
    assert text != manifest

    found = [advice for advice in _found(text) if advice.code == code]

    assert [(advice.location, advice.severity) for advice in found] == [(location, severity)]
    assert _found(text, skip_rules={code}) == [advice for advice in _found(text) if advice.code != code]


def test_every_rule_has_a_case():
    assert {code for code, _ in RULES} == {case[0] for case in CASES}


def test_the_response_counts_by_severity(manifest):
    answer = response(_found(CASES[8][1](CASES[6][1](manifest))))

    assert answer["valid"] is False
    assert answer["summary"] == {"error": 1, "warning": 1, "info": 1}
    assert set(answer["results"][0]) == {"code", "severity", "message", "location", "suggestion", "fix_example"}


async def test_lint_shows_what_would_keep_it_from_being_applied(world, manifest):
    answer = await world.service().lint(
        "int_test", [("m.yaml", manifest.replace("bucket_ids: [products]", "bucket_ids: [x]"))]
    )

    assert not answer["valid"]
    assert answer["results"][0]["code"] == "MISSING_REFERENCE"
    assert answer["results"][0]["location"] == "collections[0].source.bucket_ids[0]"
