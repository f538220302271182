"""Each of the nine endpoints, each of its status codes: the whole answer, as the contract shows it."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from accounts.actors import token_actor
from accounts.models import ApiToken, SshKey
from images.models import Image
from inventory.models import Hypervisor, IpAddress, Placement
from plans.models import Location, OsVersion, Plan
from servers.models import Operation, Server
from servers.states import RULES, OperationKind, OperationStatus, ServerStatus
from tests.api.conftest import Broker
from tests.api.contract import (
    SERVER,
    contracts_part,
    example,
    is_refusal,
    is_validation_error,
    looks_like,
    same,
)
from tests.conftest import Customer
from tests.factories import AccountFactory, OperationFactory

LIST, ONE = "/servers/", f"/servers/{SERVER}/"
UPDATE = {"name": "web-server-updated", "hostname": "web-updated.example.com", "backups_enabled": False}
CREATE = {"name": "web-server-02", "plan_id": 1, "os_id": 5, "location": "us-west"}
ENDPOINTS: dict[str, tuple[str, str, Any]] = {
    "list": ("GET", LIST, None),
    "create": ("POST", LIST, CREATE),
    "detail": ("GET", ONE, None),
    "put": ("PUT", ONE, UPDATE),
    "patch": ("PATCH", ONE, UPDATE),
    "delete": ("DELETE", ONE, None),
    "start": ("POST", f"{ONE}start/", None),
    "stop": ("POST", f"{ONE}stop/", None),
    "reboot": ("POST", f"{ONE}reboot/", None),
}
READS = {"list", "detail"}
ACTIONS = ["start", "stop", "reboot"]

each_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS)
each_endpoint_of_one_server = pytest.mark.parametrize("endpoint", sorted(set(ENDPOINTS) - {"list", "create"}))
each_action = pytest.mark.parametrize("action", ACTIONS)
each_update = pytest.mark.parametrize("endpoint", ["put", "patch"])


def ask(customer: Customer, endpoint: str, **headers: Any) -> Any:
    return customer.ask(*ENDPOINTS[endpoint], **headers)


def put_into(status: ServerStatus) -> None:
    Server.objects.filter(pk=SERVER).update(status=status)


# The answers when all goes well.


def test_the_list_is_the_example(alice: Customer, web_server: Server, db_server: Server) -> None:
    Server.objects.filter(pk=SERVER).update(updated_at=datetime(2025, 1, 15, 10, 20, tzinfo=UTC))

    answer = alice.get(LIST)

    expected = example("server-list")
    expected["results"].reverse()  # decided: newest first, by id
    assert answer.status_code == 200
    told = answer.json()
    assert same(told | {"results": [contracts_part(server) for server in told["results"]]}, expected)


def test_without_servers_the_list_is_empty(alice: Customer) -> None:
    assert same(alice.get(LIST).json(), {"count": 0, "results": []})


def test_a_new_server_is_the_example(alice: Customer, example_shop: dict[str, Any]) -> None:
    answer = alice.post(LIST, example_shop)

    assert answer.status_code == 201
    told, expected = contracts_part(answer.json()), example("server-create")
    assert looks_like(told, expected)
    assert told["created_at"] == told["updated_at"]
    its_own = {field: told[field] for field in ("id", "created_at", "updated_at")}
    assert same(told, expected | its_own)


def test_a_new_server_has_a_host_and_addresses_and_an_order_for_a_worker(
    alice: Customer, example_shop: dict[str, Any], broker: Broker
) -> None:
    sent = broker.after_commit_of(lambda: alice.post(LIST, example_shop))

    server, order = Server.objects.get(), Operation.objects.get()
    assert server.home == Placement.objects.get()
    assert IpAddress.objects.filter(port=server.port).count() == 2
    assert (order.server, order.kind, order.status) == (server, "create", "queued")
    assert order.actor == token_actor(alice.account.tokens.get())
    assert sent == [("provisioning.carry_out", [order.pk])]


def test_what_a_create_leaves_out_has_the_contracts_defaults(alice: Customer, shop: dict[str, Any]) -> None:
    told = alice.post(LIST, shop).json()

    assert told["hostname"] == shop["name"]
    assert told["backups_enabled"] is False


def test_a_key_of_the_account_is_installed(alice: Customer, shop: dict[str, Any]) -> None:
    key = SshKey.objects.create(account=alice.account, name="laptop", public_key="ssh-ed25519 AAAA alice")

    assert alice.post(LIST, shop | {"ssh_key_id": key.pk}).status_code == 201
    assert Server.objects.get().authorized_keys == ["ssh-ed25519 AAAA alice"]


def test_fields_that_a_create_does_not_know_are_ignored(alice: Customer, shop: dict[str, Any]) -> None:
    assert alice.post(LIST, shop | {"colour": "red", "status": "active"}).status_code == 201
    assert Server.objects.get().status == "provisioning"


def test_the_detail_is_the_example(alice: Customer, web_server: Server) -> None:
    answer = alice.get(ONE)

    assert answer.status_code == 200
    # The example writes 2001:0db8::1; RFC 5952 writes that address without the zero.
    assert same(contracts_part(answer.json()), example("server-detail") | {"ipv6_address": "2001:db8::1"})


def test_a_server_is_found_by_its_uuid_too(alice: Customer, web_server: Server) -> None:
    assert alice.get(f"/servers/{web_server.uuid}/").json()["id"] == SERVER


def test_whole_percents_are_still_a_number_with_a_point(alice: Customer, web_server: Server) -> None:
    web_server.usage.cpu_percent = 0
    web_server.usage.save()

    assert looks_like(contracts_part(alice.get(ONE).json()), example("server-detail"))


@each_update
def test_an_update_answers_with_the_changed_detail(
    alice: Customer, web_server: Server, endpoint: str
) -> None:
    before = alice.get(ONE).json()

    answer = ask(alice, endpoint)

    assert answer.status_code == 200
    assert looks_like(contracts_part(answer.json()), example("server-detail"))
    assert answer.json()["updated_at"] > before["updated_at"]
    assert same(answer.json(), before | UPDATE | {"updated_at": answer.json()["updated_at"]})
    assert same(answer.json(), alice.get(ONE).json())


@pytest.mark.parametrize("field", UPDATE)
def test_a_patch_changes_only_what_is_sent(alice: Customer, web_server: Server, field: str) -> None:
    before = alice.get(ONE).json()

    told = alice.patch(ONE, {field: UPDATE[field]}).json()

    assert same(told, before | {field: UPDATE[field], "updated_at": told["updated_at"]})


def test_a_patch_of_nothing_changes_nothing(alice: Customer, web_server: Server) -> None:
    answer = alice.patch(ONE, None)

    assert answer.status_code == 200
    assert same(answer.json(), alice.get(ONE).json())
    assert answer.json()["updated_at"] == "2025-01-16T15:45:00Z"


def test_a_deleted_server_is_gone_at_once(alice: Customer, web_server: Server, broker: Broker) -> None:
    answers: list[Any] = []
    sent = broker.after_commit_of(lambda: answers.append(alice.delete(ONE)))

    assert (answers[0].status_code, answers[0].content) == (204, b"")
    assert alice.get(ONE).status_code == 404
    assert same(alice.get(LIST).json(), {"count": 0, "results": []})
    order = Operation.objects.get()
    assert (order.server_id, order.kind, order.status) == (SERVER, "delete", "queued")
    assert sent == [("provisioning.carry_out", [order.pk])]


@each_action
def test_an_action_is_the_example_and_an_order_for_a_worker(
    alice: Customer, web_server: Server, broker: Broker, action: str
) -> None:
    [allowed_in] = RULES[OperationKind(action)].allowed_in
    put_into(allowed_in)
    answers: list[Any] = []

    sent = broker.after_commit_of(lambda: answers.append(ask(alice, action)))

    assert answers[0].status_code == 200
    assert same(answers[0].json(), example(f"server-{action}"))
    order = Operation.objects.get()
    assert (order.server_id, order.kind, order.status) == (SERVER, action, "queued")
    assert order.actor == token_actor(alice.account.tokens.get())
    assert sent == [("provisioning.carry_out", [order.pk])]
    assert alice.get(ONE).json()["status"] == example(f"server-{action}")["server"]["status"]


@each_endpoint
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", ""])
def test_no_content_type_is_ever_the_reason_for_a_refusal(
    alice: Customer, web_server: Server, shop: dict[str, Any], endpoint: str, content_type: str
) -> None:
    """Clients send JSON's type on GET, DELETE and POSTs without a body; others send none at all."""
    put_into(ServerStatus.STOPPED if endpoint == "start" else ServerStatus.ACTIVE)

    answer = ask(alice, endpoint, CONTENT_TYPE=content_type)

    assert answer.status_code in {200, 201, 204}


@each_endpoint
def test_answers_are_json_whatever_is_accepted(alice: Customer, web_server: Server, endpoint: str) -> None:
    answer = ask(alice, endpoint, HTTP_ACCEPT="text/html;q=0.9, application/xml")

    assert answer.status_code == 204 or answer["Content-Type"] == "application/json"
    assert answer.status_code != 406


# 401, 404, 403: who asks, what they see, what they may.


@each_endpoint
def test_without_a_token_nobody_is_told_anything(alice: Customer, web_server: Server, endpoint: str) -> None:
    answer = ask(alice, endpoint, HTTP_AUTHORIZATION="")

    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"
    assert is_refusal(answer.json(), "not_authenticated")


@each_endpoint_of_one_server
def test_a_server_that_never_was_is_not_found(alice: Customer, endpoint: str) -> None:
    answer = ask(alice, endpoint)

    assert answer.status_code == 404
    assert is_refusal(answer.json(), "not_found")


@each_endpoint_of_one_server
@pytest.mark.parametrize("status", [ServerStatus.DELETING, ServerStatus.DELETED])
def test_a_deleted_server_is_not_found(
    alice: Customer, web_server: Server, endpoint: str, status: ServerStatus
) -> None:
    Server.objects.filter(pk=SERVER).update(status=status, deleted_at=web_server.updated_at)
    before = Server.objects.values().get()

    answer = ask(alice, endpoint)

    assert answer.status_code == 404
    assert is_refusal(answer.json(), "not_found")
    assert Server.objects.values().get() == before


@each_endpoint
def test_a_token_that_may_only_look_changes_nothing(
    alice: Customer, web_server: Server, shop: dict[str, Any], endpoint: str
) -> None:
    ApiToken.objects.update(permissions=["servers:read"])

    answer = ask(alice, endpoint)

    if endpoint in READS:
        assert answer.status_code == 200
    else:
        assert answer.status_code == 403
        assert is_refusal(answer.json(), "permission_denied")
        assert not Operation.objects.exists()


# 400: the body does not validate.


def test_a_create_without_a_body_names_what_is_missing(alice: Customer) -> None:
    answer = alice.post(LIST)

    assert answer.status_code == 400
    assert is_validation_error(answer.json(), "name", "plan_id", "os_id", "location")


def test_a_put_needs_all_three(alice: Customer, web_server: Server) -> None:
    answer = alice.put(ONE, None)

    assert answer.status_code == 400
    assert is_validation_error(answer.json(), *UPDATE)


@each_update
def test_what_was_chosen_at_the_creation_cannot_be_changed(
    alice: Customer, web_server: Server, endpoint: str
) -> None:
    method, path, body = ENDPOINTS[endpoint]

    answer = alice.ask(method, path, body | {"plan_id": 1, "os_id": 5, "location": "us-west"})

    assert answer.status_code == 400
    assert is_validation_error(answer.json(), "plan_id", "os_id", "location")
    assert Server.objects.get().name == "web-server-01"


@pytest.mark.parametrize(
    ("field", "value"), [("plan_id", 99), ("os_id", 99), ("location", "mars"), ("ssh_key_id", 99)]
)
def test_what_is_not_on_offer_is_refused_by_its_field(
    alice: Customer, shop: dict[str, Any], field: str, value: Any
) -> None:
    answer = alice.post(LIST, shop | {field: value})

    assert answer.status_code == 400
    assert is_validation_error(answer.json(), field)


@pytest.mark.parametrize(
    ("field", "model", "taken_off"),
    [
        ("plan_id", Plan, {"is_active": False}),
        ("os_id", OsVersion, {"is_active": False}),
        ("os_id", OsVersion, {"image": None}),
        ("location", Location, {"is_active": False}),
    ],
)
def test_what_was_taken_off_the_shelf_is_refused_by_its_field(
    alice: Customer, shop: dict[str, Any], field: str, model: Any, taken_off: dict[str, Any]
) -> None:
    model.objects.update(**taken_off)

    answer = alice.post(LIST, shop)

    assert answer.status_code == 400
    assert is_validation_error(answer.json(), field)


def test_a_plan_too_small_for_the_system_is_refused(alice: Customer, shop: dict[str, Any]) -> None:
    Image.objects.update(minimum_disk_gib=81)

    answer = alice.post(LIST, shop)

    assert answer.status_code == 400
    assert is_validation_error(answer.json(), "plan_id")


def test_somebody_elses_key_is_no_key(alice: Customer, shop: dict[str, Any]) -> None:
    key = SshKey.objects.create(account=AccountFactory.create(), name="laptop", public_key="ssh-ed25519 AAAA")

    answer = alice.post(LIST, shop | {"ssh_key_id": key.pk})

    assert answer.status_code == 400
    assert is_validation_error(answer.json(), "ssh_key_id")


# 400, 402, 409: sound, but not now.


@pytest.mark.parametrize("lacking", [IpAddress, Hypervisor])
def test_without_room_or_addresses_the_location_is_refused(
    alice: Customer, shop: dict[str, Any], lacking: Any
) -> None:
    lacking.objects.all().delete()

    answer = alice.post(LIST, shop)

    assert answer.status_code == 400
    told = answer.json()
    assert list(told) == ["detail", "code", "location"]
    assert (told["code"], told["location"]) == ("no_capacity", [told["detail"]])
    assert nothing_was_made()


def test_without_credits_for_a_day_nothing_is_made(
    customer: Callable[..., Customer], shop: dict[str, Any]
) -> None:
    a_day = 24 * Plan.objects.get().price_hourly
    almost, just = customer(credits=a_day - Decimal("0.0001")), customer(credits=a_day)

    answer = almost.post(LIST, shop)

    assert answer.status_code == 402
    told = answer.json()
    assert list(told) == ["detail", "code", "balance", "required"]
    assert told["code"] == "insufficient_credits"
    assert (told["balance"], told["required"]) == (float(almost.account.balance), float(a_day))
    assert nothing_was_made()
    assert just.post(LIST, shop).status_code == 201
    assert just.post(LIST, shop).status_code == 402  # a day of both


def nothing_was_made() -> bool:
    used = Hypervisor.objects.exclude(vcpus_used=0, memory_mib_used=0, disk_gib_used=0)
    return not any(rows.exists() for rows in (Server.objects, Operation.objects, Placement.objects, used))


@pytest.mark.parametrize(
    ("action", "status", "code"),
    [
        ("start", ServerStatus.ACTIVE, "already_running"),
        ("stop", ServerStatus.STOPPED, "not_running"),
        ("reboot", ServerStatus.STOPPED, "not_running"),
        ("start", ServerStatus.SUSPENDED, "suspended"),
        ("stop", ServerStatus.ERROR, "server_in_error"),
    ],
)
def test_an_action_in_the_wrong_status_is_refused(
    alice: Customer, web_server: Server, action: str, status: ServerStatus, code: str
) -> None:
    put_into(status)

    answer = ask(alice, action)

    assert answer.status_code == 400
    assert is_refusal(answer.json(), code)
    assert not Operation.objects.exists()
    assert alice.get(ONE).json()["status"] == status


@each_action
def test_while_an_operation_is_open_actions_are_to_come_back(
    alice: Customer, web_server: Server, action: str
) -> None:
    OperationFactory.create(server=web_server)

    answer = ask(alice, action)

    assert answer.status_code == 409
    assert is_refusal(answer.json(), "operation_in_progress")
    assert int(answer["Retry-After"]) > 0
    assert Operation.objects.count() == 1


def test_a_delete_does_not_wait_for_an_open_operation(alice: Customer, web_server: Server) -> None:
    before = OperationFactory.create(server=web_server)

    assert alice.delete(ONE).status_code == 204
    before.refresh_from_db()
    assert before.status == OperationStatus.CANCELLED


# What is not among the endpoints.


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", LIST, {"GET", "POST"}),
        ("DELETE", LIST, {"GET", "POST"}),
        ("POST", ONE, {"GET", "PUT", "PATCH", "DELETE"}),
        *[("GET", f"{ONE}{action}/", {"POST"}) for action in ACTIONS],
        ("BREW", ONE, {"GET", "PUT", "PATCH", "DELETE"}),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    alice: Customer, web_server: Server, method: str, path: str, allowed: set[str]
) -> None:
    answer = alice.ask(method, path)

    assert answer.status_code == 405
    assert is_refusal(answer.json(), "method_not_allowed")
    assert set(answer["Allow"].split(", ")) - {"HEAD", "OPTIONS"} == allowed


@pytest.mark.parametrize("path", [LIST, ONE])
def test_options_tells_the_methods(alice: Customer, web_server: Server, path: str) -> None:
    answer = alice.ask("OPTIONS", path)

    assert answer.status_code == 200
    assert "GET" in answer["Allow"].split(", ")


@pytest.mark.parametrize("path", [LIST, ONE])
def test_head_is_get_without_the_body(alice: Customer, web_server: Server, path: str) -> None:
    answer = alice.ask("HEAD", path)

    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_path_without_its_last_slash_says_so(alice: Customer, web_server: Server, endpoint: str) -> None:
    method, path, body = ENDPOINTS[endpoint]

    answer = alice.ask(method, path.rstrip("/"), body)

    assert answer.status_code == 404
    assert is_refusal(answer.json(), "not_found")
    assert "slash" in answer.json()["detail"]
