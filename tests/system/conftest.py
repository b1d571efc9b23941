"""One real server for all of `tests/system`, driven by the public SDK and, for what it cannot say, by httpx."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import mixpeek
import pytest
from mixpeek import Mixpeek
from tests.servers.mixpeek import KEY, Server, serving

_NUMBERS = itertools.count(1)
ENDED = {"COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED", "CANCELED"}
TEXTS = [
    ("Soup stays hot for a day in a steel flask", "kitchen", 35.0, "2026-01-05"),
    ("A cast iron pan wants oil and never soap", "kitchen", 60.0, "2026-02-11"),
    ("The moon map glows above the bed at night", "toys", 18.5, "2026-03-02"),
    ("A telescope shows a child the rings of Saturn", "toys", 120.0, "2026-03-20"),
    ("Walking boots keep your feet dry in the rain", "outdoor", 140.0, "2026-04-01"),
    ("A light tent for two sleeps well in the mountains", "outdoor", 260.0, "2026-05-15"),
]


def unique(prefix: str) -> str:
    """Return a name that no other test uses."""
    return f"{prefix}_{next(_NUMBERS)}"


def eventually(check: Callable[[], Any], *, within_s: float = 180.0) -> Any:
    """Return the first true answer of `check`; its last answer when time is over."""
    deadline = time.monotonic() + within_s
    while not (value := check()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return value


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace of the live server, and three clients that work in it."""

    url: str
    id: str
    name: str
    api: mixpeek.ApiClient
    http: httpx.Client
    mp: Mixpeek

    def bucket(self, **changes: Any) -> mixpeek.BucketResponse:
        """Make a bucket of texts, through the SDK."""
        schema: Any = {
            "properties": {
                "text": {"type": "text", "required": True},
                "category": {"type": "string"},
                "price": {"type": "float"},
                "added": {"type": "date"},
            }
        }
        body = {"bucket_name": unique("bucket"), "bucket_schema": schema, **changes}
        request = mixpeek.BucketCreateRequest.from_dict(body)
        assert request is not None
        return mixpeek.BucketsApi(self.api).create_bucket(request)

    def collection(self, source: dict[str, Any], **changes: Any) -> mixpeek.CollectionResponse:
        """Make a collection that embeds `text` of its source, through the SDK."""
        body = {
            "collection_name": unique("collection"),
            "source": source,
            "feature_extractor": {
                "feature_extractor_name": "text_extractor",
                "version": "v1",
                "input_mappings": {"text": "text"},
                "field_passthrough": [{"source_path": name} for name in ("category", "price", "added")],
            },
            **changes,
        }
        request = mixpeek.CreateCollectionRequest.from_dict(body)
        assert request is not None
        return mixpeek.CollectionsApi(self.api).create_collection(request)

    def fill(self, bucket_id: str) -> list[str]:
        """Put the six texts into a bucket and return their ids."""
        rows = [{"text": a, "category": b, "price": c, "added": d} for a, b, c, d in TEXTS]
        request = mixpeek.CreateObjectsBatchRequest.from_dict({"objects": rows})
        assert request is not None
        made = mixpeek.BucketObjectsApi(self.api).create_objects_batch_buckets(bucket_id, request)
        assert made.failed_count == 0, made.failed
        return [str(item.object_id) for item in made.succeeded]

    def run(self, bucket_id: str, object_ids: list[str]) -> mixpeek.BatchModel:
        """Process objects and return the batch when it has ended."""
        batches = mixpeek.BucketBatchesApi(self.api)
        request = mixpeek.CreateBatchRequest.from_dict({"object_ids": object_ids})
        assert request is not None
        made = batches.create_batch_buckets_batches(bucket_id, request)
        batches.submit_batch_buckets_batches(bucket_id, str(made.batch_id))
        return self.ended(bucket_id, str(made.batch_id))

    def ended(self, bucket_id: str, batch_id: str) -> mixpeek.BatchModel:
        """Return a batch as soon as it has ended."""
        batches = mixpeek.BucketBatchesApi(self.api)

        def look() -> mixpeek.BatchModel | None:
            found = batches.get_batch_buckets_batches(bucket_id, batch_id)
            return found if found.status is not None and found.status.value in ENDED else None

        batch = eventually(look)
        assert batch is not None, "the batch did not end"
        return batch


@dataclass(frozen=True, slots=True)
class Library:
    """A namespace whose two collections hold documents of six texts."""

    place: Place
    bucket_id: str
    object_ids: list[str]
    collection_id: str
    collection_name: str
    second_id: str
    """A collection fed by the first one."""


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("sdk")) as running:
        yield running


def settle(server: Server, namespace: str) -> Iterator[Place]:
    """Make a namespace, yield a place in it, and delete it with all it holds."""
    configuration = mixpeek.Configuration(host=server.url, access_token=KEY)
    with mixpeek.ApiClient(configuration) as api:
        request = mixpeek.CreateNamespaceRequest.from_dict(
            {
                "namespace_name": namespace,
                "feature_extractors": [{"feature_extractor_name": "text_extractor", "version": "v1"}],
                "payload_indexes": [{"field_name": "category", "type": "keyword"}],
            }
        )
        assert request is not None
        made = mixpeek.NamespacesApi(api).create_namespace(request)
    id = str(made.namespace_id)
    inside = mixpeek.Configuration(host=server.url, access_token=KEY, api_key={"NamespaceHeader": id})
    headers = {**server.headers, "X-Namespace": id}
    with mixpeek.ApiClient(inside) as api, httpx.Client(base_url=server.url, headers=headers, timeout=60) as http:
        yield Place(server.url, id, namespace, api, http, Mixpeek(KEY, namespace=id, base_url=f"{server.url}/v1"))
        http.delete(f"/v1/namespaces/{id}").raise_for_status()


@pytest.fixture(scope="session")
def place(live: Server) -> Iterator[Place]:
    """A namespace that the tests share; each uses names of its own."""
    yield from settle(live, "shared")


@pytest.fixture(scope="session")
def elsewhere(live: Server) -> Iterator[Place]:
    """Another namespace, from which nothing of the first may be seen."""
    yield from settle(live, "elsewhere")


@pytest.fixture(scope="session")
def library(live: Server) -> Iterator[Library]:
    for place in settle(live, "library"):
        bucket = place.bucket(bucket_name="texts")
        first = place.collection({"type": "bucket", "bucket_ids": [bucket.bucket_id]}, collection_name="sentences")
        second = place.collection({"type": "collection", "collection_id": first.collection_id}, collection_name="again")
        ids = place.fill(str(bucket.bucket_id))
        batch = place.run(str(bucket.bucket_id), ids)
        assert batch.status is mixpeek.TaskStatusEnum.COMPLETED, batch
        yield Library(
            place, str(bucket.bucket_id), ids, str(first.collection_id), "sentences", str(second.collection_id)
        )
