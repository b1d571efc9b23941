"""A retriever whose stages name what the organization does not have: it says so, and mends itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.reconciling.world import SCOPE, World, condition

from mixpeek_operator.core.conditions import is_judged, is_settled
from mixpeek_operator.core.lifecycle import Facilities
from mixpeek_operator.core.resource import Resource
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.core.visit import Outcome

WEB = {"stage_name": "web", "stage_id": "limit", "parameters": {"secret_ref": "exa"}}
ROWS = {"stage_name": "rows", "stage_id": "limit", "parameters": {"connection_id": "crm"}}


async def _declared(world: World, *stages: dict[str, Any]) -> Resource:
    made = await world.namespace()
    await world.settle()
    scope = Scope(SCOPE.organization, made.id, made.name)
    return await world.resources.create(scope, "Retriever", {"name": "search", "stages": list(stages)})


async def _visited(world: World, resource: Resource) -> tuple[Resource, Outcome]:
    outcome = await world.engine.reconcile(resource.key)
    found = world.index.get(resource.key)
    assert found is not None
    return found, outcome


async def test_what_is_missing_is_named_with_its_stage_and_is_looked_for_again(world: World) -> None:
    made = await _declared(world, WEB, ROWS)

    found, outcome = await _visited(world, made)

    ready = condition(found, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "SecretMissing")
    assert ready["message"] == (
        "there is no secret 'exa', which stage 'web' names (stages[0].parameters.secret_ref); "
        "there is no connection 'crm', which stage 'rows' names (stages[1].parameters.connection_id); "
        "create a secret with POST /v1/organizations/secrets; "
        "create a connection with POST /v1/organizations/connections"
    )
    assert condition(found, "StagesReady")["reason"] == "SecretMissing"
    assert condition(found, "Synced")["status"] == "True"
    assert not [item for item in found.status["conditions"] if item["type"] == "Stalled"]
    assert outcome.after_s is not None and outcome.after_s <= 10
    assert found.status["stage_count"] == 2

    again, _ = await _visited(world, made)
    assert again.metadata.resource_version == found.metadata.resource_version, "a second visit writes nothing"

    await world.secrets.create(SCOPE.organization, "exa", "value")
    found, outcome = await _visited(world, made)
    assert condition(found, "Ready")["reason"] == "ConnectionMissing"

    await world.connection("conn_1", "crm")
    found, outcome = await _visited(world, made)
    assert condition(found, "Ready")["status"] == "True"
    assert outcome.after_s is None

    await world.secrets.delete(SCOPE.organization, "exa")
    found, _ = await _visited(world, made)
    assert condition(found, "Ready")["reason"] == "SecretMissing"
    assert [event.reason for event in await world.resources.events(made.key)][:2] == ["BecameNotReady", "BecameReady"]


async def test_a_change_of_a_retriever_does_not_wait_for_its_secret(world: World) -> None:
    made = await _declared(world, WEB)
    await _visited(world, made)
    # Were it waited for, this would end with an error of its own.
    found = await world.resources.wait_settled(made.key, 600.0, enough=is_judged)
    assert condition(found, "Ready")["reason"] == "SecretMissing"
    assert found is not None and not is_settled(found), "an apply goes on waiting"
    changed = replace(found, metadata=replace(found.metadata, generation=found.metadata.generation + 1))
    assert not is_judged(changed)


async def test_on_kubernetes_the_object_that_holds_secrets_is_named(world: World) -> None:
    made = await _declared(world, *({**WEB, "stage_name": f"web{number}"} for number in range(12)))
    world.engine._facilities = Facilities(secret_object="mixpeek-secrets")
    found, outcome = await _visited(world, made)
    assert outcome.after_s is None, "the watch tells"
    message = condition(found, "Ready")["message"]
    assert "'web9'" in message and "'web10'" not in message and "; 2 more are missing; " in message
    assert message.endswith(
        "add it as a key of Secret int_one/mixpeek-secrets, or create a secret with POST /v1/organizations/secrets"
    )


async def test_a_retriever_that_goes_needs_nothing(world: World) -> None:
    made = await _declared(world, WEB)
    await _visited(world, made)
    await world.resources.delete(Scope(SCOPE.organization, None, made.namespace), "Retriever", made.name)
    await world.engine.reconcile(made.key)
    assert world.index.get(made.key) is None
