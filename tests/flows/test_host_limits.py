"""One host costs only its own servers' operations: how many may be under way, when it is left alone."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from inventory import contact
from inventory.models import Hypervisor
from provisioning import hosts
from provisioning.carry_out import carry_out
from provisioning.hypervisors.base import HostMisconfigured, HostUnreachable
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
            requested_by="a test",
        )
        for _ in range(count)
    ]
    return [open_operation(server) for server in servers]


def begin(operation: Operation) -> Operation | None:
    try:
        return lifecycle.begin(operation.pk)
    except lifecycle.HostFull:
        return None


def test_of_many_workers_as_many_begin_on_a_host_as_it_allows(host: Hypervisor) -> None:
    """Guard: the lock in host_limit.py; without it two count at once and both find a place."""
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
    Operation.objects.filter(pk=second.pk).update(due_at=timezone.now())
    again = begin(second)
    assert again is not None
    lifecycle.succeed(again)
    assert begin(third) is not None


@pytest.fixture
def long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """What finds no place comes back after a minute, and so not in the middle of a test."""
    monkeypatch.setattr("random.uniform", lambda shortest, longest: 60)


def test_what_finds_no_place_is_not_forgotten(
    host: Hypervisor, long_wait: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: the later ``due_at`` in begin; without it each message about a full host begets another one."""
    Hypervisor.objects.update(max_operations=1)
    first, second = queued(host, 2)
    begin(first)
    woken: list[int] = []
    monkeypatch.setattr(services, "wake", lambda operation, delay_s: woken.append(operation.pk))
    carry_out(second.pk)
    carry_out(second.pk)  # the same message again: one of the two comes back
    carry_out(first.pk)  # another worker has it: nothing to wait for
    assert woken == [second.pk]
    second.refresh_from_db()
    assert second.due_at > timezone.now(), "and the sweep does not call it forgotten"


def test_what_a_dead_worker_left_waits_for_a_place_like_the_others(
    host: Hypervisor, long_wait: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: the update in begin is of all that could be taken, not only of what is queued.

    Nor may the former worker write, should it live: before another one has begun, and after.
    """
    Hypervisor.objects.update(max_operations=1)
    left, other = queued(host, 2)
    former = begin(left)
    assert former is not None
    let_lease_end(left.server)
    holder = begin(other)
    assert holder is not None
    woken: list[int] = []
    monkeypatch.setattr(services, "wake", lambda operation, delay_s: woken.append(operation.pk))
    carry_out(left.pk)
    assert woken == [left.pk]
    left.refresh_from_db()
    assert (left.status, left.lease_until) == (OperationStatus.QUEUED, None)
    assert left.due_at > timezone.now(), "and the sweep does not call it forgotten"
    with pytest.raises(lifecycle.LeaseLost):
        lifecycle.renew(former)
    lifecycle.succeed(holder)
    Operation.objects.filter(pk=left.pk).update(due_at=timezone.now())
    again = begin(left)
    assert again is not None
    with pytest.raises(lifecycle.LeaseLost):
        lifecycle.succeed(former)
    lifecycle.succeed(again)


def test_a_silent_host_is_not_asked_again_at_once(host: Hypervisor, faulty: FaultyHost) -> None:
    """Guard: may_be_asked in circuit_breaker.py."""
    host.silences = 5  # one more, and its pause is half a minute
    host.save()
    faulty.fail_next("powers", HostUnreachable("no answer"))
    driver = hosts.connect(host)
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
        contact.record_silence(host, "no answer")
        assert host.ask_again_at is not None
        assert before <= host.ask_again_at - timedelta(seconds=pause_s) <= timezone.now()
    host.refresh_from_db()
    assert not host.is_reachable
    contact.record_answer(host)
    host.refresh_from_db()
    assert (host.is_reachable, host.silences, host.ask_again_at) == (True, 0, None)


def test_however_many_ask_at_the_same_time_a_host_is_silent_once(host: Hypervisor) -> None:
    """Guard: the comparison of ``silences`` in record_silence."""
    rows = [Hypervisor.objects.get(pk=host.pk) for _ in range(8)]
    at_once(8, lambda: contact.record_silence(rows.pop(), "libvirtd restarts"))
    host.refresh_from_db()
    assert (host.silences, host.is_reachable) == (1, True)
    assert host.ask_again_at is not None
    assert (host.ask_again_at - timezone.now()).total_seconds() <= 1, "the pause of one silence"


def test_one_lost_answer_keeps_no_server_away(host: Hypervisor) -> None:
    contact.record_silence(host, "libvirtd restarts")
    host.refresh_from_db()
    assert host.is_reachable


def test_of_many_workers_one_tries_a_host_whose_pause_is_over(host: Hypervisor) -> None:
    """Guard: the WHERE in may_be_asked."""
    pause_is_over(host)
    rows = [Hypervisor.objects.get(pk=host.pk) for _ in range(8)]
    assert at_once(8, lambda: contact.may_be_asked(rows.pop())).count(True) == 1


def test_should_he_die_who_tries_another_one_may(host: Hypervisor) -> None:
    pause_is_over(host)
    assert contact.may_be_asked(host)
    stale = Hypervisor.objects.get(pk=host.pk)
    assert not contact.may_be_asked(stale)
    stale.ask_again_at = timezone.now() - timedelta(seconds=1)
    stale.save()
    assert contact.may_be_asked(stale)


def test_what_a_host_refuses_is_an_answer(host: Hypervisor, faulty: FaultyHost) -> None:
    contact.record_silence(host, "no answer")
    pause_is_over(host)
    faulty.fail_next("powers", HostMisconfigured("no pool"))
    with pytest.raises(HostMisconfigured):
        hosts.connect(host).powers()
    host.refresh_from_db()
    assert host.silences == 0


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
