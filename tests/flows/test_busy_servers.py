"""What a host says of a server while something is being done to it."""

import pytest

from core import clock
from servers import lifecycle
from servers.models import Server
from servers.states import PowerState
from tests.factories import OperationFactory, ServerFactory

pytestmark = pytest.mark.django_db


def test_a_server_that_something_is_done_to_does_not_follow_its_host() -> None:
    """It was asked after the operation had begun.  Guard: ``~Exists(open operations)`` in ``_idle_since``."""
    server = ServerFactory.create()
    OperationFactory.create(server=server)
    asked_at = clock.now()
    assert not lifecycle.observe(server, PowerState.OFF, asked_at)
    lifecycle.confirm([server.pk], PowerState.OFF, asked_at)
    now_there = Server.objects.get(pk=server.pk)
    assert (now_there.status, now_there.power_state) == ("active", "running")
