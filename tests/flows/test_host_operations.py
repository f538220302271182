"""What is asked of a host itself: an operation as any other, about no server."""

from collections.abc import Callable

import pytest
from django.db import IntegrityError

from core.errors import OperationInProgress
from inventory.models import Hypervisor
from provisioning.drivers.base import HostMisconfigured, HostUnreachable
from provisioning.engine import carry_out
from servers import lifecycle, services
from servers.models import Operation, Server, WrongSubject
from servers.states import HostOperationKind, OperationStatus
from tests.factories import TESTER, HypervisorFactory, OperationFactory, ServerFactory
from tests.flows.conftest import FaultyHost
from tests.flows.test_operations import at_once
from tests.flows.test_reconcile import pause_is_over

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_host_that_is_checked_says_what_it_is_and_no_server_changes(
    host: Hypervisor, active: Server
) -> None:
    Hypervisor.objects.update(is_reachable=False, failures=3, last_error="no answer")
    before = Server.objects.values().get()
    operation = services.check_hypervisor(hypervisor=host)
    assert (operation.subject, operation.status, operation.actor) == (host, OperationStatus.QUEUED, TESTER)
    carry_out(operation.pk)
    operation.refresh_from_db()
    assert operation.status == OperationStatus.SUCCEEDED
    assert "libvirt" in operation.message
    assert "MiB are free" in operation.message
    host.refresh_from_db()
    assert (host.is_reachable, host.is_ready, host.failures, host.last_error) == (True, True, 0, "")
    assert Server.objects.values().get() == before


def test_a_check_asks_a_host_that_the_circuit_breaker_leaves_alone_and_asks_it_once(
    host: Hypervisor, faulty: FaultyHost
) -> None:
    """Guards: ``bare_driver_for`` in host_facts.py; GaveUp in ``check_host``: it is not tried again."""
    pause_is_over(host)
    Hypervisor.objects.update(failures=5, retry_at="2999-01-01T00:00:00Z")
    host.refresh_from_db()
    faulty.fail_next("facts", HostUnreachable("no answer"))
    operation = services.check_hypervisor(hypervisor=host)
    carry_out(operation.pk)
    operation.refresh_from_db()
    assert faulty.calls == ["facts"]
    assert (operation.status, operation.error_code) == (OperationStatus.FAILED, "host_unreachable")
    assert "no answer" in operation.message
    host.refresh_from_db()
    assert (host.is_reachable, host.failures) == (False, 6)


def test_what_is_wrong_with_a_host_is_kept_in_its_row(host: Hypervisor, faulty: FaultyHost) -> None:
    faulty.fail_next("facts", HostMisconfigured("no pool"))
    operation = services.check_hypervisor(hypervisor=host)
    carry_out(operation.pk)
    operation.refresh_from_db()
    assert operation.status == OperationStatus.FAILED
    host.refresh_from_db()
    assert (host.is_reachable, host.is_ready) == (True, False)
    assert "no pool" in host.last_error


def test_of_many_who_ask_a_host_at_the_same_time_one_is_taken() -> None:
    """Guard: the constraint ``one_open_operation_per_host``."""
    host = HypervisorFactory.create()
    results = at_once(8, lambda: services.check_hypervisor(hypervisor=host))
    assert sum(isinstance(result, Operation) for result in results) == 1
    assert sum(isinstance(result, OperationInProgress) for result in results) == 7


def test_a_host_is_checked_while_its_servers_are_busy(order: Callable[[], Server], host: Hypervisor) -> None:
    order(), order()
    assert Operation.objects.filter(hypervisor=host).count() == 2
    assert services.check_hypervisor(hypervisor=host).status == OperationStatus.QUEUED


def test_a_check_counts_among_what_is_under_way_on_its_host(
    order: Callable[[], Server], host: Hypervisor
) -> None:
    Hypervisor.objects.update(max_operations=1)
    order()
    assert lifecycle.begin(Operation.objects.get().pk) is not None
    check = services.check_hypervisor(hypervisor=host)
    assert lifecycle.begin(check.pk) is None


def test_an_operation_about_nothing_is_refused_by_the_database() -> None:
    with pytest.raises(IntegrityError, match="an_operation_is_about_one_thing"):
        OperationFactory.create(server=None, hypervisor=None)


def test_an_operation_is_about_its_server_though_it_is_done_on_a_host() -> None:
    host, server = HypervisorFactory.create(), ServerFactory.create()
    of_server = OperationFactory.create(server=server, hypervisor=host)
    of_host = OperationFactory.create(server=None, hypervisor=host, kind=HostOperationKind.CHECK)
    assert (of_server.subject, of_server.subject_server) == (server, server)
    assert (of_host.subject, of_host.subject_hypervisor) == (host, host)
    for operation, wrong in ((of_server, "subject_hypervisor"), (of_host, "subject_server")):
        with pytest.raises(WrongSubject):
            getattr(operation, wrong)
