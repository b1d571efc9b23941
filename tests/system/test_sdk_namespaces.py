"""Namespaces, their extractors, discovery, health and who one is, through the public SDK."""

from __future__ import annotations

import re
from typing import Any

import httpx
import mixpeek
import pytest
from mixpeek.exceptions import ApiException
from tests.servers.mixpeek import KEY, Server
from tests.system.conftest import Place, unique


@pytest.fixture(scope="module")
def api(live: Server) -> Any:
    with mixpeek.ApiClient(mixpeek.Configuration(host=live.url, access_token=KEY)) as client:
        yield client


@pytest.fixture(scope="module")
def public(live: Server) -> Any:
    with mixpeek.ApiClient(mixpeek.Configuration(host=live.url)) as client:
        yield client


def create(api: Any, **body: Any) -> mixpeek.NamespaceModel:
    request = mixpeek.CreateNamespaceRequest.from_dict({"namespace_name": unique("space"), **body})
    assert request is not None
    return mixpeek.NamespacesApi(api).create_namespace(request)


def test_a_namespace_is_made_read_changed_and_deleted(api: Any) -> None:
    namespaces = mixpeek.NamespacesApi(api)
    made = create(
        api,
        description="a tenant",
        feature_extractors=[{"feature_extractor_name": "text_extractor", "version": "v1"}],
        payload_indexes=[{"field_name": "category", "type": "keyword"}],
    )
    assert re.fullmatch(r"ns_[a-z0-9]{10}", str(made.namespace_id))
    assert made.namespace_ready is True
    assert made.feature_extractors is not None
    assert made.feature_extractors[0].feature_extractor_name == "text_extractor"
    assert made.feature_extractors[0].feature_extractor_id == "text_extractor_v1"
    assert made.payload_indexes is not None
    assert [item.field_name for item in made.payload_indexes] == ["category"]
    assert (made.bucket_count, made.collection_count, made.document_count, made.object_count) == (0, 0, 0, 0)
    assert namespaces.get_namespace(made.namespace_name).namespace_id == made.namespace_id
    patch = mixpeek.PatchNamespaceRequest.from_dict({"description": "changed"})
    assert patch is not None
    assert namespaces.patch_namespace(str(made.namespace_id), patch).description == "changed"
    renamed = unique("renamed")
    update = mixpeek.UpdateNamespaceRequest.from_dict({"namespace_name": renamed})
    assert update is not None
    assert namespaces.update_namespace(str(made.namespace_id), update).namespace_name == renamed
    stats = namespaces.get_namespace_stats(renamed)
    assert (stats.namespace_id, stats.bucket_count) == (made.namespace_id, 0)
    namespaces.delete_namespace(renamed)
    with pytest.raises(ApiException) as gone:
        namespaces.get_namespace(str(made.namespace_id))
    assert gone.value.status == 404


def test_namespaces_are_listed(api: Any) -> None:
    namespaces = mixpeek.NamespacesApi(api)
    prefix = unique("many")
    names = [create(api, namespace_name=f"{prefix}_{index}").namespace_name for index in range(3)]
    request = mixpeek.ListNamespacesRequest.from_dict({"search": prefix})
    page = namespaces.list_namespaces(limit=2, include_total=True, list_namespaces_request=request)
    assert (page.total_count, len(page.results)) == (3, 2)
    rest = namespaces.list_namespaces(
        limit=2, cursor=page.pagination.next_cursor, list_namespaces_request=request, include_total=True
    )
    assert sorted(item.namespace_name for item in [*page.results, *rest.results]) == names
    assert set(names) <= {item.namespace_name for item in namespaces.list_namespaces_get(limit=100).results}
    for name in names:
        namespaces.delete_namespace(name)


def test_an_id_can_be_kept_and_a_name_is_unique(api: Any) -> None:
    made = create(api, namespace_id="ns_kept123456")
    assert made.namespace_id == "ns_kept123456"
    with pytest.raises(ApiException) as clash:
        create(api, namespace_name=made.namespace_name)
    assert clash.value.status == 409
    with pytest.raises(ApiException) as wrong:
        create(api, namespace_id="mine")
    assert wrong.value.status == 422
    mixpeek.NamespacesApi(api).delete_namespace(made.namespace_name)


def test_deleting_a_namespace_deletes_what_it_holds(live: Server, api: Any) -> None:
    name = create(api).namespace_name
    headers = {**live.headers, "X-Namespace": name}
    with httpx.Client(base_url=live.url, headers=headers, timeout=60) as http:
        body = {"bucket_name": "b", "bucket_schema": {"properties": {"t": {"type": "text"}}}}
        http.post("/v1/buckets", json=body).raise_for_status()
        http.post("/v1/buckets/b/objects", json={"t": "x"}).raise_for_status()
        collection = {"collection_name": "c", "source": {"type": "bucket", "bucket_ids": ["b"]}}
        http.post("/v1/collections", json=collection).raise_for_status()
        mixpeek.NamespacesApi(api).delete_namespace(name)
        assert http.get("/v1/buckets/b").status_code == 404
    again = create(api, namespace_name=name)
    assert (again.bucket_count, again.object_count) == (0, 0)
    mixpeek.NamespacesApi(api).delete_namespace(name)


def test_extractors_of_a_namespace(place: Place) -> None:
    extractors = mixpeek.NamespaceExtractorsApi(place.api)
    listed = extractors.list_extractors_namespaces(place.id)
    assert listed.namespace_id == place.id
    names = {item.feature_extractor_name for item in listed.extractors}
    assert {"text_extractor", "passthrough_extractor"} <= names
    assert (listed.total, listed.custom_count) == (len(listed.extractors), 0)
    assert extractors.list_extractors_namespaces(place.name, source="custom").extractors == []
    one = extractors.get_extractor_namespaces(place.id, "text_extractor_v1")
    assert one.version == "v1"


def test_extractors_stages_and_discovery_need_no_key(public: Any) -> None:
    extractors = mixpeek.FeatureExtractorsApi(public)
    found = {item.feature_extractor_name: item for item in extractors.list_feature_extractors()}
    text = found["text_extractor"]
    assert text.required_vector_indexes is not None
    by_output = {item.name: item.to_dict() for item in text.required_vector_indexes}
    assert by_output["text_embedding"]["index"]["name"] == "text_extractor_v1_embedding"
    assert by_output["text_embedding"]["feature_uri"] == "mixpeek://text_extractor@v1/text_embedding"
    assert all(len(str(item.description)) >= 10 for item in text.required_vector_indexes)
    assert extractors.get_feature_extractor_by("text_extractor_v1").version == "v1"
    with pytest.raises(ApiException) as unknown:
        extractors.get_feature_extractor_by("no_such_v1")
    assert unknown.value.status == 404
    stages = {stage.stage_id: stage for stage in mixpeek.RetrieverStagesApi(public).list_stages_retrievers()}
    assert {"feature_search", "attribute_filter", "sort_attribute", "limit", "document_enrich"} <= set(stages)
    assert all(stage.description and stage.category and stage.parameter_schema for stage in stages.values())
    discovery = mixpeek.DiscoveryApi(public)
    assert discovery.get_all_discovery() is not None
    assert discovery.list_extractors_discovery()
    assert discovery.list_stages_with_examples_discovery()
    schema = discovery.get_manifest_schema_discovery()
    assert schema.manifest_version == "1.0"
    assert {"namespaces", "buckets", "collections", "taxonomies", "clusters", "retrievers"} <= set(
        schema.resource_types
    )


def test_stages_of_one_category(live: Server) -> None:
    answer = httpx.get(f"{live.url}/v1/retrievers/stages", params={"category": "sort"}).json()
    assert answer
    assert {item["category"] for item in answer} == {"sort"}


def test_health(public: Any, api: Any) -> None:
    health: Any = mixpeek.HealthApi(public).healthcheck_health()
    assert health["status"] == "OK"
    assert mixpeek.HealthApi(public).liveness_health() is not None
    deep = mixpeek.HealthApi(api).healthcheck_deep_health(deep=True)
    assert deep is not None


def test_who_am_i_and_my_organization(api: Any) -> None:
    me = mixpeek.AccountApi(api).whoami_me()
    assert me.organization_id.startswith("org_")
    assert me.account_type
    assert "admin" in me.key.permissions
    organization = mixpeek.OrganizationsApi(api).get_organization()
    assert organization.organization_id == me.organization_id


def test_users_and_keys(live: Server, api: Any) -> None:
    users = mixpeek.OrganizationUsersApi(api)
    keys = mixpeek.OrganizationAPIKeysApi(api)
    email = f"{unique('ada')}@example.com"
    made: Any = users.create_user_organizations(mixpeek.UserCreateRequest(email=email, user_name="Ada"))
    assert made["email"] == email
    key = keys.create_key_organizations_users_email(
        email, mixpeek.APIKeyCreateRequest(name="reader", permissions=[mixpeek.Permission.READ])
    )
    assert all((key.key, key.key_hash, key.internal_id, key.user_id, key.name))
    headers = {"Authorization": f"Bearer {key.key}"}
    assert httpx.get(f"{live.url}/v1/namespaces", headers=headers).status_code == 200
    assert httpx.post(f"{live.url}/v1/namespaces", headers=headers, json={"namespace_name": "x"}).status_code == 403
    keys.delete_key_organizations_users_email_name(email, "reader")
    assert httpx.get(f"{live.url}/v1/namespaces", headers=headers).status_code == 401
    users.delete_user_organizations_email(email)


def test_secrets(api: Any) -> None:
    secrets = mixpeek.OrganizationSecretsApi(api)
    name = unique("secret")
    secrets.create_secret_organizations(mixpeek.CreateSecretRequest(secret_name=name, secret_value="one"))
    with pytest.raises(ApiException) as clash:
        secrets.create_secret_organizations(mixpeek.CreateSecretRequest(secret_name=name, secret_value="two"))
    assert clash.value.status == 409
    assert secrets.update_secret_organizations_name(name, mixpeek.UpdateSecretRequest(secret_value="three"))
    listed = secrets.list_secrets_organizations()
    assert name in listed.secrets
    assert listed.count == len(listed.secrets)
    assert secrets.delete_secret_organizations_name(name).deleted
    assert name not in secrets.list_secrets_organizations().secrets
