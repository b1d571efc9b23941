"""Connections to databases over HTTP: who may, and that no password comes back."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from mixpeek import StorageConnectionListResponse, StorageConnectionModel

from mixpeek_operator.access.connections import Connections
from mixpeek_operator.adapters.outbound import GuardedClient
from mixpeek_operator.adapters.sql import SqlDrivers

ROOT = "/v1/organizations/connections"
PASSWORD = "verysecret"


@pytest.fixture(autouse=True)
def kept(world: Any) -> None:
    services = world.services
    sqlite3.connect(world.data / "shop.db").close()
    drivers = SqlDrivers(GuardedClient(), world.data)
    services.connections = Connections(services.users._store, services.secrets, drivers)


async def test_from_creation_to_deletion(world: Any) -> None:
    config = {"host": "db.example", "database": "shop", "credentials": {"username": "u", "password": PASSWORD}}
    body = {"name": "crm", "provider_type": "postgresql", "provider_config": config, "test_before_save": False}
    async with world.client() as http:
        made = await http.post(ROOT, json=body)
        assert made.status_code == 200, made.text
        id = made.json()["connection_id"]
        read = StorageConnectionModel.from_dict(made.json())
        assert read is not None
        assert (read.name, read.is_active) == ("crm", True)
        answers = [made, await http.get(f"{ROOT}/crm"), await http.get(f"{ROOT}/{id}")]
        answers.append(await http.post(f"{ROOT}/list", json={"provider_type": "postgresql"}))
        answers.append(await http.post(f"{ROOT}/{id}/test"))
        answers.append(await http.patch(f"{ROOT}/{id}", json={"description": "customers"}))
        answers.append(await http.get("/v1/organizations/secrets"))
        assert [answer.status_code for answer in answers] == [200] * 7
        assert not any(PASSWORD in answer.text for answer in answers)
        assert answers[4].json()["success"] is False
        assert answers[5].json()["description"] == "customers"
        assert (await http.delete(f"{ROOT}/{id}")).json()["connection_id"] == id
        assert (await http.get(f"{ROOT}/{id}")).status_code == 404
        assert (await http.get("/v1/organizations/secrets")).json()["secrets"] == []
    assert PASSWORD.encode() not in world.at_rest()


async def test_mistakes_do_not_show_the_password(world: Any) -> None:
    good = {"host": "db.example", "database": "shop", "credentials": {"username": "u", "password": PASSWORD}}
    async with world.client() as http:
        for config, code in [
            ({**good, "port": "x"}, 422),
            ({**good, "credentials": {"password": PASSWORD}}, 422),
            ({**good, "credentials": {**good["credentials"], "pasword": PASSWORD}}, 422),
            ({**good, "credentials": {**good["credentials"], "secret_ref": "x"}}, 422),
            ({**good, "host": "127.0.0.1"}, 422),
        ]:
            body = {"name": "crm", "provider_type": "postgresql", "provider_config": config}
            answer = await http.post(ROOT, json=body)
            assert answer.status_code == code, answer.text
            assert PASSWORD not in answer.text
        sqlite = {"name": "shop", "provider_type": "sqlite", "provider_config": {"database": "shop.db"}}
        assert (await http.post(ROOT, json=sqlite)).status_code == 200
        assert (await http.post(ROOT, json=sqlite)).status_code == 409


async def test_only_administrators(world: Any) -> None:
    key = await world.key("read", "write", "delete")
    async with world.client(key) as http:
        assert (await http.post(f"{ROOT}/list", json={})).status_code == 403
        assert (await http.get(f"{ROOT}/crm")).status_code == 403


async def test_lists_in_pages(world: Any) -> None:
    async with world.client() as http:
        for name in "abc":
            config = {"host": "db.example", "database": "shop", "credentials": {"username": "u", "password": PASSWORD}}
            body = {"name": name, "provider_type": "postgresql", "provider_config": config, "test_before_save": False}
            assert (await http.post(ROOT, json=body)).status_code == 200
        answer = (await http.post(f"{ROOT}/list", params={"limit": 2}, json={"is_active": True})).json()
        read = StorageConnectionListResponse.from_dict(answer)
        assert read is not None
        assert ([item.name for item in read.results], read.total) == (["a", "b"], 3)
        assert read.pagination.next_page == "2"
        rest = await http.post(f"{ROOT}/list", params={"page_size": 2, "page": 2}, json={})
        assert [item["name"] for item in rest.json()["results"]] == ["c"]
