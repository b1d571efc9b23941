"""From `helm install` to `helm uninstall` on a real cluster of one node. The tests build on each other, in order."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import mixpeek

from tests.e2e.conftest import (
    NODE,
    QDRANT_KEY,
    RELEASE,
    REPOSITORY,
    SYSTEM,
    Places,
    eventually,
    helm,
    inventory,
    kubectl,
)

EXAMPLES = REPOSITORY / "examples" / "kubernetes"
DEDICATED = Path(__file__).with_name("dedicated.yaml")
HERE = ("-n", SYSTEM)
ENDED = {"COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED", "CANCELED"}
ARTICLES = [
    ("refund", "Money back", "Send the goods back within thirty days and the price is paid back to your card."),
    ("battery", "Short battery life", "Turn down the screen and the radio, and the battery lasts through the day."),
    ("password", "Cannot sign in", "Ask for a new password by mail, then choose one that you use nowhere else."),
]
TOPICS = [("payment", "Money, prices, cards and refunds"), ("device", "Batteries, screens and other hardware")]
Connect = Callable[[str], mixpeek.ApiClient]


def upload(api: mixpeek.ApiClient, bucket: str, objects: Sequence[dict[str, Any]]) -> list[str]:
    """Put objects into a bucket and return their ids."""
    request = mixpeek.CreateObjectsBatchRequest.from_dict({"objects": list(objects)})
    assert request is not None
    made = mixpeek.BucketObjectsApi(api).create_objects_batch_buckets(bucket, request)
    assert made.failed_count == 0, made.failed
    return [str(item.object_id) for item in made.succeeded]


def process(api: mixpeek.ApiClient, bucket: str, ids: list[str]) -> mixpeek.BatchModel:
    """Run a batch of objects and return it when it has ended."""
    batches = mixpeek.BucketBatchesApi(api)
    request = mixpeek.CreateBatchRequest.from_dict({"object_ids": ids})
    assert request is not None
    made = batches.create_batch_buckets_batches(bucket, request)
    batches.submit_batch_buckets_batches(bucket, str(made.batch_id))

    def look() -> mixpeek.BatchModel | None:
        found = batches.get_batch_buckets_batches(bucket, str(made.batch_id))
        return found if found.status is not None and found.status.value in ENDED else None

    batch = eventually(look, "the batch ends")
    assert batch.status is mixpeek.TaskStatusEnum.COMPLETED, batch
    return batch


def ask(api: mixpeek.ApiClient, retriever: str, **inputs: str) -> list[Any]:
    """Return the documents that a retriever finds."""
    request = mixpeek.ExecuteRetrieverRequest.from_dict({"inputs": inputs})
    assert request is not None
    return mixpeek.RetrieversApi(api).execute_retriever(retriever, request).documents or []


def declared(kind: str, name: str) -> dict[str, Any]:
    """Return a resource as it is on the cluster."""
    found: dict[str, Any] = json.loads(kubectl(*HERE, "get", kind, name, "-o", "json"))
    return found


def reachable(url: str) -> str:
    """Return a URL that pods use, as the node resolves it: pods have search domains."""
    return url.replace(".svc:", ".svc.cluster.local:")


def endpoint() -> str:
    """Return where the extractor's application answers."""
    return reachable(declared("extractor.mixpeek.com", "rayhouse.text-extractor")["status"]["endpoint"])


def deployed() -> set[str]:
    """Return the versions of the extractor's application that Ray Serve says it runs."""
    dashboard = reachable(declared("namespace.mixpeek.com", "rayhouse")["status"]["rayDashboardUrl"])
    found = httpx.get(f"{dashboard}/api/serve/applications/", timeout=30).raise_for_status().json()["applications"]
    return {
        item["deployed_app_config"]["args"]["version"]
        for name, item in found.items()
        if name.endswith("extractors.text_extractor") and item["status"] == "RUNNING"
    }


def test_the_release_runs_and_its_own_test_passes(release: str) -> None:
    assert release.startswith("mxp_")
    listed = json.loads(kubectl(*HERE, "get", "pods", "-o", "json"))["items"]
    assert {item["metadata"]["labels"]["app.kubernetes.io/component"] for item in listed} == {"operator", "api"}
    assert all(state["restartCount"] == 0 for item in listed for state in item["status"]["containerStatuses"])
    for component in ("operator", "api"):
        said = kubectl(*HERE, "exec", f"deployment/{RELEASE}-{component}", "--", "mixpeekctl", "--version")
        assert "0.1.0" in said
    helm(*HERE, "test", RELEASE)


def test_the_examples_become_ready_in_one_go(release: str) -> None:
    kubectl(*HERE, "apply", "-f", EXAMPLES)
    kubectl(*HERE, "wait", "--for=condition=Ready", "--timeout=180s", "-f", EXAMPLES)
    table = kubectl(*HERE, "get", "mixpeek")
    assert "helpdesk.passages" in table


def test_objects_are_uploaded_processed_and_found_by_the_sdk(connect: Connect) -> None:
    api = connect("helpdesk")
    ids = upload(api, "articles", [{"slug": a, "title": b, "body": c} for a, b, c in ARTICLES])
    process(api, "articles", ids)
    topics = upload(api, "topics", [{"topic": a, "description": b} for a, b in TOPICS])
    process(api, "topics", topics)
    (best, *_) = ask(api, "answers", question="How do I get my money back?")
    assert best["slug"] == "refund"
    (topic,) = ask(api, "topic_lookup", text="The display is dark")
    assert topic["topic"] == "device"


def test_a_file_goes_through_a_signed_link_to_the_object_storage(connect: Connect, places: Places) -> None:
    api = connect("helpdesk")
    content = ARTICLES[0][2].encode()
    uploads = mixpeek.BucketUploadsApi(api)
    made = uploads.create_upload_buckets(
        "articles",
        mixpeek.CreateUploadRequest(
            filename="article.txt",
            content_type="text/plain",
            file_size_bytes=len(content),
            create_object_on_confirm=True,
            blob_property="body",
            blob_type="text",
            object_metadata={"slug": "file", "title": "From a file"},
        ),
    )
    assert f"//{NODE}:" in str(made.presigned_url)
    httpx.put(str(made.presigned_url), content=content, headers={"Content-Type": "text/plain"}).raise_for_status()
    uploads.confirm_upload_buckets("articles", made.upload_id)
    assert places.files


def test_a_dedicated_tier_gets_ray_pods_that_kuberay_starts(release: str, kuberay: set[str]) -> None:
    kubectl(*HERE, "apply", "-f", DEDICATED)
    kubectl(*HERE, "wait", "--for=condition=Ready", "--timeout=590s", "-f", DEDICATED)
    kinds = kubectl(
        *HERE, "get", "pods", "-l", "ray.io/node-type", "-o", r"jsonpath={.items[*].metadata.labels.ray\.io/node-type}"
    )
    assert sorted(kinds.split()) == ["head", "worker"]
    assert declared("namespace.mixpeek.com", "rayhouse")["status"]["workersReady"] == 1


def test_the_serve_application_of_an_extractor_answers(release: str, kuberay: set[str]) -> None:
    answer = httpx.post(endpoint(), json={"inputs": {"text": "a warm coat"}}, timeout=60).raise_for_status()
    assert len(answer.json()["embedding"]) == 384


def test_a_batch_runs_as_a_ray_job_and_queries_go_through_serve(connect: Connect, kuberay: set[str]) -> None:
    api = connect("rayhouse")
    ids = upload(api, "notes", [{"text": article[2]} for article in ARTICLES])
    process(api, "notes", ids)
    namespace = declared("namespace.mixpeek.com", "rayhouse")["status"]
    jobs = httpx.get(f"{reachable(namespace['rayDashboardUrl'])}/api/jobs/", timeout=30).raise_for_status().json()
    assert [job["status"] for job in jobs] == ["SUCCEEDED"], jobs
    assert jobs[0]["submission_id"].startswith(namespace["id"])
    assert "paid back" in ask(api, "notes", text="How do I get my money back?")[0]["text"]


def test_a_version_changes_under_load_without_a_failed_request(release: str, kuberay: set[str]) -> None:
    url, stop, answers = endpoint(), threading.Event(), []

    def ask_on() -> None:
        with httpx.Client(timeout=120) as client:
            while not stop.is_set():
                try:
                    answers.append(client.post(url, json={"inputs": {"text": "a warm coat"}}).status_code)
                except httpx.HTTPError as error:
                    answers.append(type(error).__name__)

    askers = [threading.Thread(target=ask_on) for _ in range(2)]
    for asker in askers:
        asker.start()
    name = "rayhouse.text-extractor"
    try:
        kubectl(*HERE, "patch", "extractor.mixpeek.com", name, "--type=merge", "-p", '{"spec":{"version":"1.0.0"}}')
        kubectl(
            *HERE,
            "wait",
            "--for=jsonpath={.status.observedGeneration}=2",
            f"extractor.mixpeek.com/{name}",
            "--timeout=60s",
        )

        def serves() -> bool:
            status = declared("extractor.mixpeek.com", name)["status"]
            ready = {item["type"]: item["status"] for item in status["conditions"]}.get("EndpointReady")
            return ready == "True" and "1.0.0" in deployed()

        eventually(serves, "the new version serves", within_s=240)
    finally:
        stop.set()
        for asker in askers:
            asker.join()
    assert len(answers) > 20
    assert set(answers) == {200}


def test_nothing_is_left_behind(before: set[str], kuberay: set[str], places: Places) -> None:
    kubectl("delete", "mixpeek", "--all", "-A", "--timeout=180s")
    chart = REPOSITORY / "charts" / "mixpeek-operator"
    keep_nothing = ("--reuse-values", "--set", "crds.keep=false,stores.keepData=false", "--wait")
    helm(*HERE, "upgrade", RELEASE, chart, *keep_nothing)
    helm(*HERE, "uninstall", RELEASE, "--wait")
    kubectl("delete", "namespace", SYSTEM, "--timeout=120s")
    with contextlib.suppress(AssertionError):
        eventually(lambda: inventory() <= before | kuberay, "nothing is left", within_s=120)
    assert inventory() - before - kuberay == set()
    assert places.files == []
    url = places.values["qdrant"]["external"]["url"]
    listed = httpx.get(f"{url}/collections", headers={"api-key": QDRANT_KEY}).json()
    assert listed["result"]["collections"] == []
