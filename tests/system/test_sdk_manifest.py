"""Manifests through the public SDK: checked, applied, compared and given back."""

from __future__ import annotations

from typing import Any

import httpx
import mixpeek
import pytest
import yaml
from tests.servers.mixpeek import KEY, Server
from tests.system.conftest import unique

MANIFEST = """version: "1.0"
metadata: {{name: {name}}}
retrievers:
  - name: finder
    namespace: {name}
    description: Finds texts
    collection_identifiers: [texts]
    input_schema: {{query: {{type: text, required: true}}}}
    cache_config: {{enabled: true}}
    stages:
      - stage_name: search
        config:
          stage_id: feature_search
          parameters:
            searches:
              - feature_uri: mixpeek://text_extractor@v1/text_embedding
                query: {{input_mode: text, value: "{{{{INPUT.query}}}}"}}
                top_k: 5
collections:
  - name: texts
    namespace: {name}
    description: Texts
    source: {{type: bucket, bucket_ids: [raw]}}
    feature_extractor: {{feature_extractor_name: text_extractor, version: v1, input_mappings: {{text: text}}}}
buckets:
  - name: raw
    namespace: {name}
    description: Raw texts
    schema: {{properties: {{text: {{type: text, required: true}}}}}}
namespaces:
  - name: {name}
    description: A tenant
    feature_extractors: [{{name: text_extractor, version: v1}}]
"""


@pytest.fixture(scope="module")
def manifests(live: Server) -> Any:
    with mixpeek.ApiClient(mixpeek.Configuration(host=live.url, access_token=KEY)) as client:
        yield mixpeek.ManifestApi(client)


def test_a_manifest_from_check_to_export(live: Server, manifests: mixpeek.ManifestApi) -> None:
    name = unique("declared")
    text = MANIFEST.format(name=name)
    checked = manifests.validate_manifest(text)
    assert (checked.valid, checked.errors, checked.missing_secrets) == (True, [], [])
    assert checked.resources is not None
    assert {kind: count for kind, count in checked.resources.items() if count} == {
        "namespaces": 1,
        "buckets": 1,
        "collections": 1,
        "retrievers": 1,
    }
    rehearsed = manifests.apply_manifest(text, dry_run=True)
    assert (rehearsed.success, rehearsed.dry_run, rehearsed.would_create_count) == (True, True, 4)
    assert {item.name for item in manifests.diff_manifest(text).to_create or []} == {name, "raw", "texts", "finder"}
    applied = manifests.apply_manifest(text)
    assert (applied.success, applied.created_count, applied.failed_count) == (True, 4, 0)
    assert (applied.rollback_performed, applied.rollback_orphans) == (False, [])
    assert all(item.resource_id for item in applied.resources or [])
    again = manifests.apply_manifest(text, mode=mixpeek.ApplyMode.UPSERT)
    assert (again.success, again.created_count, again.updated_count, again.skipped_count) == (True, 0, 0, 4)
    assert manifests.apply_manifest(text, mode=mixpeek.ApplyMode.CREATE_ONLY).created_count == 0
    diff = manifests.diff_manifest(text)
    assert diff.to_create == []
    assert {item.to_dict()["action"] for item in diff.differences or []} <= {"unchanged"}
    changed = text.replace("Finds texts", "Finds more")
    assert "update" in {item.to_dict()["action"] for item in manifests.diff_manifest(changed).differences or []}
    assert manifests.apply_manifest(changed).updated_count == 1
    headers = {**live.headers, "X-Namespace": name}
    read = httpx.get(f"{live.url}/v1/retrievers/finder", headers=headers).json()
    assert (read["description"], read["version"]) == ("Finds more", 2)
    exported: Any = manifests.export_manifest_get(namespace_id=name, format="json")
    assert exported is not None
    answer = httpx.get(
        f"{live.url}/v1/manifest/export", params={"namespace_id": name, "format": "yaml"}, headers=live.headers
    )
    assert answer.headers["content-type"].startswith("text/yaml")
    document = yaml.safe_load(answer.text)
    assert [item["name"] for item in document["retrievers"]] == ["finder"]
    assert document["collections"][0]["source"]["bucket_ids"] == ["raw"]
    assert manifests.apply_manifest(answer.text).created_count == 0
    posted: Any = manifests.export_manifest_post(export_request=mixpeek.ExportRequest([name]))
    assert posted is not None
    mixpeek.NamespacesApi(manifests.api_client).delete_namespace(name)


def test_every_mistake_is_told_at_once(manifests: mixpeek.ManifestApi) -> None:
    text = MANIFEST.format(name=unique("wrong"))
    text = text.replace("[raw]", "[nowhere]").replace("stage_id: feature_search", "stage_id: no_such")
    text = text.replace("type: text, required: true}}\n", "type: text, required: true}}\n    colour: red\n")
    found = manifests.validate_manifest(text)
    assert found.valid is False
    told = "\n".join(found.errors or [])
    for word in ("nowhere", "no_such", "colour"):
        assert word in told
    applied = manifests.apply_manifest(text)
    assert (applied.success, applied.created_count, applied.rollback_orphans) == (False, 0, [])


def test_lint_and_rules_left_out(manifests: mixpeek.ManifestApi) -> None:
    text = MANIFEST.format(name=unique("lint")).replace("    cache_config: {enabled: true}\n", "")
    codes = {item.code for item in manifests.lint_manifest(text).results or []}
    assert "MISSING_CACHE_CONFIG" in codes
    left = manifests.lint_manifest(text, skip_rules=["MISSING_CACHE_CONFIG"])
    assert "MISSING_CACHE_CONFIG" not in {item.code for item in left.results or []}


def test_a_secret_that_is_missing_is_named(manifests: mixpeek.ManifestApi) -> None:
    name = unique("secret")
    text = MANIFEST.format(name=unique("needs")).replace("A tenant", "${{ secrets." + name + " }}")
    assert manifests.validate_manifest(text).missing_secrets == [name]


def test_a_file_part_and_a_form_field_are_the_same(live: Server) -> None:
    text = MANIFEST.format(name=unique("form"))
    url = f"{live.url}/v1/manifest/validate"
    for sent in ({"files": {"manifest_file": ("m.yaml", text)}}, {"data": {"manifest_file": text}}):
        assert httpx.post(url, headers=live.headers, **sent).json()["valid"] is True  # type: ignore[arg-type]
