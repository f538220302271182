"""What a worker asks of Postgres for one operation: each statement is a round trip."""

from collections.abc import Callable

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from provisioning.carry_out import carry_out
from servers import services
from servers.models import Server
from servers.states import ServerStatus
from tests.flows.conftest import open_operation

pytestmark = pytest.mark.django_db(transaction=True)

MOST = 34  # among them: the limit of its host 2, the meter 4, webhooks 2
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
    services.delete_server(server=server, requested_by="a test")
    deleted = statements_of_the_open_operation(server)
    server.refresh_from_db()
    assert server.status == ServerStatus.DELETED
    assert max(len(created), len(deleted)) <= MOST
    assert max(1 + statement.count(" JOIN ") for statement in created + deleted) <= MOST_TABLES
