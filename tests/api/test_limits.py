"""How many servers an account may have, and how many may be in the making at once."""

from collections.abc import Callable
from typing import Any

import pytest

from servers import lifecycle
from servers.models import Operation, Server
from servers.states import ServerStatus
from tests.api.contract import is_refusal
from tests.conftest import Customer
from tests.factories import BackupFactory, ServerFactory

# The setting, the account's own limit, and what the refusal is called.
LIMITS = [
    ("VPS_MAX_SERVERS", "max_servers", "server_limit_reached"),
    ("VPS_MAX_OPEN_CREATES", "max_open_creates", "too_many_creates"),
]
by_limit = pytest.mark.parametrize(("setting", "column", "code"), LIMITS, ids=["servers", "creates"])


@by_limit
def test_the_limit_is_reached_and_the_next_create_refused_by_its_code(
    alice: Customer, shop: dict[str, Any], settings: Any, setting: str, column: str, code: str
) -> None:
    setattr(settings, setting, 2)
    answers = [alice.post("/servers/", shop) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 400]
    assert is_refusal(answers[-1].json(), code)
    assert Server.objects.count() == 2


@by_limit
def test_an_account_may_have_a_limit_of_its_own(
    alice: Customer,
    customer: Callable[..., Customer],
    shop: dict[str, Any],
    settings: Any,
    setting: str,
    column: str,
    code: str,
) -> None:
    setattr(settings, setting, 2)
    bob = customer()
    for who, limit in ((alice, 1), (bob, 0)):  # 0: none
        setattr(who.account, column, limit)
        who.account.save(update_fields=[column])
    assert [alice.post("/servers/", shop).status_code for _ in range(2)] == [201, 400]
    assert [bob.post("/servers/", shop).status_code for _ in range(3)] == [201, 201, 201]


def test_so_many_disks_are_made_from_backups_at_once(
    alice: Customer, shop: dict[str, Any], settings: Any
) -> None:
    """Each may keep a worker for hours.  Guards: ``require_restores_within_limit``, by both ways."""
    settings.VPS_MAX_OPEN_RESTORES = 2
    for _ in range(3):
        alice.post("/servers/", shop)
    for created in Operation.objects.all():
        lifecycle.succeed(lifecycle.begin(created.pk) or created)
    copies = [BackupFactory.create(server=server) for server in Server.objects.all()]
    new = {field: value for field, value in shop.items() if field != "os_id"}
    restores = [alice.post(f"/backups/{copy.pk}/restore/") for copy in copies]
    assert [answer.status_code for answer in restores[:2]] == [200, 200]
    for refused in (restores[2], alice.post("/servers/", new | {"backup_id": copies[2].pk})):
        assert refused.status_code == 400
        assert is_refusal(refused.json(), "too_many_restores")
    assert alice.post("/servers/", shop).status_code == 201, "one from an image may be made"


def test_creating_and_deleting_in_a_loop_meets_the_limit(
    alice: Customer, customer: Callable[..., Customer], shop: dict[str, Any], settings: Any
) -> None:
    """Guard: a server counts until nothing of it is left on its host."""
    settings.VPS_MAX_SERVERS = 3
    for _ in range(3):
        alice.delete(f"/servers/{alice.post('/servers/', shop).json()['id']}/")
    assert alice.get("/servers/").json()["count"] == 0
    assert is_refusal(alice.post("/servers/", shop).json(), "server_limit_reached")
    assert customer().post("/servers/", shop).status_code == 201


@pytest.mark.parametrize("status", [ServerStatus.SUSPENDED, ServerStatus.ERROR, ServerStatus.STOPPED])
def test_whatever_is_not_deleted_counts(
    alice: Customer, shop: dict[str, Any], settings: Any, status: ServerStatus
) -> None:
    settings.VPS_MAX_SERVERS = 1
    ServerFactory.create(account=alice.account, status=status)
    assert is_refusal(alice.post("/servers/", shop).json(), "server_limit_reached")


def test_what_is_deleted_and_what_others_have_does_not_count(
    alice: Customer, shop: dict[str, Any], settings: Any
) -> None:
    settings.VPS_MAX_SERVERS = 1
    ServerFactory.create()
    gone = {"status": ServerStatus.DELETED, "deleted_at": "2025-01-01T00:00:00Z"}
    ServerFactory.create(account=alice.account, **gone)
    assert alice.post("/servers/", shop).status_code == 201


def test_what_is_active_is_not_in_the_making(alice: Customer, shop: dict[str, Any], settings: Any) -> None:
    settings.VPS_MAX_OPEN_CREATES = 1
    ServerFactory.create_batch(3, account=alice.account)
    assert alice.post("/servers/", shop).status_code == 201
