"""Organizations, users, API keys and secrets over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import mixpeek
import pytest

_KEYS = "/v1/organizations/users/admin@localhost/api-keys"
_MATRIX = [
    ("GET", "/v1/organizations", "admin"),
    ("GET", "/v1/organizations/users", "admin"),
    ("POST", "/v1/organizations/users", "admin"),
    ("GET", _KEYS, "admin"),
    ("DELETE", f"{_KEYS}/none", "admin"),
    ("GET", "/v1/organizations/secrets", "admin"),
    ("POST", "/v1/organizations/secrets", "admin"),
    ("POST", "/v1/manifest/apply", "write"),
    ("POST", "/v1/manifest/validate", "read"),
    ("POST", "/v1/manifest/lint", "read"),
    ("POST", "/v1/manifest/diff", "read"),
    ("GET", "/v1/manifest/export", "read"),
    ("GET", "/v1/health/deep", "read"),
]


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Token x", "Basic eDp5", "Bearer sk_unknown"])
@pytest.mark.parametrize("path", ["/v1/me", "/v1/organizations", "/v1/manifest/export"])
async def test_without_a_valid_key_nothing_private_answers(world: Any, path: str, authorization: str | None) -> None:
    async with world.client(None) as http:
        headers = {} if authorization is None else {"Authorization": authorization}
        answer = await http.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["type"] == "UnauthorizedError"


async def test_a_key_may_come_in_a_header_of_its_own_where_there_is_no_other(world: Any) -> None:
    async with world.client(None) as http:
        by_key = {"X-API-Key": world.admin}
        assert (await http.get("/v1/me", headers=by_key)).status_code == 200
        reading = {"X-API-Key": await world.key("read")}
        assert (await http.get("/v1/organizations", headers=reading)).status_code == 403
        for wrong in ({"X-API-Key": "sk_unknown"}, {"X-API-Key": " "}, {**by_key, "Authorization": "Basic eDp5"}):
            assert (await http.get("/v1/me", headers=wrong)).status_code == 401


@pytest.mark.parametrize(
    "path",
    ["/v1/health", "/v1/health/liveness", "/v1/health/beat", "/v1/discovery", "/v1/discovery/stages", "/metrics"],
)
@pytest.mark.parametrize("key", [None, "", "sk_wrong"])
async def test_public_routes_answer_with_and_without_a_key(world: Any, path: str, key: str | None) -> None:
    async with world.client(key) as http:
        assert (await http.get(path)).status_code == 200


@pytest.mark.parametrize(("method", "path", "needed"), _MATRIX)
@pytest.mark.parametrize("held", ["read", "write", "delete"])
async def test_a_key_without_the_permission_is_forbidden(
    world: Any, method: str, path: str, needed: str, held: str
) -> None:
    async with world.client(await world.key(held)) as http:
        answer = await http.request(method, path)
    if held == needed:
        assert answer.status_code != 403
    else:
        assert answer.status_code == 403
        error = answer.json()["error"]
        assert error["type"] == "ForbiddenError"
        assert error["details"]["required_permission"] == needed


async def test_me_needs_a_key_and_nothing_more(world: Any) -> None:
    async with world.client(await world.key("delete")) as http:
        answer = await http.get("/v1/me")
    me = mixpeek.MeResponse.from_dict(answer.json())
    assert me is not None
    assert me.key.permissions == ["delete"]
    assert me.organization_id.startswith("org_")


async def test_a_key_is_shown_once_and_stored_as_a_hash(world: Any) -> None:
    async with world.client() as http:
        answer = await http.post(_KEYS, json={"name": "ci"})
        listed = await http.get(_KEYS)
    made = mixpeek.APIKeyCreateResponse.from_dict(answer.json())
    assert made is not None
    assert {item.value for item in made.permissions} == {"read", "write", "delete"}
    assert made.key.startswith(made.key_prefix)
    assert made.key not in listed.text
    assert made.key.encode() not in world.at_rest()
    assert mixpeek.APIKeyModel.from_dict(listed.json()["results"][-1]) is not None


async def test_revoking_works_at_once_and_for_good(world: Any) -> None:
    key = await world.key("read", name="gone")
    async with world.client(key) as http, world.client() as admin:
        assert (await http.get("/v1/me")).status_code == 200
        assert (await admin.delete(f"{_KEYS}/gone")).status_code == 200
        assert (await http.get("/v1/me")).status_code == 401
        assert (await admin.delete(f"{_KEYS}/gone")).status_code == 404
        assert "gone" not in (await admin.get(_KEYS)).text
        assert "gone" in (await admin.get(_KEYS, params={"include_revoked": True})).text
        assert (await admin.post(_KEYS, json={"name": "gone"})).status_code == 200


async def test_rotating_replaces_the_key_and_keeps_its_rights(world: Any) -> None:
    old = await world.key("read", name="turning")
    async with world.client() as admin:
        new = (await admin.post(f"{_KEYS}/turning/rotate")).json()
    async with world.client(old) as http:
        assert (await http.get("/v1/me")).status_code == 401
    async with world.client(new["key"]) as http:
        assert (await http.get("/v1/me")).json()["key"]["permissions"] == ["read"]


async def test_changing_a_key_works_on_the_next_request(world: Any) -> None:
    key = await world.key("read", name="growing")
    async with world.client(key) as http, world.client() as admin:
        assert (await http.get("/v1/organizations")).status_code == 403
        changed = await admin.patch(f"{_KEYS}/growing", json={"permissions": ["read", "admin"], "name": "grown"})
        assert changed.status_code == 200
        assert (await http.get("/v1/organizations")).status_code == 200
        assert (await admin.patch(f"{_KEYS}/grown", json={})).status_code == 400
        assert (await admin.patch(f"{_KEYS}/grown", json={"status": "revoked"})).status_code == 200
        assert (await http.get("/v1/organizations")).status_code == 401


async def test_an_expired_key_is_refused(world: Any) -> None:
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    key = await world.key("read", expires_at=past)
    async with world.client(key) as http:
        answer = await http.get("/v1/me")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "api_key_expired"


async def test_a_rate_limited_key_is_told_when_to_come_back(world: Any) -> None:
    key = await world.key("read", rate_limit_override=2)
    async with world.client(key) as http:
        assert [(await http.get("/v1/me")).status_code for _ in range(2)] == [200, 200]
        answer = await http.get("/v1/me")
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.json()["error"]["type"] == "TooManyRequestsError"
    assert answer.json()["error"]["details"]["retryable"] is True


async def test_a_key_bound_to_origins_is_refused_elsewhere(world: Any) -> None:
    key = await world.key("read", allowed_origins=["https://*.example.com"])
    async with world.client(key) as http:
        assert (await http.get("/v1/me", headers={"Origin": "https://shop.example.com"})).status_code == 200
        assert (await http.get("/v1/me", headers={"Origin": "https://evil.org"})).status_code == 403
        assert (await http.get("/v1/me")).status_code == 200


async def test_restrictions_that_would_not_be_enforced_are_refused(world: Any) -> None:
    async with world.client() as http:
        answer = await http.post(_KEYS, json={"name": "x", "scopes": [{"resource_id": "*"}], "principal_id": "p"})
    assert answer.status_code == 422
    places = [item["location"] for item in answer.json()["error"]["details"]["validation_errors"]]
    assert places == [["body", "scopes"], ["body", "principal_id"]]


async def test_two_keys_of_one_name_clash(world: Any) -> None:
    async with world.client() as http:
        assert (await http.post(_KEYS, json={"name": "twin"})).status_code == 200
        answer = await http.post(_KEYS, json={"name": "twin"})
    assert answer.status_code == 409
    assert answer.json()["error"]["type"] == "AlreadyExistsError"


async def test_users_come_and_go(world: Any) -> None:
    users = "/v1/organizations/users"
    async with world.client() as http:
        body = {"email": "Ada@Example.com", "user_name": "Ada"}
        made = (await http.post(users, json=body)).json()
        assert (made["email"], made["role"], made["status"]) == ("ada@example.com", "member", "active")
        assert (await http.post(users, json=body)).status_code == 409
        assert (await http.get(f"{users}/{made['user_id']}")).json() == made
        assert (await http.get(users, params={"role": "member"})).json()["total"] == 1
        key = (await http.post(f"{users}/ada@example.com/api-keys", json={"name": "hers"})).json()["key"]
        async with world.client(key) as hers:
            assert (await hers.get("/v1/me")).json()["user_email"] == "ada@example.com"
            assert (await http.patch(f"{users}/ada@example.com", json={"status": "suspended"})).status_code == 200
            assert (await hers.get("/v1/me")).status_code == 401
        again = await http.post(f"{users}/ada@example.com/api-keys", json={"name": "hers"})
        assert again.json()["error"]["code"] == "user_not_active"
        assert (await http.delete(f"{users}/ada@example.com")).status_code == 200
        assert (await http.get(f"{users}/ada@example.com")).status_code == 404


async def test_the_last_administrator_stays(world: Any) -> None:
    user = "/v1/organizations/users/admin@localhost"
    async with world.client() as http:
        for answer in (await http.delete(user), await http.patch(user, json={"role": "viewer"})):
            assert answer.status_code == 409
            assert answer.json()["error"]["code"] == "last_admin"


async def test_the_organization_answers_as_the_sdk_reads_it(world: Any) -> None:
    async with world.client() as http:
        changed = await http.patch("/v1/organizations", json={"organization_name": "Acme"})
        answer = await http.get("/v1/organizations")
    read = mixpeek.OrganizationModelResponse.from_dict(answer.json())
    assert read is not None
    assert read.organization_name == "Acme" == changed.json()["organization_name"]


async def test_organizations_do_not_see_each_other(world: Any) -> None:
    other, key = await world.services.organizations.create("other", admin_email="root@other.org")
    await world.services.secrets.create(other["internal_id"], "token", "theirs")
    async with world.client() as ours, world.client(key) as theirs:
        assert (await ours.get("/v1/organizations/users/root@other.org")).status_code == 404
        assert (await theirs.get(_KEYS)).status_code == 404
        assert (await ours.get("/v1/organizations/secrets")).json() == {"secrets": [], "count": 0}
        assert (await theirs.get("/v1/organizations/secrets")).json() == {"secrets": ["token"], "count": 1}
        assert (await ours.delete("/v1/organizations/secrets/token")).status_code == 404


async def test_a_secret_is_never_given_back(world: Any, capfd: pytest.CaptureFixture[str]) -> None:
    planted, replaced = "planted-value-7f3a", "replaced-value-91bc"
    secrets = "/v1/organizations/secrets"
    answers = []
    async with world.client() as http:
        answers.append(await http.post(secrets, json={"secret_name": "pay.key", "secret_value": planted}))
        answers.append(await http.post(secrets, json={"secret_name": "pay.key", "secret_value": planted}))
        answers.append(await http.post(secrets, json={"secret_name": "9 bad", "secret_value": planted}))
        answers.append(await http.post(secrets, json={"secret_name": ["x"], "secret_value": planted, planted: 1}))
        answers.append(await http.post(secrets, json={"secret_name": "n", "secret_value": [planted]}))
        answers.append(await http.put(f"{secrets}/pay.key", json={"secret_value": replaced}))
        answers.append(await http.put(f"{secrets}/none", json={"secret_value": planted}))
        answers.append(await http.get(secrets))
    assert [answer.status_code for answer in answers] == [200, 409, 422, 422, 422, 200, 404, 200]
    assert answers[-1].json() == {"secrets": ["pay.key"], "count": 1}
    assert mixpeek.SecretResponse.from_dict(answers[0].json()) is not None
    assert await world.services.secrets.value(world.organization, "pay.key") == replaced
    output = capfd.readouterr()
    # A key the caller invented is named in the error; the values of the body never are.
    shown = "".join(answer.text for index, answer in enumerate(answers) if index != 3)
    for text in (shown, output.out, output.err, world.at_rest().decode(errors="replace")):
        assert planted not in text
        assert replaced not in text
    async with world.client() as http:
        assert (await http.delete(f"{secrets}/pay.key")).json() == {"secret_name": "pay.key", "deleted": True}
        assert (await http.delete(f"{secrets}/pay.key")).status_code == 404
