"""What the store on custom resources does beyond its port: field managers, undoing, what other people write."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.servers.kubernetes.control_plane import ControlPlane

from mixpeek_operator.adapters.kubernetes_api import KubernetesApi
from mixpeek_operator.adapters.kubernetes_config import connection
from mixpeek_operator.adapters.kubernetes_resources import MANIFEST_MANAGER, KubernetesResources
from mixpeek_operator.adapters.kubernetes_secrets import KubernetesSecrets
from mixpeek_operator.core.errors import (
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    RefusedError,
    SpecError,
    UnavailableError,
)
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.resource import FINALIZER, Event, Metadata, Resource, ResourceKey
from mixpeek_operator.generate.rbac import api_rules
from mixpeek_operator.kinds import kinds

SCHEMAS = {name: kind.schema for name, kind in kinds().items()}


@pytest.fixture
def namespace(kubernetes_namespace: Callable[[], str]) -> str:
    return kubernetes_namespace()


@pytest.fixture
async def api(control_plane: ControlPlane) -> AsyncIterator[KubernetesApi]:
    async with KubernetesApi(connection(control_plane.kubeconfig)) as made:
        yield made


@pytest.fixture
async def store(api: KubernetesApi, namespace: str) -> AsyncIterator[KubernetesResources]:
    made = KubernetesResources(api, SCHEMAS, ResourceIndex(SCHEMAS), namespaces=(namespace,))
    yield made
    await made.close()


def bucket(namespace: str, name: str, **spec: Any) -> Resource:
    body = {"name": name, "namespace": "shop", "bucket_schema": {"properties": {}}, **spec}
    return Resource("Bucket", Metadata(f"shop.{name}", namespace), body)


def path(namespace: str, name: str) -> str:
    return f"/apis/mixpeek.com/v1alpha1/namespaces/{namespace}/buckets/shop.{name}"


async def test_a_declaration_is_applied_and_what_it_leaves_out_goes(
    control_plane: ControlPlane, store: KubernetesResources, namespace: str
) -> None:
    manifests = store.managed_by(MANIFEST_MANAGER)
    made = await manifests.create(bucket(namespace, "one", description="old", metadata={"a_b": {"cD": 1}}))
    raw = json.loads(control_plane.request("GET", path(namespace, "one")))
    assert raw["spec"]["metadata"] == {"a_b": {"cD": 1}}
    assert {(entry["manager"], entry["operation"]) for entry in raw["metadata"]["managedFields"]} == {
        (MANIFEST_MANAGER, "Apply")
    }
    spec = {key: value for key, value in made.spec.items() if key != "description"}
    changed = await manifests.update(made.with_spec(spec))
    raw = json.loads(control_plane.request("GET", path(namespace, "one")))
    assert "description" not in raw["spec"]
    assert changed.metadata.generation == raw["metadata"]["generation"] == 2


async def test_what_others_wrote_goes_as_well_but_their_notes_stay_theirs(
    control_plane: ControlPlane, store: KubernetesResources, namespace: str
) -> None:
    made = await store.create(bucket(namespace, "one"))
    patch = {"spec": {"description": "by hand"}, "metadata": {"annotations": {"gitops.example.com/id": "7"}}}
    control_plane.kubectl("-n", namespace, "patch", "bucket", "shop.one", "--type=merge", "-p", json.dumps(patch))
    with pytest.raises(ConflictError):
        await store.update(made.with_spec({**made.spec, "deletion_policy": "Retain"}))
    seen = await store.get(made.key)
    assert seen is not None
    assert seen.spec["description"] == "by hand"
    await store.update(seen.with_spec({**made.spec, "deletion_policy": "Retain"}))
    raw = json.loads(control_plane.request("GET", path(namespace, "one")))
    assert "description" not in raw["spec"]
    assert raw["spec"]["deletionPolicy"] == "Retain"
    assert raw["metadata"]["annotations"] == {"gitops.example.com/id": "7"}
    theirs = [entry for entry in raw["metadata"]["managedFields"] if entry["manager"].startswith("kubectl")]
    assert "f:gitops.example.com/id" in json.dumps(theirs)


async def test_a_batch_that_fails_half_way_leaves_nothing(
    store: KubernetesResources, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await store.create(bucket(namespace, "first", description="before"))
    real = KubernetesApi.apply

    async def failing(self: KubernetesApi, api: Any, body: Any, **options: Any) -> Any:
        if body["spec"].get("description") == "poison" and not options.get("dry_run"):
            raise UnavailableError("cut off")
        return await real(self, api, body, **options)

    monkeypatch.setattr(KubernetesApi, "apply", failing)
    second = await store.create(bucket(namespace, "second"))
    with pytest.raises(UnavailableError):
        await store.apply_batch(
            [bucket(namespace, "new")],
            [
                first.with_spec({**first.spec, "description": "after"}),
                second.with_spec({**second.spec, "description": "poison"}),
            ],
            [],
        )
    assert [(item.name, item.spec.get("description")) for item in await store.find(namespace)] == [
        ("first", "before"),
        ("second", None),
    ]


async def test_a_rehearsal_tells_every_problem_and_writes_nothing(store: KubernetesResources, namespace: str) -> None:
    made = await store.create(bucket(namespace, "one"))
    moved = made.with_spec({**made.spec, "namespace": "elsewhere"})
    with pytest.raises(ConflictError, match="cannot change"):
        await store.apply_batch([bucket(namespace, "new")], [moved], [])
    with pytest.raises(SpecError, match="deletion_policy"):
        await store.create(bucket(namespace, "new", deletion_policy="Never"))
    assert [item.name for item in await store.find(namespace)] == ["one"]


async def test_a_resource_that_its_kind_refuses_is_read_as_it_is_written(
    control_plane: ControlPlane, store: KubernetesResources, namespace: str
) -> None:
    body = {
        "apiVersion": "mixpeek.com/v1alpha1",
        "kind": "Bucket",
        "metadata": {"name": "odd", "namespace": namespace},
        "spec": {"namespace": "shop", "bucketSchema": {"properties": {}}, "uniqueKey": {"fields": ["a"]}},
    }
    control_plane.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    key = ResourceKey("Bucket", namespace, "odd")
    found = await store.get(key)
    assert found is not None
    assert found.name == "odd"
    held = replace(found, metadata=replace(found.metadata, finalizers=[FINALIZER]))
    assert (await store.update(held)).metadata.generation == 1
    raw = json.loads(control_plane.request("GET", path(namespace, "odd").replace("shop.", "")))
    assert raw["spec"] == body["spec"], "the name that it does not say is not written into it"


async def test_secrets_are_keys_of_one_secret_and_a_rotated_one_counts_at_once(
    control_plane: ControlPlane, api: KubernetesApi, namespace: str
) -> None:
    secrets = KubernetesSecrets(api)
    assert await secrets.names(namespace) == []
    with pytest.raises(NotFoundError, match="mixpeek-secrets"):
        await secrets.value(namespace, "TOKEN")
    await secrets.create(namespace, "TOKEN", "wörd")
    with pytest.raises(AlreadyExistsError):
        await secrets.create(namespace, "TOKEN", "other")
    await secrets.create(namespace, "SECOND", "2")
    assert await secrets.names(namespace) == ["SECOND", "TOKEN"]
    assert await secrets.value(namespace, "TOKEN") == "wörd"
    patch = json.dumps({"stringData": {"TOKEN": "rotated"}})
    control_plane.kubectl("-n", namespace, "patch", "secret", "mixpeek-secrets", "-p", patch)
    assert await secrets.value(namespace, "TOKEN") == "rotated"
    await secrets.update(namespace, "TOKEN", "again")
    await secrets.delete(namespace, "SECOND")
    assert await secrets.names(namespace) == ["TOKEN"]
    with pytest.raises(SpecError):
        await secrets.create(namespace, "not a name", "1")


async def test_the_same_event_again_is_counted(
    control_plane: ControlPlane, store: KubernetesResources, namespace: str
) -> None:
    made = await store.create(bucket(namespace, "one"))
    for minute in range(3):
        moment = datetime(2026, 1, 1, 0, minute, tzinfo=UTC)
        await store.record_event(Event(made.key, "Warning", "Refused", "no quota", moment, made.metadata.uid))
    (event,) = await store.events(made.key)
    assert event.at == datetime(2026, 1, 1, 0, 2, tzinfo=UTC)
    described = control_plane.kubectl("-n", namespace, "describe", "bucket", "shop.one")
    assert described is not None
    assert "Refused" in described
    assert "(x3 over" in described


async def test_the_apis_role_is_enough_for_all_that_it_does(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    token = control_plane.service_account(namespace, "api")
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "api", "namespace": namespace},
        "rules": api_rules(SCHEMAS),
    }
    control_plane.kubectl("apply", "-f", "-", stdin=json.dumps(role))
    bind = ("create", "rolebinding", "api", "--role=api", f"--serviceaccount={namespace}:api")
    control_plane.kubectl("-n", namespace, *bind)
    api = KubernetesApi(connection(control_plane.kubeconfig_for(tmp_path / "kubeconfig", token=token)))
    store = KubernetesResources(api, SCHEMAS, ResourceIndex(SCHEMAS), namespaces=(namespace,))
    try:
        await store.health()
        made = await store.create(bucket(namespace, "one"))
        changed = await store.update(made.with_spec({**made.spec, "description": "x"}))
        held = replace(changed, metadata=replace(changed.metadata, finalizers=[FINALIZER]))
        assert (await store.update(held)).metadata.finalizers == [FINALIZER]
        assert await store.events(made.key) == []
        marked = await store.delete(made.key)
        assert marked is not None
        assert marked.deleting
        with pytest.raises(RefusedError, match="status"):
            await store.update_status(made.key, {"object_count": 1})
        await store.update(replace(marked, metadata=replace(marked.metadata, finalizers=[])))
        secrets = KubernetesSecrets(api)
        await secrets.create(namespace, "TOKEN", "1")
        await secrets.update(namespace, "TOKEN", "2")
        assert await secrets.value(namespace, "TOKEN") == "2"
        with pytest.raises(RefusedError, match="secrets"):
            await KubernetesSecrets(api, "another").names(namespace)
    finally:
        await store.close()
