"""What a worker asks of Postgres for one operation: each statement is a round trip."""

from collections.abc import Callable

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from provisioning.engine import carry_out
from servers import services
from servers.models import Server
from servers.states import ServerStatus
from tests.flows.conftest import finish, open_operation

pytestmark = pytest.mark.django_db(transaction=True)

MOST = 33  # among them: the limit of its host 2, who waits for its seat 1, the meter 4, webhooks 2
MOST_OF_A_STOP, MOST_OF_A_START = 14, 25
MOST_TABLES = 6


def statements_of_the_open_operation(server: Server) -> list[str]:
    operation = open_operation(server)
    with CaptureQueriesContext(connection) as queries:
        carry_out(operation.pk)
    return [query["sql"] for query in queries]


def test_an_operation_costs_few_statements_and_none_that_is_long_to_plan(
    order: Callable[[], Server],
) -> None:
    """Guard: what lifecycle.begin reads at once: Postgres plans a join of ten tables for 7 ms, each time."""
    server = order()
    created = statements_of_the_open_operation(server)
    server.refresh_from_db()
    assert server.status == ServerStatus.ACTIVE
    services.delete_server(server=server)
    deleted = statements_of_the_open_operation(server)
    server.refresh_from_db()
    assert server.status == ServerStatus.DELETED
    assert max(len(created), len(deleted)) <= MOST
    assert max(1 + statement.count(" JOIN ") for statement in created + deleted) <= MOST_TABLES


@pytest.mark.parametrize(
    ("was", "service", "becomes", "most"),
    [
        (ServerStatus.ACTIVE, services.hard_stop_server, ServerStatus.STOPPED, MOST_OF_A_STOP),
        (ServerStatus.STOPPED, services.start_server, ServerStatus.ACTIVE, MOST_OF_A_START),
    ],
)
def test_a_stop_and_a_start_do_not_pay_for_a_rate_that_cannot_change(
    active: Server,
    was: ServerStatus,
    service: Callable[..., object],
    becomes: ServerStatus,
    most: int,
) -> None:
    """Guard: ``follow`` in servers/charges.py compares states before it asks the database."""
    if was == ServerStatus.STOPPED:
        services.hard_stop_server(server=active)
        finish(active)
    service(server=active)
    statements = statements_of_the_open_operation(active)
    active.refresh_from_db()
    assert active.status == becomes
    assert len(statements) <= most
    assert not [sql for sql in statements if "billing_rate" in sql or "billing_meter" in sql]
