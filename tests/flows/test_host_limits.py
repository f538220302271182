"""One host costs only its own servers' operations: how many may be under way, when it is left alone."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from core import leases
from inventory import health
from inventory.models import Hypervisor
from provisioning import hypervisors
from provisioning.drivers.base import HostMisconfigured, HostUnreachable
from provisioning.engine import carry_out
from servers import lifecycle, services
from servers.models import Operation, Server
from servers.states import OperationStatus, ServerStatus
from tests.factories import AccountFactory, OsVersionFactory, PlanFactory
from tests.flows.conftest import FaultyHost, finish, let_lease_end, open_operation
from tests.flows.test_operations import at_once
from tests.flows.test_reconcile import pause_is_over


def queued(host: Hypervisor, count: int) -> list[Operation]:
    """Creates on this host that nobody has begun."""
    account, plan, version = AccountFactory.create(), PlanFactory.create(), OsVersionFactory.create()
    servers = [
        services.create_server(
            account=account,
            name="web",
            plan=plan,
            os_version=version,
            location=host.location,
        )
        for _ in range(count)
    ]
    return [open_operation(server) for server in servers]


def begin(operation: Operation) -> Operation | None:
    return lifecycle.begin(operation.pk)


def test_of_many_workers_as_many_begin_on_a_host_as_it_allows(host: Hypervisor) -> None:
    """Guard: the lock in ``leases.take``; without it two count at once and both find the last seat."""
    Hypervisor.objects.update(max_operations=3)
    waiting = queued(host, 8)
    begun = at_once(8, lambda: begin(waiting.pop()))
    assert sum(operation is not None for operation in begun) == 3


def test_a_place_is_free_again_when_an_operation_waits_or_ends(host: Hypervisor) -> None:
    Hypervisor.objects.update(max_operations=1)
    first, second, third = queued(host, 3)
    begun = begin(first)
    assert begun is not None
    assert begin(second) is None
    lifecycle.postpone(begun, 60)
    again = begin(second)
    assert again is not None
    lifecycle.succeed(again)
    assert begin(third) is not None


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The operations that messages were sent about."""
    woken: list[int] = []

    def note(operation: Operation, *, delay_s: float = 0) -> None:
        woken.append(operation.pk)

    monkeypatch.setattr(services, "wake", note)
    return woken


def test_what_finds_no_place_is_woken_by_who_ends(host: Hypervisor, woken: list[int]) -> None:
    """Guard: ``waits`` in core/leases.py.  Until then nobody sends a message about it."""
    Hypervisor.objects.update(max_operations=1)
    first, second, third = queued(host, 3)
    woken.clear()
    begun = begin(first)
    assert begun is not None
    for operation in (second, second, third, first):  # messages come twice
        carry_out(operation.pk)
    assert woken == []
    lifecycle.succeed(begun)
    services.wake_next(begun)
    assert woken == [second.pk]
    services.wake_next(begun)
    services.wake_next(begun)
    assert woken == [second.pk, third.pk], "each once"


def test_a_place_that_becomes_free_meanwhile_is_seen(
    host: Hypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: the second look in ``leases.take``.  Who ended before the mark was there wakes nobody."""
    Hypervisor.objects.update(max_operations=1)
    first, second = queued(host, 2)
    begun = begin(first)
    assert begun is not None
    look = leases._take

    def end_after(rows: Any, lane: Any, changes: Any) -> bool:
        taken = look(rows, lane, changes)
        if not taken:
            lifecycle.succeed(begun)
        return taken

    monkeypatch.setattr(leases, "_take", end_after)
    assert begin(second) is not None


def test_who_ends_wakes_the_next(host: Hypervisor, woken: list[int]) -> None:
    """Guard: ``wake_next`` in the engine; also what is put off lets go of its place."""
    Hypervisor.objects.update(max_operations=1)
    first, second = queued(host, 2)
    begun = begin(first)
    assert begun is not None
    carry_out(second.pk)
    lifecycle.postpone(begun, 0)
    woken.clear()
    carry_out(first.pk)
    assert second.pk in woken


def test_what_has_begun_goes_on_before_anything_else_begins(host: Hypervisor, woken: list[int]) -> None:
    """Guard: the order of ``lanes.lane_of``; else many new orders hold up those that are nearly done."""
    Hypervisor.objects.update(max_operations=1)
    new, old, busy = queued(host, 3)
    begun = begin(old)
    assert begun is not None
    lifecycle.postpone(begun, 0)
    holder = begin(busy)
    assert holder is not None
    for operation in (new, old):
        assert begin(operation) is None
    lifecycle.succeed(holder)
    woken.clear()
    services.wake_next(holder)
    assert woken == [old.pk]


def test_what_a_dead_worker_left_waits_for_a_place_like_the_others(
    host: Hypervisor, woken: list[int]
) -> None:
    """Nor may the former worker write, should it live, after another one has begun."""
    Hypervisor.objects.update(max_operations=1)
    left, other = queued(host, 2)
    former = begin(left)
    assert former is not None
    let_lease_end(left.subject_server)
    holder = begin(other)
    assert holder is not None
    woken.clear()
    carry_out(left.pk)
    assert woken == []
    lifecycle.succeed(holder)
    services.wake_next(holder)
    assert woken == [left.pk]
    again = begin(left)
    assert again is not None
    with pytest.raises(lifecycle.LeaseLost):
        lifecycle.renew(former)
    with pytest.raises(lifecycle.LeaseLost):
        lifecycle.succeed(former)
    lifecycle.succeed(again)


def test_a_silent_host_is_not_asked_again_at_once(host: Hypervisor, faulty: FaultyHost) -> None:
    """Guard: may_be_asked in circuit_breaker.py."""
    host.failures = 5  # one more, and its pause is half a minute
    host.save()
    faulty.fail_next("powers", HostUnreachable("no answer"))
    driver = hypervisors.driver_for(host)
    for _ in range(3):
        with pytest.raises(HostUnreachable):
            driver.powers()
    assert faulty.calls == ["powers"]
    pause_is_over(host)
    driver.powers()
    driver.powers()
    assert faulty.calls == ["powers"] * 3


def test_the_pauses_grow_and_the_second_silence_makes_it_unreachable(host: Hypervisor) -> None:
    for pause_s in (1, 2, 4, 8, 16, 30, 30, 30):
        before = timezone.now()
        health.record_failure(host, "no answer")
        assert host.retry_at is not None
        assert before <= host.retry_at - timedelta(seconds=pause_s) <= timezone.now()
    host.refresh_from_db()
    assert not host.is_reachable
    health.record_answer(host)
    host.refresh_from_db()
    assert (host.is_reachable, host.failures, host.retry_at) == (True, 0, None)


def test_however_many_ask_at_the_same_time_a_host_is_silent_once(host: Hypervisor) -> None:
    """Guard: the comparison of ``failures`` in record_failure."""
    rows = [Hypervisor.objects.get(pk=host.pk) for _ in range(8)]
    at_once(8, lambda: health.record_failure(rows.pop(), "libvirtd restarts"))
    host.refresh_from_db()
    assert (host.failures, host.is_reachable) == (1, True)
    assert host.retry_at is not None
    assert (host.retry_at - timezone.now()).total_seconds() <= 1, "the pause of one silence"


def test_one_lost_answer_keeps_no_server_away(host: Hypervisor) -> None:
    health.record_failure(host, "libvirtd restarts")
    host.refresh_from_db()
    assert host.is_reachable


def test_of_many_workers_one_tries_a_host_whose_pause_is_over(host: Hypervisor) -> None:
    """Guard: the WHERE in may_be_asked."""
    pause_is_over(host)
    rows = [Hypervisor.objects.get(pk=host.pk) for _ in range(8)]
    assert at_once(8, lambda: health.may_be_asked(rows.pop())).count(True) == 1


def test_should_he_die_who_tries_another_one_may(host: Hypervisor) -> None:
    pause_is_over(host)
    assert health.may_be_asked(host)
    stale = Hypervisor.objects.get(pk=host.pk)
    assert not health.may_be_asked(stale)
    stale.retry_at = timezone.now() - timedelta(seconds=1)
    stale.save()
    assert health.may_be_asked(stale)


def test_what_a_host_refuses_is_an_answer(host: Hypervisor, faulty: FaultyHost) -> None:
    health.record_failure(host, "no answer")
    pause_is_over(host)
    faulty.fail_next("powers", HostMisconfigured("no pool"))
    with pytest.raises(HostMisconfigured):
        hypervisors.driver_for(host).powers()
    host.refresh_from_db()
    assert host.failures == 0


def test_an_operation_outlasts_its_hosts_silence(
    host: Hypervisor, faulty: FaultyHost, order: Callable[[], Server]
) -> None:
    server = order()
    for _ in range(2):
        faulty.fail_next("create_disk", HostUnreachable("no answer"))
    carry_out(open_operation(server).pk)
    operation = open_operation(server)
    assert (operation.status, operation.step) == (OperationStatus.QUEUED, "make_disk")
    assert "no answer" in operation.error_detail
    pause_is_over(Hypervisor.objects.get())
    assert finish(server).status == ServerStatus.ACTIVE
