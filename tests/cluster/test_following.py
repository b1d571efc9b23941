"""The store's view of the cluster through what happens to API servers: away, restarted, forgetful."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from tests.servers.kubernetes.control_plane import ControlPlane

from mixpeek_operator.adapters.kubernetes_api import Api, KubernetesApi
from mixpeek_operator.adapters.kubernetes_config import connection
from mixpeek_operator.adapters.kubernetes_errors import Expired
from mixpeek_operator.adapters.kubernetes_resources import KubernetesResources
from mixpeek_operator.core.errors import AlreadyExistsError, NotFoundError, RateLimitedError, UnavailableError
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.resource import Metadata, Resource, ResourceKey
from mixpeek_operator.kinds import kinds

SCHEMAS = {name: kind.schema for name, kind in kinds().items()}
BUCKETS = Api("mixpeek.com", "v1alpha1", "buckets", "Bucket")
AWAY = (UnavailableError, RateLimitedError)


def bucket(name: str) -> Resource:
    spec = {"name": name, "namespace": "shop", "bucket_schema": {"properties": {}}}
    return Resource("Bucket", Metadata(f"shop.{name}", "default"), spec)


async def until(done: Callable[[], Awaitable[bool]], within_s: float = 180) -> None:
    end = time.monotonic() + within_s
    while not await done():
        assert time.monotonic() < end, "it did not come to be"
        await asyncio.sleep(0.1)


@pytest.mark.slow
async def test_the_view_is_whole_again_after_every_fault(private_control_plane: ControlPlane) -> None:
    plane = private_control_plane
    store = KubernetesResources(KubernetesApi(connection(plane.kubeconfig)), SCHEMAS, ResourceIndex(SCHEMAS))
    other = KubernetesResources(KubernetesApi(connection(plane.kubeconfig)), SCHEMAS, ResourceIndex(SCHEMAS))

    async def names(reader: KubernetesResources = store) -> list[str]:
        return [item.name for item in await reader.find("default")]

    async def create(name: str) -> None:
        """Create it as a client does whose server was just restarted: again until it is told that it is there."""

        async def created() -> bool:
            try:
                await store.create(bucket(name))
            except AWAY:
                return False
            except AlreadyExistsError:
                pass  # an earlier try was not answered, but heard
            return True

        await until(created)

    async def delete(key: ResourceKey) -> None:
        async def deleted() -> bool:
            try:
                await other.delete(key)
            except AWAY:
                return False
            except NotFoundError:
                pass
            return True

        await until(deleted)

    try:
        doomed = await store.create(bucket("doomed"))
        await store.create(bucket("kept"))
        async with KubernetesApi(connection(plane.kubeconfig)) as api:
            page = await api.list(BUCKETS, "default")

        # The API server goes away: what is known can be read, what is written says that it is not there.
        await asyncio.to_thread(plane.kill, "kube-apiserver")
        assert await names() == ["doomed", "kept"]
        with pytest.raises(UnavailableError):
            await store.create(bucket("never"))
        await asyncio.to_thread(plane.start, "kube-apiserver")
        await create("after")

        # etcd is restarted under it.
        await asyncio.to_thread(plane.restart, "etcd")

        await create("later")

        # History is forgotten while nobody watches: the listing tells what is gone.
        await asyncio.to_thread(plane.stop, "kube-apiserver")
        await asyncio.to_thread(plane.start, "kube-apiserver")
        await delete(doomed.key)
        await asyncio.to_thread(plane.compact)
        await asyncio.to_thread(plane.restart, "kube-apiserver")

        async def expired() -> bool:
            async with KubernetesApi(connection(plane.kubeconfig)) as api:
                try:
                    async for _ in api.watch(BUCKETS, "default", resource_version=page.resource_version, timeout_s=2):
                        pass
                except Expired:
                    return True
                except AWAY:
                    return False
            return False

        await until(expired)

        async def equal() -> bool:
            return await names() == ["after", "kept", "later"] == await names(other)

        await until(equal)
    finally:
        await store.close()
        await other.close()
