"""Answers that were wrong once: what was asked, and the answer that is right."""

import json
import sys
from collections.abc import Callable
from decimal import Decimal
from io import BytesIO
from ipaddress import ip_network
from time import monotonic
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import ApiToken, SshKey
from core.api.parsing import MAX_BODY_BYTES
from core.api.waiting import Seats
from servers.api import operations
from servers.models import Operation, Server
from tests.api.contract import SERVER, is_refusal, is_validation_error
from tests.api.routes import BASE, Route
from tests.api.test_tenants import PERMISSIONS, belongings, named_by
from tests.conftest import Customer
from tests.factories import OperationFactory, OsVersionFactory, PlanFactory
from vpsorg.wsgi import application

ONE = f"/servers/{SERVER}/"
KEY = {"HTTP_IDEMPOTENCY_KEY": "order-17"}


# Lists: the length is judged first, and references are looked up by one query.


def test_five_thousand_keys_cost_no_look_up(alice: Customer, shop: dict[str, Any]) -> None:
    with CaptureQueriesContext(connection) as queries:
        answer = alice.post("/servers/", shop | {"ssh_keys": [1] * 5_000})

    assert answer.status_code == 400
    assert answer.json() == {"ssh_keys": ["Should have at most 20 items."]}
    assert not [query for query in queries if "sshkey" in query["sql"]]


def test_twenty_keys_are_looked_up_by_one_query(alice: Customer, shop: dict[str, Any]) -> None:
    keys = [
        SshKey.objects.create(account=alice.account, name="k", public_key=f"ssh-ed25519 {n}", fingerprint=n)
        for n in range(20)
    ]
    named = [key.pk if n % 2 else str(key.uuid).upper() for n, key in enumerate(keys)]
    with CaptureQueriesContext(connection) as queries:
        assert alice.post("/servers/", shop | {"ssh_keys": named}).status_code == 201

    asked = [query["sql"] for query in queries if 'FROM "accounts_sshkey"' in query["sql"]]
    assert len(asked) == 1
    assert Server.objects.get().authorized_keys == [key.public_key for key in keys]


def test_a_long_list_of_events_is_refused_for_its_length(alice: Customer) -> None:
    body = {"url": "https://hooks.example.com/vps", "events": ["nonsense"] * 5_000}

    assert alice.post("/webhooks/", body).json() == {"events": ["Should have at most 10 items."]}


# Chunked bodies.


def chunked(method: str, path: str, token: str, body: bytes) -> tuple[int, Any]:
    """The API's answer to a body without a Content-Length."""
    status: list[str] = []
    environment = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "HTTP_HOST": "testserver",
        "HTTP_AUTHORIZATION": f"Bearer {token}",
        "HTTP_TRANSFER_ENCODING": "chunked",
        "CONTENT_TYPE": "application/json",
        "wsgi.input": BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
    }
    answer = b"".join(application(environment, lambda told, headers, *more: status.append(told)))
    return int(status[0].split()[0]), json.loads(answer)


@pytest.mark.usefixtures("one_connection")
def test_a_chunked_body_is_read(alice: Customer, web_server: Server) -> None:
    status, body = chunked("PATCH", f"{BASE}{ONE}", alice.token, b'{"name": "renamed"}')

    assert (status, body["name"]) == (200, "renamed")


@pytest.mark.usefixtures("one_connection")
def test_a_chunked_body_that_is_too_large_is_refused(alice: Customer, web_server: Server) -> None:
    huge = b'{"name": "' + b"a" * MAX_BODY_BYTES + b'"}'
    status, body = chunked("PATCH", f"{BASE}{ONE}", alice.token, huge)

    assert (status, body["code"]) == (400, "body_too_large")


# Idempotency-Key.


@pytest.mark.parametrize("route", [r for r in PERMISSIONS if r.method == "GET"], ids=" ".join)
def test_a_key_on_a_path_without_a_post_is_answered_as_without_a_key(alice: Customer, route: Route) -> None:
    path = route.of(**named_by("pk", belongings(alice)))
    with_key, without = alice.post(path, {}, **KEY), alice.post(path, {})

    assert with_key.status_code == without.status_code
    assert with_key.status_code in {400, 402, 405} if Route("POST", route.path) in PERMISSIONS else {405}


def test_a_token_without_the_permission_is_not_given_the_answer_of_a_token_with_it(
    customer: Callable[..., Customer], shop: dict[str, Any]
) -> None:
    alice = customer()
    made = alice.post("/servers/", shop, **KEY)
    assert made.status_code == 201
    ApiToken.objects.update(permissions=["servers:read"])

    assert is_refusal(alice.post("/servers/", shop, **KEY).json(), "permission_denied")
    assert is_refusal(alice.post(f"/servers/{made.json()['id']}/stop/", **KEY).json(), "permission_denied")


def test_a_create_is_not_repeated_for_a_server_that_is_gone(alice: Customer, shop: dict[str, Any]) -> None:
    made = alice.post("/servers/", shop, **KEY)
    assert alice.post("/servers/", shop, **KEY).json() == made.json()
    alice.delete(f"/servers/{made.json()['id']}/")

    answer = alice.post("/servers/", shop, **KEY)

    assert answer.status_code == 410
    assert is_refusal(answer.json(), "created_and_deleted")


PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl x"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/webhooks/", {"url": "https://192.0.2.1/vps"}),
        ("/ssh-keys/", {"name": "k", "public_key": PUBLIC_KEY}),
    ],
    ids=["webhook", "SSH key"],
)
def test_nor_for_another_row_that_is_gone(
    alice: Customer, settings: Any, path: str, body: dict[str, Any]
) -> None:
    """Guard: ``require_still_true`` of each view that creates rows."""
    settings.VPS_WEBHOOK_PRIVATE_NETWORKS = [ip_network("192.0.2.0/24")]
    made = alice.post(path, body, **KEY)
    assert made.status_code == 201
    assert alice.post(path, body, **KEY).json()["id"] == made.json()["id"]
    alice.delete(f"{path}{made.json()['id']}/")

    answer = alice.post(path, body, **KEY)

    assert answer.status_code == 410
    assert is_refusal(answer.json(), "created_and_deleted")


# Fields and parameters that the API does not know.

KNOWN = {"PUT": "name, hostname, backups_enabled", "PATCH": "name, hostname, backups_enabled"}


@pytest.mark.parametrize("method", KNOWN)
def test_a_field_that_cannot_be_changed_is_not_ignored(
    alice: Customer, web_server: Server, method: str
) -> None:
    body = {"name": "fine", "hostname": "fine.example.com", "backups_enabled": True, "colour": "red"}
    answer = alice.ask(method, ONE, body)

    assert answer.status_code == 400
    assert answer.json() == {"colour": [f"There is no such field. The fields are: {KNOWN[method]}."]}


@pytest.mark.parametrize(
    ("order", "body", "fields"),
    [
        ("start", {}, "none"),
        ("stop", {}, "none"),
        ("reboot", {}, "none"),
        ("power", {"action": "stop"}, "action"),
        ("resize", {"plan_id": 1}, "plan, plan_id"),
        ("rebuild", {"os_id": 5}, "os_id"),
    ],
)
def test_an_order_with_an_unknown_field_changes_nothing(
    alice: Customer, web_server: Server, order: str, body: dict[str, Any], fields: str
) -> None:
    answer = alice.post(f"{ONE}{order}/", body | {"ssh_key_id": 1})

    assert answer.status_code == 400
    assert answer.json() == {"ssh_key_id": [f"There is no such field. The fields are: {fields}."]}
    assert not Operation.objects.exists()


def test_a_webhook_is_not_changed_with_an_unknown_field(alice: Customer) -> None:
    webhook = belongings(alice)["webhook_id"]
    answer = alice.patch(f"/webhooks/{webhook.pk}/", {"is_active": False, "secret": "mine"})

    assert is_validation_error(answer.json(), "secret")
    webhook.refresh_from_db()
    assert webhook.is_active


@pytest.mark.parametrize("action", ["rotate-secret", "test"])
def test_an_action_on_a_webhook_with_an_unknown_field_does_nothing(alice: Customer, action: str) -> None:
    """Guard: NoFields.  A secret that is replaced signs nothing any more."""
    webhook = belongings(alice)["webhook_id"]
    before = webhook.sealed_secret, webhook.deliveries.count()
    answer = alice.post(f"/webhooks/{webhook.pk}/{action}/", {"secret": "mine"})

    assert answer.status_code == 400
    assert answer.json() == {"secret": ["There is no such field. The fields are: none."]}
    webhook.refresh_from_db()
    assert (webhook.sealed_secret, webhook.deliveries.count()) == before


def test_a_create_ignores_unknown_fields_and_names_them(alice: Customer, shop: dict[str, Any]) -> None:
    answer = alice.post("/servers/", shop | {"colour": "red", "size\n": 1, "é": 2, "ssd": True})

    assert answer.status_code == 201
    assert answer["Ignored-Fields"] == "colour, ssd"
    assert "Ignored-Fields" not in alice.post("/servers/", shop)


def test_fields_that_contradict_each_other_are_refused(alice: Customer, shop: dict[str, Any]) -> None:
    one, two = (
        SshKey.objects.create(account=alice.account, name="k", public_key=f"ssh-ed25519 {n}", fingerprint=n)
        for n in range(2)
    )
    contradictions: dict[str, dict[str, Any]] = {
        "ssh_key_id": {"ssh_key_id": one.pk, "ssh_keys": [two.pk]},
        "plan_id": {"plan": PlanFactory.create(slug="another").pk},
        "os_id": {"os_version": OsVersionFactory.create(name="Another").pk},
    }
    for field, said in contradictions.items():
        answer = alice.post("/servers/", shop | said)
        assert answer.status_code == 400
        assert is_validation_error(answer.json(), field)
    agreeing = {"ssh_key_id": one.pk, "ssh_keys": [str(one.uuid)], "plan": shop["plan_id"]}
    assert alice.post("/servers/", shop | agreeing).status_code == 201


@pytest.mark.parametrize("route", PERMISSIONS, ids=" ".join)
def test_no_route_takes_a_query_parameter_that_it_does_not_know(alice: Customer, route: Route) -> None:
    """Guard: each view is a StrictView; a script that deletes what it lists must not list everything."""
    path = route.of(**named_by("pk", belongings(alice)))
    answer = alice.ask(route.method, f"{path}?nonsense=web&page_sise=1", {})

    assert answer.status_code == 400
    assert is_validation_error(answer.json(), "nonsense", "page_sise")
    assert "no such query parameter" in answer.json()["nonsense"][0]


# Sentences in one voice.


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("name", 1, "Should be a string."),
        ("name", None, "Should not be null."),
        ("name", "", "Should not be empty."),
        ("name", "-", "Should be 1 to 63 letters, digits and hyphens, with no hyphen first or last."),
        ("backups_enabled", "yes", "Should be true or false."),
        ("plan_id", "one", "Should be an integer id or a uuid."),
        ("ssh_keys", "laptop", "Should be a list."),
        ("location", "mars", "There is no such location. There are: us-west."),
        ("plan_id", 99, "There is no such plan on sale. There are: 1 (Standard VPS)."),
        ("os_id", 99, "This system is not on offer. There are: 5 (Ubuntu 22.04 LTS)."),
    ],
)
def test_a_refusal_says_what_the_value_should_be(
    alice: Customer, example_shop: dict[str, Any], field: str, value: Any, sentence: str
) -> None:
    assert alice.post("/servers/", example_shop | {field: value}).json()[field] == [sentence]


def test_a_refused_filter_says_what_there_is(alice: Customer, shop: dict[str, Any]) -> None:
    told = alice.get("/servers/?status=running&location=mars").json()

    assert told["status"][0].startswith("Should be one of: provisioning, active, stopped, ")
    assert told["location"] == ["Should be one of: us-west."]


def test_a_refused_power_action_says_what_there_is(alice: Customer, web_server: Server) -> None:
    told = alice.post(f"{ONE}power/", {"action": "explode"}).json()

    assert told == {"action": ["Should be one of: start, stop, restart, hard_stop."]}


# Hostnames: names of RFC 1123, and no addresses.


@pytest.mark.parametrize(
    "hostname", ["1.2.3.4", "12345", "web.123", "localhost", "LOCALHOST", "web.localhost", "1.2.3.4.5"]
)
def test_an_address_is_no_hostname(alice: Customer, shop: dict[str, Any], hostname: str) -> None:
    assert is_validation_error(alice.post("/servers/", shop | {"hostname": hostname}).json(), "hostname")


@pytest.mark.parametrize("hostname", ["1.example.com", "123.web1", "localhost.example.com", "a1"])
def test_a_hostname_may_have_numbers(alice: Customer, shop: dict[str, Any], hostname: str) -> None:
    assert alice.post("/servers/", shop | {"hostname": hostname}).status_code == 201


# Waiting for an operation.


def test_so_many_may_wait_and_no_more() -> None:
    seats = Seats(total=3, per_holder=2)
    with seats.taken("a") as first, seats.taken("a") as second, seats.taken("a") as third:
        assert (first, second, third) == (True, True, False)
        with seats.taken("b") as fourth, seats.taken("c") as fifth:
            assert (fourth, fifth) == (True, False)
    with seats.taken("a") as again:
        assert again


def test_a_wait_that_finds_no_seat_is_answered_at_once(
    alice: Customer, web_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: the seats; 16 waiting requests of one account would hold all threads for half a minute."""
    monkeypatch.setattr(operations, "SEATS", Seats(total=4, per_holder=0))
    operation = OperationFactory.create(server=web_server)
    began = monotonic()
    answer = alice.get(f"/operations/{operation.pk}/?wait=30")

    assert monotonic() - began < 5
    assert (answer.json()["status"], answer["Retry-After"]) == ("queued", "2")


# Money: two amounts that differ are never told as if they were the same.


def test_what_is_lacking_is_told_with_all_its_decimals(
    customer: Callable[..., Customer], shop: dict[str, Any]
) -> None:
    """Guard: ``as_told``."""
    plan = PlanFactory.create(slug="odd", price_hourly=Decimal("0.0168"), price_monthly=Decimal("10"))
    told = customer(credits=Decimal("0.40")).post("/servers/", shop | {"plan_id": plan.pk}).json()

    assert told["code"] == "insufficient_credits"
    assert "This needs 0.4032 credits" in told["detail"]
    assert "you have 0.40." in told["detail"]
