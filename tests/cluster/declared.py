"""Sets of custom resources of every kind, and what tests ask of them."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable
from typing import Any

from tests.servers.kubernetes.control_plane import ControlPlane

URI = "mixpeek://text_extractor@v1/text_embedding"
KINDS = ("namespaces", "buckets", "collections", "extractors", "taxonomies", "clusters", "retrievers")
ALL = ",".join(f"{plural}.mixpeek.com" for plural in KINDS)
Object = dict[str, Any]


def declare(kind: str, name: str, spec: Object, namespace: str | None = None) -> Object:
    """Return a custom resource; `namespace` is the Mixpeek namespace it belongs to."""
    full = name if namespace is None else f"{namespace}.{name}"
    if namespace is not None:
        spec = {"name": name, "namespace": namespace, **spec}
    return {
        "apiVersion": "mixpeek.com/v1alpha1",
        "kind": kind,
        "metadata": {"name": full.replace("_", "-")},
        "spec": spec,
    }


def namespace(name: str, **spec: Any) -> Object:
    """Return a Namespace that uses the text extractor."""
    return declare(
        "Namespace", name, {"featureExtractors": [{"featureExtractorName": "text_extractor", "version": "v1"}], **spec}
    )


def bucket(owner: str, name: str, **spec: Any) -> Object:
    """Return a Bucket of texts."""
    schema = {"properties": {"text": {"type": "text", "required": True}, "topic": {"type": "string"}}}
    return declare("Bucket", name, {"bucketSchema": schema, **spec}, owner)


def collection(owner: str, name: str, source: str, /, **spec: Any) -> Object:
    """Return a Collection that embeds the texts of a bucket."""
    extractor = {"featureExtractorName": "text_extractor", "version": "v1", "inputMappings": {"text": "text"}}
    given = {"source": {"type": "bucket", "bucketIds": [source]}, "featureExtractor": extractor, **spec}
    return declare("Collection", name, given, owner)


def retriever(owner: str, name: str, searched: str, **spec: Any) -> Object:
    """Return a Retriever that searches a collection by meaning."""
    search = {"feature_uri": URI, "query": {"input_mode": "text", "value": "{{INPUT.query_text}}"}, "top_k": 10}
    stage = {
        "stageName": "search",
        "stageType": "filter",
        "stageId": "feature_search",
        "parameters": {"searches": [search], "final_top_k": 5},
    }
    given = {
        "collectionIdentifiers": [searched],
        "inputSchema": {"query_text": {"type": "text", "required": True}},
        "stages": [stage],
        **spec,
    }
    return declare("Retriever", name, given, owner)


def whole_set(owner: str) -> list[Object]:
    """Return one resource of every kind, each referring to others, in order."""
    return [
        namespace(owner),
        bucket(owner, "articles"),
        bucket(owner, "topics"),
        collection(owner, "article_texts", "articles"),
        collection(owner, "topic_names", "topics"),
        retriever(owner, "topic_lookup", "topic_names"),
        declare(
            "Taxonomy",
            "topic_labels",
            {
                "config": {
                    "taxonomyType": "flat",
                    "retrieverId": "topic_lookup",
                    "inputMappings": [{"inputKey": "query_text", "sourceType": "payload", "path": "text"}],
                    "sourceCollection": {
                        "collectionId": "topic_names",
                        "enrichmentFields": [{"fieldPath": "topic", "targetField": "topic"}],
                    },
                }
            },
            owner,
        ),
        declare(
            "Cluster",
            "stories",
            {
                "collectionIds": ["article_texts"],
                "clusterType": "vector",
                "vectorConfig": {
                    "featureUris": [URI],
                    "clusteringMethod": "kmeans",
                    "kmeansParameters": {"n_clusters": 4},
                },
            },
            owner,
        ),
        declare(
            "Extractor",
            "text_extractor",
            {"version": "v1", "source": {"containerImage": "mixpeek-engine:0.1.0"}},
            owner,
        ),
    ]


class Tenant:
    """One organization: a Kubernetes namespace with custom resources in it."""

    def __init__(self, plane: ControlPlane, name: str) -> None:
        self.plane = plane
        self.name = name

    def apply(self, objects: Iterable[Object]) -> None:
        """`kubectl apply` all of it in one go, in the order given."""
        body = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.plane.kubectl("-n", self.name, "apply", "-f", "-", stdin=body)

    def shuffled(self, objects: Iterable[Object], seed: int) -> None:
        """Apply in an order that `seed` makes."""
        mixed = list(objects)
        random.Random(seed).shuffle(mixed)
        self.apply(mixed)

    def delete(self, *objects: Object, wait: bool = False) -> None:
        """`kubectl delete` these."""
        body = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.plane.kubectl(
            "-n", self.name, "delete", f"--wait={str(wait).lower()}", "--ignore-not-found", "-f", "-", stdin=body
        )

    def everything(self) -> list[Object]:
        """Return every custom resource, with its managed fields."""
        text = self.plane.kubectl("-n", self.name, "get", ALL, "-o", "json", "--show-managed-fields")
        assert text is not None
        return list(json.loads(text)["items"])

    def get(self, made: Object) -> Object | None:
        """Return a resource as it is, None when it is gone."""
        kind = f"{made['kind'].lower()}.mixpeek.com"
        text = self.plane.kubectl("-n", self.name, "get", kind, made["metadata"]["name"], "-o", "json", check=False)
        return None if text is None else dict(json.loads(text))

    def ready(self, *objects: Object) -> bool:
        """Whether all of these are Ready at their generation."""
        return all(is_ready(self.get(item)) for item in objects)

    def all_ready(self, count: int) -> bool:
        """Whether there are `count` resources and all are Ready."""
        found = self.everything()
        return len(found) == count and all(is_ready(item) for item in found)

    def condition(self, made: Object, type: str = "Ready") -> Object:
        """Return a condition of a resource, {} when it has none."""
        return condition(self.get(made), type)

    def events(self, reason: str | None = None) -> list[Object]:
        """Return what was told, under `reason` when given; the operator writes it behind its work."""
        text = self.plane.kubectl("-n", self.name, "get", "events", "-o", "json")
        assert text is not None
        return [item for item in json.loads(text)["items"] if reason in (None, item["reason"])]


def condition(item: Object | None, type: str = "Ready") -> Object:
    """Return a condition of an object, {} when there is none."""
    found = ((item or {}).get("status") or {}).get("conditions") or []
    return next((dict(one) for one in found if one["type"] == type), {})


def is_ready(item: Object | None) -> bool:
    """Whether an object is Ready at its generation."""
    ready = condition(item)
    return ready.get("status") == "True" and ready.get("observedGeneration") == (item or {})["metadata"]["generation"]


def eventually(
    holds: Callable[[], Any], within_s: float = 180, every_s: float = 0.1, say: Callable[[], Any] = str
) -> Any:
    """Return what `holds` returns once that is true. AssertionError with what `say` returns after `within_s`."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        found = holds()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {within_s} s: {say()}")
