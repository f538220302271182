"""What an order costs, in statements: seconds would depend on the machine.  docs/performance.md has those."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from servers.models import Server
from servers.states import ServerStatus
from tests.conftest import Customer
from tests.factories import HypervisorFactory, ServerFactory

MOST = 29  # the meter of a server is a row, and backups that cost nothing yet are asked for
MOST_OF_A_STOP, MOST_OF_A_START = 13, 16


def statements_of_a_create(alice: Customer, shop: dict[str, Any]) -> int:
    with CaptureQueriesContext(connection) as queries:
        assert alice.post("/servers/", shop).status_code == 201
    return len(queries)


def test_a_create_costs_the_same_number_of_statements_whatever_there_is(
    alice: Customer, shop: dict[str, Any]
) -> None:
    """Guard: ``billing.runway._per_hour`` lets Postgres add the prices up."""
    alice.post("/servers/", shop)  # the use of the token is noted, and the catalogue in memory from now on
    cost = statements_of_a_create(alice, shop)
    host = HypervisorFactory.create()
    for _ in range(20):
        HypervisorFactory.create(location=host.location, memory_mib_used=host.memory_mib)  # all full
    ServerFactory.create_batch(20, account=alice.account)
    assert statements_of_a_create(alice, shop) == cost <= MOST


def test_a_delete_costs_the_same_number_of_statements_whatever_there_is(
    alice: Customer, shop: dict[str, Any]
) -> None:
    costs = set()
    for others in (0, 20):
        ServerFactory.create_batch(others, account=alice.account)
        pk = alice.post("/servers/", shop).json()["id"]
        with CaptureQueriesContext(connection) as queries:
            assert alice.delete(f"/servers/{pk}/").status_code == 204
        costs.add(len(queries))
    assert len(costs) == 1
    assert costs.pop() <= MOST
    assert Server.objects.filter(deleted_at=None).count() == 20


@pytest.mark.parametrize(
    ("status", "action", "most"),
    [(ServerStatus.ACTIVE, "stop", MOST_OF_A_STOP), (ServerStatus.STOPPED, "start", MOST_OF_A_START)],
)
def test_the_order_of_a_stop_or_a_start_does_not_pay_for_a_rate_that_cannot_change(
    alice: Customer, catalogue: dict[str, Any], status: ServerStatus, action: str, most: int
) -> None:
    """Guard: ``follow`` in servers/charges.py compares states before it asks the database."""
    other = ServerFactory.create(account=alice.account, status=status, **catalogue)
    alice.post(f"/servers/{other.pk}/{action}/")  # notes the use of the token, and reads the catalogue
    server = ServerFactory.create(account=alice.account, status=status, **catalogue)
    with CaptureQueriesContext(connection) as queries:
        assert alice.post(f"/servers/{server.pk}/{action}/").status_code == 200
    statements = [query["sql"] for query in queries]
    assert len(statements) <= most
    assert not [sql for sql in statements if "billing_rate" in sql or "billing_meter" in sql]
