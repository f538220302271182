"""Workers may live beside the hosts of one location, and leave those of the others alone."""

from collections.abc import Callable
from ipaddress import ip_network

import pytest

from deploy.local.processes import wait_for
from inventory.pools import add_ip_pool
from plans.models import Location
from servers.models import Server
from servers.states import OPEN_OPERATION, ServerStatus
from tests.chaos.conftest import Plant
from tests.factories import AccountFactory, HypervisorFactory, LocationFactory

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def far_away(host: object) -> Location:
    """A location whose host is somewhere that we cannot reach."""
    location: Location = LocationFactory.create(code="us-east")
    HypervisorFactory.create(location=location)
    add_ip_pool(
        location=location,
        network=ip_network("198.51.100.0/24"),
        gateway="198.51.100.1",
        nameservers=[],
        reserved=set(),
    )
    return location


def test_a_worker_of_one_location_leaves_the_others_alone(
    plant: Plant, far_away: Location, order: Callable[..., Server]
) -> None:
    """Guard: ``self._chosen`` in listen.py."""
    plant.stop_workers()
    plant.start_worker("--location", "us-west")
    account = AccountFactory.create()
    there = order(account=account, location=far_away)
    here = order(account=account)
    mine = Server.objects.filter(pk=here.pk, status=ServerStatus.ACTIVE)
    assert wait_for(mine.exists, 60), plant.worker.last_lines(40)
    assert there.operations.get().attempt == 0
    plant.kill_worker()  # and one for all locations comes in its place
    tried = there.operations.filter(attempt__gt=0, status__in=OPEN_OPERATION)
    assert wait_for(tried.exists, 60), plant.worker.last_lines(40)
