"""Each lint rule finds its case, and only its case."""

# ruff: noqa: E501 - a table of cases reads best with one case per line

import pytest

from mixpeek_operator.manifest.lint import RULES, View, lint, response
from mixpeek_operator.manifest.parse import parse
from mixpeek_operator.manifest.registry import schemas
from mixpeek_operator.manifest.secrets import problems_of, unmet
from mixpeek_operator.retrieval.registry import StageRegistry


class _Stages:
    stage_needs = staticmethod(StageRegistry().needs)


def _found(text, **options):
    manifest = parse(text, schemas())
    needed = unmet(manifest, _Stages(), ("API_KEY",), ("crm",))
    return lint(View(manifest, schemas(), ("API_KEY",), unmet=needed), **options)


def _edit(old, new):
    return lambda text: text.replace(old, new, 1)


_FILTER = "      - {stage_name: cut, stage_id: attribute_filter, parameters: {field: price, operator: gt, value: 3}}\n"
_LLM = "      - {stage_name: judge, stage_id: llm_filter, parameters: {criteria: good}}\n"
_WEB = "".join(
    f"      - {{stage_name: {name}, stage_id: external_web_search, parameters: {{query: lamps, secret_ref: {name}}}}}\n"
    for name in ("API_KEY", "NOPE")
)
_KEY = (
    "      - {stage_name: judge, stage_id: llm_filter, parameters: {criteria: good, api_key: '${{ secrets.NOPE }}'}}\n"
)
_ROWS = "".join(
    f"      - {{stage_name: {name}, stage_id: sql_lookup, parameters: {{connection_id: {name}, query: SELECT 1 AS one}}}}\n"
    for name in ("crm", "erp")
)

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
    ("MISSING_SECRET", _edit("    cache_config", _WEB + "    cache_config"), "retrievers[0].stages[2].parameters.secret_ref", "error"),
    ("MISSING_SECRET", _edit("    cache_config", _KEY + "    cache_config"), "retrievers[0].stages[1].parameters.api_key", "error"),
    ("MISSING_CONNECTION", _edit("    cache_config", _ROWS + "    cache_config"), "retrievers[0].stages[2].parameters.connection_id", "error"),
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


def test_a_placeholder_that_a_stage_uses_is_told_once_and_what_is_nested_has_its_place(manifest):
    inner = "{stages: [{stage_id: external_web_search, parameters: {query: lamps, secret_ref: NOPE}}]}"
    nested = f"      - {{stage_name: join, stage_id: document_enrich, parameters: {{retriever_config: {inner}}}}}\n"
    parsed = parse(manifest.replace("    cache_config", _KEY + nested + "    cache_config", 1), schemas())

    (problem,) = problems_of(parsed, unmet(parsed, _Stages(), (), ()))

    assert problem.code == "missing_secret" and problem.place.line == 1 + parsed.sources[0].text[
        : parsed.sources[0].text.index(nested)
    ].count("\n")
    assert problem.place.path.endswith("stages[2].parameters.retriever_config.stages[0].parameters.secret_ref")


async def test_lint_knows_the_secrets_and_connections_of_the_organization(world, manifest):
    stages = "      - {stage_name: web, stage_id: limit, parameters: {secret_ref: NOPE, connection_id: erp}}\n"
    text = manifest.replace("    cache_config", stages + "    cache_config", 1)
    text = text.replace("description: What we sell", "description: ${{ secrets.NOPE }}")

    answer = await world.service().lint("int_test", [("m.yaml", text)])
    skipped = await world.service().lint(
        "int_test", [("m.yaml", text)], skip_rules=["MISSING_SECRET", "MISSING_CONNECTION"]
    )

    where = "retrievers[0].stages[1].parameters"
    assert [(item["code"], item["location"]) for item in answer["results"]] == [
        ("MISSING_SECRET", "buckets[0].description"),
        ("MISSING_SECRET", f"{where}.secret_ref"),
        ("MISSING_CONNECTION", f"{where}.connection_id"),
    ]
    assert skipped["valid"] and skipped["results"] == []


async def test_lint_shows_what_would_keep_it_from_being_applied(world, manifest):
    answer = await world.service().lint(
        "int_test", [("m.yaml", manifest.replace("bucket_ids: [products]", "bucket_ids: [x]"))]
    )

    assert not answer["valid"]
    assert answer["results"][0]["code"] == "MISSING_REFERENCE"
    assert answer["results"][0]["location"] == "collections[0].source.bucket_ids[0]"
