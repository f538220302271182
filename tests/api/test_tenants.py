"""Who may see and do what.  Alice owns; Bob owns something else; Charlie owns nothing."""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Account, ApiToken, SshKey
from backups.kinds import BackupKind
from backups.models import Backup
from servers.models import Operation, Server
from servers.states import HostOperationKind, OperationStatus
from tests.api.contract import is_refusal, is_validation_error
from tests.api.routes import BASE, Route, all_routes
from tests.conftest import Customer
from tests.factories import (
    BackupFactory,
    HypervisorFactory,
    OperationFactory,
    OsVersionFactory,
    PlanFactory,
    ServerFactory,
    WebhookDeliveryFactory,
)
from webhooks.models import Webhook, WebhookDelivery

NOBODYS = dict.fromkeys(
    [
        *("server_id", "operation_id", "ssh_key_id", "webhook_id", "plan_id", "backup_id", "snapshot_id"),
    ],
    2**40,
)
ANY_TOKEN = "any token"
SAME_REQUEST = {"HTTP_X_REQUEST_ID": "one-and-the-same"}

# Every route and the permission that it needs.
PERMISSIONS: dict[Route, str] = {
    Route(method, f"{BASE}{path}"): permission
    for method, path, permission in [
        ("GET", "/servers/", "servers:read"),
        ("POST", "/servers/", "servers:write"),
        ("GET", "/servers/<server_id>/", "servers:read"),
        ("PUT", "/servers/<server_id>/", "servers:write"),
        ("PATCH", "/servers/<server_id>/", "servers:write"),
        ("DELETE", "/servers/<server_id>/", "servers:delete"),
        ("POST", "/servers/<server_id>/start/", "servers:write"),
        ("POST", "/servers/<server_id>/stop/", "servers:write"),
        ("POST", "/servers/<server_id>/reboot/", "servers:write"),
        ("POST", "/servers/<server_id>/power/", "servers:write"),
        ("POST", "/servers/<server_id>/resize/", "servers:write"),
        ("POST", "/servers/<server_id>/rebuild/", "servers:write"),
        ("GET", "/servers/<server_id>/operations/", "servers:read"),
        ("GET", "/operations/<operation_id>/", "servers:read"),
        ("GET", "/ssh-keys/", "ssh_keys:read"),
        ("POST", "/ssh-keys/", "ssh_keys:write"),
        ("GET", "/ssh-keys/<ssh_key_id>/", "ssh_keys:read"),
        ("DELETE", "/ssh-keys/<ssh_key_id>/", "ssh_keys:delete"),
        ("GET", "/webhooks/", "webhooks:read"),
        ("POST", "/webhooks/", "webhooks:write"),
        ("GET", "/webhooks/<webhook_id>/", "webhooks:read"),
        ("PATCH", "/webhooks/<webhook_id>/", "webhooks:write"),
        ("DELETE", "/webhooks/<webhook_id>/", "webhooks:delete"),
        ("POST", "/webhooks/<webhook_id>/rotate-secret/", "webhooks:write"),
        ("POST", "/webhooks/<webhook_id>/test/", "webhooks:write"),
        ("GET", "/webhooks/<webhook_id>/deliveries/", "webhooks:read"),
        ("POST", "/servers/<server_id>/backup/", "backups:write"),
        ("POST", "/servers/<server_id>/snapshot/", "snapshots:write"),
        *(
            (method, path.format(what), f"{what}s:{action}")
            for what in ("backup", "snapshot")
            for method, path, action in (
                ("GET", "/{0}s/", "read"),
                ("POST", "/{0}s/", "write"),
                ("GET", "/{0}s/<{0}_id>/", "read"),
                ("DELETE", "/{0}s/<{0}_id>/", "delete"),
                ("POST", "/{0}s/<{0}_id>/restore/", "write"),
            )
        ),
        ("GET", "/plans/", "servers:read"),
        ("GET", "/plans/<plan_id>/", "servers:read"),
        ("GET", "/locations/", "servers:read"),
        ("GET", "/operating-systems/", "servers:read"),
        ("GET", "/account/me/", ANY_TOKEN),
        ("GET", "/account/balance/", "billing:read"),
        ("GET", "/account/transactions/", "billing:read"),
        ("GET", "/servers/<server_id>/usage/", "servers:read"),
    ]
}
# What everybody may read: how the API is used.
OPEN = {Route("GET", f"{BASE}/schema/"), Route("GET", f"{BASE}/docs/")}
# What the provider has and this product has not: any token is told so (tests/api/test_not_offered.py).
NOT_OFFERED = {
    Route(method, f"{BASE}/<section>/<rest>") for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
}
EVERY_PERMISSION = set(PERMISSIONS.values()) - {ANY_TOKEN}
ON_ONE_THING = [route for route in PERMISSIONS if "<" in route.path and "<plan_id>" not in route.path]
each_route_of_one_thing = pytest.mark.parametrize("route", ON_ONE_THING, ids=" ".join)

# What a token's words cover.
WORDS: dict[str, set[str]] = {
    "*:*": EVERY_PERMISSION,
    "servers:*": {word for word in EVERY_PERMISSION if word.startswith("servers:")},
    "ssh_keys:*": {word for word in EVERY_PERMISSION if word.startswith("ssh_keys:")},
    "billing:*": {"billing:read"},
    "backups:*": {word for word in EVERY_PERMISSION if word.startswith("backups:")},
    "snapshots:*": {word for word in EVERY_PERMISSION if word.startswith("snapshots:")},
    "webhooks:*": {word for word in EVERY_PERMISSION if word.startswith("webhooks:")},
    "*:read": {word for word in EVERY_PERMISSION if word.endswith(":read")},
    "*:write": {word for word in EVERY_PERMISSION if word.endswith(":write")},
    "*:delete": {word for word in EVERY_PERMISSION if word.endswith(":delete")},
    **{word: {word} for word in EVERY_PERMISSION},
    **{word: set() for word in ("", "*", ":", "servers", "servers:", "SERVERS:READ", "servers:read,write")},
}


@pytest.fixture
def bob(customer: Callable[..., Customer]) -> Customer:
    bob = customer()
    belongings(bob)
    return bob


@pytest.fixture
def charlie(customer: Callable[..., Customer]) -> Customer:
    return customer()


def belongings(customer: Customer) -> dict[str, Any]:
    """A server with its history, a key and a webhook of theirs, and the plan that everybody sees."""
    server = ServerFactory.create(account=customer.account)
    key = SshKey.objects.create(account=customer.account, name="laptop", public_key="ssh-ed25519 AAAA")
    operation = OperationFactory.create(server=server, status=OperationStatus.SUCCEEDED)
    return {
        "server_id": server,
        "operation_id": operation,
        "ssh_key_id": key,
        "webhook_id": WebhookDeliveryFactory.create(webhook__account=customer.account).webhook,
        "plan_id": server.plan,
        "backup_id": BackupFactory.create(server=server),
        "snapshot_id": BackupFactory.create(server=server, kind=BackupKind.SNAPSHOT),
    }


def named_by(kind: str, things: dict[str, Any]) -> dict[str, Any]:
    return {name: getattr(thing, kind) for name, thing in things.items()}


def everything() -> list[Any]:
    models = (Server, Operation, SshKey, Webhook, WebhookDelivery, Backup)
    return [list(model.objects.order_by("pk").values()) for model in models]


def test_no_route_is_forgotten() -> None:
    """A new route belongs into the table above; then all of this is asked of it."""
    assert set(all_routes()) == set(PERMISSIONS) | OPEN | NOT_OFFERED


# What is somebody else's does not exist.


@each_route_of_one_thing
def test_what_alice_owns_does_not_exist_for_others(
    alice: Customer, bob: Customer, charlie: Customer, route: Route
) -> None:
    hers = belongings(alice)
    before = everything()

    for other in (bob, charlie):
        nobodys = other.ask(route.method, route.of(**NOBODYS), {}, **SAME_REQUEST)
        assert nobodys.status_code == 404
        assert is_refusal(nobodys.json(), "not_found")
        for kind in ("pk", "uuid"):
            answer = other.ask(route.method, route.of(**named_by(kind, hers)), {}, **SAME_REQUEST)
            assert (answer.status_code, answer.content) == (404, nobodys.content)
            assert answer.headers == nobodys.headers
    assert everything() == before
    assert alice.ask(route.method, route.of(**named_by("uuid", hers)), {}).status_code != 404


def test_what_is_asked_of_a_host_exists_for_no_customer(alice: Customer) -> None:
    """Nor the work of other customers there: an operation is the customer's by its server alone."""
    host = HypervisorFactory.create()
    hers = OperationFactory.create(server__account=alice.account, hypervisor=host)
    operations = {
        hers: 200,
        OperationFactory.create(server=None, hypervisor=host, kind=HostOperationKind.CHECK): 404,
        OperationFactory.create(hypervisor=host): 404,
    }
    for operation, status in operations.items():
        for name in (operation.pk, operation.uuid):
            assert alice.get(f"/operations/{name}/").status_code == status
    listed = alice.get(f"/servers/{hers.server_id}/operations/").json()["results"]
    assert [item["id"] for item in listed] == [hers.pk]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/servers/", "server_id"),
        ("/ssh-keys/", "ssh_key_id"),
        ("/webhooks/", "webhook_id"),
        ("/backups/", "backup_id"),
        ("/snapshots/", "snapshot_id"),
    ],
)
def test_lists_hold_what_is_ones_own(
    alice: Customer, bob: Customer, charlie: Customer, path: str, name: str
) -> None:
    hers = belongings(alice)[name].pk

    def listed(customer: Customer) -> list[int]:
        return [item["id"] for item in customer.get(path).json()["results"]]

    assert listed(alice) == [hers]
    assert len(listed(bob)) == 1
    assert hers not in listed(bob)
    assert listed(charlie) == []


# Tokens.


def test_without_a_token_every_route_asks_for_one(alice: Customer) -> None:
    things = named_by("pk", belongings(alice))

    for route in PERMISSIONS:
        for path in (route.of(**things), route.of(**NOBODYS)):
            answer = alice.ask(route.method, path, {}, HTTP_AUTHORIZATION="")
            assert answer.status_code == 401, route
            assert answer["WWW-Authenticate"] == "Bearer"
            assert is_refusal(answer.json(), "not_authenticated")


def _expire(token: ApiToken) -> None:
    ApiToken.objects.filter(pk=token.pk).update(expires_at=timezone.now())


def _revoke(token: ApiToken) -> None:
    ApiToken.objects.filter(pk=token.pk).update(revoked_at=timezone.now())


def _close_account(token: ApiToken) -> None:
    Account.objects.filter(pk=token.account_id).update(is_active=False)


def _forget(token: ApiToken) -> None:
    token.delete()


@pytest.mark.parametrize(
    ("deed", "code"),
    [
        (_forget, "invalid_token"),
        (_expire, "token_expired"),
        (_revoke, "token_revoked"),
        (_close_account, "account_closed"),
    ],
)
def test_a_token_that_is_no_longer_good_is_nobodys(
    alice: Customer, deed: Callable[[ApiToken], None], code: str
) -> None:
    things = named_by("pk", belongings(alice))
    deed(ApiToken.objects.get())
    before = everything()

    for route in PERMISSIONS:
        answer = alice.ask(route.method, route.of(**things), {})
        assert answer.status_code == 401, route
        assert answer["WWW-Authenticate"] == "Bearer"
        assert is_refusal(answer.json(), code)
    assert everything() == before


def test_a_token_that_expires_later_is_good(alice: Customer) -> None:
    ApiToken.objects.update(expires_at=timezone.now() + timedelta(minutes=1))

    assert alice.get("/servers/").status_code == 200


def test_of_a_token_nothing_is_kept_but_its_digest_and_its_beginning(alice: Customer) -> None:
    alice.get("/servers/")

    token = ApiToken.objects.get()
    assert token.digest == hashlib.sha256(alice.token.encode()).hexdigest()
    assert token.prefix == alice.token[:12]
    unknown_rest = f"%{alice.token[12:24]}%"
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(
                f'SELECT count(*) FROM "{table}" AS row WHERE row::text LIKE %s', [f"%{unknown_rest}%"]
            )
            assert cursor.fetchone() == (0,), table


def test_the_use_of_a_token_is_noted_once_a_minute(alice: Customer) -> None:
    used = []
    for seconds_ago in (None, 0, 50, 70):
        if seconds_ago is not None:
            ApiToken.objects.update(last_used_at=timezone.now() - timedelta(seconds=seconds_ago))
        with CaptureQueriesContext(
            connection,
        ) as queries:
            alice.get("/servers/")
        used.append(any("UPDATE" in query["sql"] for query in queries))
        assert ApiToken.objects.get().last_used_at is not None

    assert used == [True, False, False, True]


# Permissions.


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word or "nothing")
def test_a_permission_covers_what_it_says_and_no_more(alice: Customer, word: str) -> None:
    things = named_by("pk", belongings(alice))
    ApiToken.objects.update(permissions=[word])
    before = everything()

    for route in sorted(PERMISSIONS, key=lambda route: route.method == "DELETE"):
        answer = alice.ask(route.method, route.of(**things), {})
        if PERMISSIONS[route] in {ANY_TOKEN, *WORDS[word]}:
            assert answer.status_code not in {401, 403, 404}, route
        else:
            assert answer.status_code == 403, route
            assert is_refusal(answer.json(), "permission_denied")
            assert PERMISSIONS[route] in answer.json()["detail"]
    if not WORDS[word] - {"servers:read", "ssh_keys:read", "billing:read", "webhooks:read"}:
        assert everything() == before


@pytest.mark.parametrize("what", ["backup", "snapshot"])
def test_who_may_not_read_a_copy_makes_no_server_from_it(
    customer: Callable[..., Customer], shop: dict[str, Any], what: str
) -> None:
    """Guard: ``require_permission`` in ``create``: the new server would show what is in it."""
    other = "snapshots" if what == "backup" else "backups"
    alice = customer("servers:*", f"{other}:*")
    copy = BackupFactory.create(
        account=alice.account, kind=BackupKind.SNAPSHOT if what == "snapshot" else BackupKind.MANUAL
    )
    asked = {field: value for field, value in shop.items() if field != "os_id"} | {f"{what}_id": copy.pk}

    assert alice.post("/servers/", asked).status_code == 403
    ApiToken.objects.update(permissions=["servers:*", f"{what}s:read"])
    assert alice.post("/servers/", asked).status_code == 201


def test_permissions_add_up(customer: Callable[..., Customer]) -> None:
    alice = customer("servers:read", "ssh_keys:read")

    assert alice.get("/servers/").status_code == alice.get("/ssh-keys/").status_code == 200
    assert alice.post("/servers/", {}).status_code == 403


@each_route_of_one_thing
def test_what_one_cannot_see_is_not_found_whatever_one_may(
    alice: Customer, customer: Callable[..., Customer], route: Route
) -> None:
    stranger = customer("tickets:read")

    answer = stranger.ask(route.method, route.of(**named_by("pk", belongings(alice))), {})

    assert answer.status_code == 404


# The order of refusals: who, what, may you, is it sound, is it possible now.


def test_an_update_is_refused_in_order(alice: Customer, bob: Customer) -> None:
    hers = belongings(alice)["server_id"]
    ApiToken.objects.filter(account=bob.account).update(permissions=["servers:read"])
    ApiToken.objects.filter(account=alice.account).update(permissions=["servers:read"])
    path, garbage = f"/servers/{hers.pk}/", b"["

    assert bob.ask("PUT", path, garbage, HTTP_AUTHORIZATION="Bearer x").status_code == 401
    assert bob.ask("PUT", path, garbage).status_code == 404
    assert alice.ask("PUT", path, garbage).status_code == 403
    ApiToken.objects.update(permissions=["*:*"])
    assert alice.ask("PUT", path, garbage).status_code == 400
    assert alice.ask("PUT", path, {}).status_code == 400


def test_a_create_is_refused_in_order(customer: Callable[..., Customer], shop: dict[str, Any]) -> None:
    poor = customer("servers:read", credits=0)
    sold_out = shop | {"plan_id": PlanFactory.create(slug="huge", vcpus=10**6).pk}

    assert poor.ask("POST", "/servers/", {}, HTTP_AUTHORIZATION="").status_code == 401
    assert poor.post("/servers/", {}).status_code == 403
    ApiToken.objects.update(permissions=["servers:write"])
    assert is_validation_error(poor.post("/servers/", shop | {"name": "-"}).json(), "name")
    assert poor.post("/servers/", sold_out).status_code == 402


def test_an_action_is_refused_in_order(alice: Customer, bob: Customer) -> None:
    hers = belongings(alice)["server_id"]
    path = f"/servers/{hers.pk}/start/"
    ApiToken.objects.update(permissions=["servers:read"])

    assert bob.post(path).status_code == 404
    assert alice.post(path).status_code == 403
    ApiToken.objects.update(permissions=["servers:write"])
    assert is_refusal(alice.post(path).json(), "already_running")
    OperationFactory.create(server=hers)
    assert alice.post(path).status_code == 409


# The cost of a list.


def test_a_list_costs_the_same_number_of_queries_whatever_it_holds(alice: Customer) -> None:
    shared = {"plan": PlanFactory.create(), "os_version": OsVersionFactory.create(), "usage": None}
    costs = {}
    for rows in (1, 20, 100):
        ServerFactory.create_batch(rows - Server.objects.count(), account=alice.account, **shared)
        alice.get("/servers/")  # the catalogue is in memory from now on
        with CaptureQueriesContext(connection) as queries:
            answer = alice.get("/servers/?page_size=100&status=active")
        assert len(answer.json()["results"]) == rows
        costs[rows] = len([query for query in queries if "UPDATE" not in query["sql"]])

    assert set(costs.values()) == {2}  # the token and its account; the servers with all that is shown
