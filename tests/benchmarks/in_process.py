"""Search, attribute filter, sort and limit in this process: against pipelines of Haystack and LlamaIndex.

All three hold the same 20,000 vectors and texts and are checked to find the same. The two others keep them in the
in-memory stores that come with their packages (`requirements/bench.txt`, which only `make bench` installs).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from qdrant_edge import EdgeShard, ScrollRequest

from tests.benchmarks.corpus import NAMESPACE, loaded, queries
from tests.benchmarks.inside import inside
from tests.benchmarks.measure import Row, Timing, milliseconds, timed
from tests.benchmarks.pipeline import CANDIDATES, VECTOR, copied

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")

Documents = list[tuple[str, str, list[float]]]
"""Text, category and vector."""
Find = Callable[[dict[str, Any]], list[str]]
"""Inputs → texts of the documents found."""


def run(quick: bool) -> list[Row]:
    """Ask each the same questions, one after the other."""
    asked = queries(32)
    with loaded(20_000) as corpus:
        with copied(corpus) as shard:
            documents = _documents(shard)
        corpus.server.stop()
        with inside(corpus.server.data, NAMESPACE) as execute:

            def find(query: dict[str, Any]) -> list[str]:
                answer = execute("pipeline", {"inputs": query, "skip_cache": True})
                return [document["text"] for document in answer["documents"]]

            wanted = [find(query) for query in asked]
            mine = _timed(find, asked, repeat=200 if quick else 1000)
    rows = []
    for name, make in (("Haystack", _haystack), ("LlamaIndex", _llama_index)):
        other = make(documents)
        _same(name, wanted, [other(query) for query in asked])
        took = _timed(other, asked, repeat=10 if quick else 50)
        rows.append(
            Row(
                "search + attribute filter + sort + limit of 20,000 × 384, in process",
                milliseconds(mine),
                f"{milliseconds(took)} {name}",
                f"{mine.median / took.median:.3f} × (p99 {mine.p99 / took.p99:.3f} ×)",
                "< 1 ×",
            )
        )
    return rows


def _timed(find: Find, asked: list[dict[str, Any]], *, repeat: int) -> Timing:
    turn = iter(range(1 << 30))
    return timed(lambda: find(asked[next(turn) % len(asked)]), repeat=repeat)


def _same(name: str, wanted: list[list[str]], found: list[list[str]]) -> None:
    """Check that both find the same; an approximate index may miss one of a hundred."""
    common = sum(len(set(one) & set(other)) for one, other in zip(wanted, found, strict=True))
    if common < 0.98 * sum(map(len, found)):
        raise RuntimeError(f"{name} and we find {common} common documents of {sum(map(len, found))}")


def _documents(shard: EdgeShard) -> Documents:
    points, _ = shard.scroll(ScrollRequest(limit=20_000, with_payload=True, with_vector=True))
    return [
        (str(point.payload["text"]), str(point.payload["category"]), list(point.vector[VECTOR])) for point in points
    ]


def _haystack(documents: Documents) -> Find:
    from haystack import Document, Pipeline
    from haystack.components.rankers import MetaFieldRanker
    from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    store.write_documents(
        [
            Document(id=str(number), content=text, meta={"category": category, "text": text}, embedding=vector)
            for number, (text, category, vector) in enumerate(documents)
        ]
    )
    pipeline = Pipeline()
    pipeline.add_component("search", InMemoryEmbeddingRetriever(store, top_k=CANDIDATES))
    pipeline.add_component("sort", MetaFieldRanker("text", weight=1.0, top_k=10, sort_order="ascending"))
    pipeline.connect("search.documents", "sort.documents")

    def find(query: dict[str, Any]) -> list[str]:
        wanted = {"field": "meta.category", "operator": "==", "value": query["category"]}
        found = pipeline.run({"search": {"query_embedding": query["vector"], "filters": wanted}})
        return [document.content for document in found["sort"]["documents"]]

    return find


def _llama_index(documents: Documents) -> Find:
    from llama_index.core import QueryBundle, StorageContext, VectorStoreIndex
    from llama_index.core.embeddings import MockEmbedding
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import NodeWithScore, TextNode
    from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, SimpleVectorStore

    class SortByText(BaseNodePostprocessor):
        def _postprocess_nodes(
            self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
        ) -> list[NodeWithScore]:
            return sorted(nodes, key=lambda item: item.node.get_content())[:10]

    nodes = [
        TextNode(id_=str(number), text=text, metadata={"category": category}, embedding=vector)
        for number, (text, category, vector) in enumerate(documents)
    ]
    context = StorageContext.from_defaults(vector_store=SimpleVectorStore())
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=MockEmbedding(embed_dim=384))
    sort = SortByText()

    def find(query: dict[str, Any]) -> list[str]:
        filters = MetadataFilters(filters=[MetadataFilter(key="category", value=query["category"])])
        retriever = index.as_retriever(similarity_top_k=CANDIDATES, filters=filters)
        found = retriever.retrieve(QueryBundle("", embedding=query["vector"]))
        return [item.node.get_content() for item in sort.postprocess_nodes(found)]

    return find
