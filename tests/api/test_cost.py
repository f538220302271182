"""What an order costs, in statements: seconds would depend on the machine.  docs/performance.md has those."""

from typing import Any

from django.db import connection
from django.test.utils import CaptureQueriesContext

from servers.models import Server
from tests.conftest import Customer
from tests.factories import HypervisorFactory, ServerFactory

MOST = 26


def statements_of_a_create(alice: Customer, shop: dict[str, Any]) -> int:
    with CaptureQueriesContext(connection) as queries:
        assert alice.post("/servers/", shop).status_code == 201
    return len(queries)


def test_a_create_costs_the_same_number_of_statements_whatever_there_is(
    alice: Customer, shop: dict[str, Any]
) -> None:
    """Guard: ``servers.credits._per_hour`` lets Postgres add the prices up."""
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
