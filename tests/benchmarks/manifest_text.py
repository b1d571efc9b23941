"""A manifest of any size, of the kinds in the proportions a team has."""

from __future__ import annotations


def manifest(resources: int) -> str:
    """Return a manifest of `resources` resources: one namespace, and buckets, collections and retrievers."""
    groups, rest = divmod(resources - 1, 3)
    sections = {
        "buckets": [_BUCKET.format(n=index) for index in range(groups + (rest > 0))],
        "collections": [_COLLECTION.format(n=index) for index in range(groups + (rest > 1))],
        "retrievers": [_RETRIEVER.format(n=index) for index in range(groups)],
    }
    return _HEAD + "".join(f"{name}:\n{''.join(entries)}" for name, entries in sections.items())


_HEAD = """version: "1.0"
metadata: {name: large}
namespaces:
  - name: large
    description: A namespace with many resources
    feature_extractors:
      - {name: text_extractor, version: v1}
"""
_BUCKET = """  - name: bucket_{n}
    namespace: large
    description: Articles of desk {n}
    schema:
      properties:
        title: {{type: string, required: true}}
        body: {{type: text, required: true}}
        category: {{type: string}}
        price: {{type: number}}
"""
_COLLECTION = """  - name: collection_{n}
    namespace: large
    description: Embedded articles of desk {n}
    source: {{type: bucket, bucket_ids: [bucket_{n}]}}
    feature_extractor:
      feature_extractor_name: text_extractor
      version: v1
      input_mappings: {{text: body}}
      field_passthrough:
        - {{source_path: title}}
        - {{source_path: category}}
"""
_RETRIEVER = """  - name: retriever_{n}
    namespace: large
    description: Search in the articles of desk {n}
    collection_identifiers: [collection_{n}]
    input_schema:
      query: {{type: text, required: true}}
      category: {{type: string}}
    cache_config: {{enabled: true, ttl_seconds: 300}}
    stages:
      - stage_name: search
        stage_type: filter
        config:
          stage_id: feature_search
          parameters:
            searches:
              - feature_uri: mixpeek://text_extractor@v1/text_embedding
                query: {{input_mode: text, value: "{{{{INPUT.query}}}}"}}
                top_k: 50
            final_top_k: 10
      - stage_name: only
        stage_type: filter
        config:
          stage_id: attribute_filter
          parameters: {{field: category, operator: eq, value: "{{{{INPUT.category}}}}"}}
"""
