"""A bad manifest is told where it is wrong, file, line and column, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from tests.servers.mixpeek import Server
from tests.system.conftest import unique
from tests.system.refusals import DEEP, SECRET, TIMELY_S, clean, export, refused

HEAD = 'version: "1.0"\n'
SPACE = "namespaces:\n  - name: q\n    feature_extractors: [{feature_extractor_name: text_extractor, version: v1}]\n"
BUCKET = "buckets:\n  - name: b\n    namespace: q\n    schema: {properties: {text: {type: text}}}\n"
COLLECTION = """collections:
  - name: c
    namespace: q
    source: {type: bucket, bucket_ids: [b]}
    feature_extractor: {feature_extractor_name: text_extractor, version: v1, input_mappings: {text: text}}
"""
RETRIEVER = """retrievers:
  - name: r
    namespace: q
    collection_identifiers: [c]
    input_schema: {query: {type: text, required: true}}
    stages:
      - stage_name: search
        stage_type: filter
        config:
          stage_id: feature_search
          parameters:
            searches:
              - feature_uri: mixpeek://text_extractor@v1/text_embedding
                query: {input_mode: text, value: "{{INPUT.query}}"}
                top_k: 5
            final_top_k: 5
"""
WHOLE = HEAD + SPACE + BUCKET + COLLECTION + RETRIEVER
STAGE = """      - stage_name: more
        stage_type: filter
        config: {stage_id: attribute_filter, parameters: %s}
"""
FED = "source: {type: bucket, bucket_ids: [b]}"
CYCLE = COLLECTION.replace(FED, "source: {type: collection, collection_id: d}") + COLLECTION.replace(
    "collections:\n", ""
).replace("name: c", "name: d").replace(FED, "source: {type: collection, collection_id: c}")
LAUGHS = HEAD + "a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]\n"
LAUGHS += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


def changed(old: str, new: str, text: str = WHOLE) -> str:
    """Return a good manifest made bad in one place."""
    assert old in text
    return text.replace(old, new)


MANIFESTS: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "no YAML": (HEAD + "buckets: [a, {b\n", ("m.yaml:3:1", "not YAML")),
    "a tab": (HEAD + "buckets:\n\t- name: b\n", ("m.yaml:3", "tab")),
    "no text": (b"version: \xff\xfe", ("m.yaml:1", "UTF-8")),
    "no mapping": ("- a\n- b\n", ("m.yaml:1:1", "mapping")),
    "billion laughs": (LAUGHS, ("m.yaml:8", "aliases")),
    "alias in itself": (HEAD + "buckets: &a [*a]\n", ("m.yaml:2", "contains itself")),
    "a tag that runs code": (HEAD + "buckets: !!python/object/apply:os.system [id]\n", ("m.yaml:2", "tag")),
    "deep YAML": (HEAD + "buckets: " + "[" * DEEP + "]" * DEEP, ("m.yaml:2", "nested deeper")),
    "deep JSON": ('{"buckets":' + "[" * DEEP + "]" * DEEP + "}", ("m.yaml:1", "nested deeper")),
    "unknown section": (changed("buckets:", "bukets:"), ("m.yaml:5:1", "did you mean 'buckets'")),
    "unknown key": (
        changed("    schema:", "    shcema:"),
        ("m.yaml:8:5", "buckets[0].shcema", "did you mean 'schema'"),
    ),
    "section of a wrong type": (HEAD + SPACE + "buckets: {a: 1}\n", ("m.yaml:5:1", "list")),
    "field of a wrong type": (
        changed("properties: {text: {type: text}}", "properties: 7"),
        ("m.yaml:8:14", "buckets[0].schema.properties", "expected a mapping, found the number 7"),
    ),
    "duplicate key": (changed("    schema:", "    name: other\n    schema:"), ("m.yaml:8:5", "duplicate key 'name'")),
    "duplicate name": (
        HEAD + SPACE + BUCKET + BUCKET.replace("buckets:\n", ""),
        ("m.yaml:9:5", "declared twice", "the first is at m.yaml:6:5"),
    ),
    "missing reference": (
        changed("bucket_ids: [b]", "bucket_ids: [bb]"),
        ("m.yaml:12:41", "collections[0].source.bucket_ids[0]", "'bb' does not exist", "did you mean 'b'"),
    ),
    "cycle": (HEAD + SPACE + BUCKET + CYCLE, ("m.yaml:10:5", "Collection q/c → Collection q/d → Collection q/c")),
    "reference out of the namespace": (
        HEAD + SPACE + "  - name: p\n" + BUCKET.replace("namespace: q", "namespace: p") + COLLECTION,
        ("m.yaml:13:41", "bucket_ids[0]", "cannot leave its namespace"),
    ),
    "unknown extractor": (
        changed(
            "{feature_extractor_name: text_extractor, version: v1, input",
            "{feature_extractor_name: txt_extractor, version: v1, input",
        ),
        ("m.yaml:13:25", "did you mean 'text_extractor'"),
    ),
    "unknown stage": (changed("feature_search", "feature_serch"), ("m.yaml:20", "did you mean 'feature_search'")),
    "unknown feature URI": (
        changed("/text_embedding", "/text_embeding"),
        ("m.yaml:26:17", "searches[0].feature_uri", "text_embeding is not available", "did you mean"),
    ),
    "missing secret": (
        changed("    schema:", "    metadata: {token: '${{ secrets.NOPE }}'}\n    schema:"),
        ("m.yaml:8:16", "buckets[0].metadata.token", "secret 'NOPE' is not configured"),
    ),
    "template that does not parse": (
        changed("{{INPUT.query}}", "{{INPUT.query"),
        ("m.yaml:27", "query.value", "never closed"),
    ),
    "template filter that is unknown": (
        changed("{{INPUT.query}}", "{{ INPUT.query | shout }}"),
        ("m.yaml:27", "query.value", "unknown filter 'shout'"),
    ),
    "filter operator in a search": (
        changed("                top_k: 5", "                filters: {AND: [{field: a, operator: zz, value: 1}]}"),
        ("m.yaml:28", "searches[0].filters", "unknown operator 'zz'"),
    ),
    "filter operator in attribute_filter": (
        WHOLE + STAGE % "{field: a, operator: zz, value: 1}",
        ("m.yaml:32", "stages[1].parameters", "unknown operator 'zz'"),
    ),
    "negative limit": (changed("final_top_k: 5", "final_top_k: -5"), ("m.yaml:29:13", "final_top_k", "greater")),
    "NUL": (changed("name: b\n", "name: 'b\0c'\n"), ("m.yaml:6", "not allowed")),
    "NUL, escaped": (changed("name: b\n", 'name: "b\\0c"\n'), ("m.yaml:6:5", "buckets[0].name", "no usable name")),
    "half a character": (changed("name: b\n", 'name: "b\\uD800"\n'), ("m.yaml:6:15", "Unicode")),
    "half a character in JSON": (
        json.dumps({"buckets": [{"name": "b", "namespace": "q", "metadata": {"a": "\ud800"}}]}),
        ("m.yaml:1:", "Unicode"),
    ),
    "huge number": (
        changed("    schema:", f"    metadata: {{n: {'9' * 40}}}\n    schema:"),
        ("m.yaml:8:19", "does not fit into 64 bits"),
    ),
    "huge number in JSON": (
        '{"buckets": [{"name": "b", "namespace": "q", "metadata": {"n": ' + "9" * 5000 + "}}]}",
        ("m.yaml:1:", "does not fit into 64 bits"),
    ),
    "slash in a name": (changed("name: b\n", "name: a/b\n"), ("m.yaml:6:5", "buckets[0].name", "no usable name")),
    "climbing name": (changed("name: b\n", "name: ../b\n"), ("m.yaml:6:5", "buckets[0].name", "no usable name")),
    "other letters in a name": (changed("name: b\n", "name: bücket 名\n"), ("m.yaml:6:5", "no usable name")),
}


@pytest.fixture(scope="module")
def root(live: Server) -> Iterator[httpx.Client]:
    """A client of the organization, which has one secret."""
    with httpx.Client(base_url=live.url, headers=live.headers, timeout=60) as http:
        made = http.post("/v1/organizations/secrets", json={"secret_name": "KNOWN", "secret_value": SECRET})
        assert made.status_code == 200, made.text
        yield http
        http.delete("/v1/organizations/secrets/KNOWN")


@pytest.mark.parametrize("case", MANIFESTS)
def test_bad_manifests_change_nothing(root: httpx.Client, case: str) -> None:
    text, words = MANIFESTS[case]
    content = text if isinstance(text, bytes) else text.encode()
    before = export(root)
    for verb in ("validate", "apply", "diff"):
        answer = root.post(f"/v1/manifest/{verb}", files={"manifest_file": ("m.yaml", content, "application/yaml")})
        assert answer.elapsed.total_seconds() < TIMELY_S
        clean(answer.text)
        if verb == "diff":
            # A diff may be asked for before the secrets are made.
            assert answer.status_code in ((200, 422) if "secret" in case else (422,)), answer.text
            continue
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["valid" if verb == "validate" else "success"] is False
        said = "\n".join(body["errors"])
        for word in words:
            assert word in said, f"{verb}: no {word!r} in: {said[:1000]}"
    assert export(root) == before
    assert root.get("/v1/health").status_code == 200


def test_an_immutable_field_is_refused_as_a_whole(root: httpx.Client) -> None:
    name = unique("immutable")
    good = (HEAD + SPACE + BUCKET + COLLECTION).replace("name: q", f"name: {name}")
    good = good.replace("namespace: q", f"namespace: {name}")
    assert root.post("/v1/manifest/apply", files={"manifest_file": ("m.yaml", good)}).json()["success"] is True
    before = export(root)
    listed = "{feature_extractor_name: text_extractor, version: v1}"
    more = good.replace(listed, f"{listed}, {listed.replace('text_', 'passthrough_')}")
    bad = more.replace(
        "{feature_extractor_name: text_extractor, version: v1, input_mappings: {text: text}}",
        "{feature_extractor_name: passthrough_extractor, version: v1}",
    )
    answer = root.post("/v1/manifest/apply", files={"manifest_file": ("m.yaml", bad)}).json()
    assert answer["success"] is False
    assert "m.yaml:13" in answer["errors"][0]
    assert "feature_extractor.feature_extractor_name" in answer["errors"][0]
    assert "cannot change" in answer["errors"][0]
    assert export(root) == before
    change = {"feature_extractor": {"feature_extractor_name": "passthrough_extractor", "version": "v1"}}
    refused(
        root.patch("/v1/collections/c", json=change, headers={"X-Namespace": name}),
        (409, 422),
        "feature_extractor_name",
    )
    assert export(root) == before
    assert root.delete(f"/v1/namespaces/{name}").status_code == 200


@pytest.mark.parametrize("way", ["file", "field", "body", "chunks"])
def test_a_manifest_of_50_megabytes_is_too_large(root: httpx.Client, way: str) -> None:
    before = export(root)
    text = b"#" + b"x" * (50 * 1024 * 1024)
    if way == "chunks":
        parts = (text[start : start + 1024 * 1024] for start in range(0, len(text), 1024 * 1024))
        answer = root.post("/v1/manifest/apply", content=parts)
    elif way == "body":
        answer = root.post("/v1/manifest/apply", content=text)
    else:
        name = "m.yaml" if way == "file" else None
        answer = root.post("/v1/manifest/apply", files={"manifest_file": (name, text)})
    refused(answer, 413, "limit")
    assert export(root) == before
