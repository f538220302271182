"""Every status × every operation, on real rows."""

from typing import Any

import pytest

from core.errors import NotAllowedNow, NotFound, OperationInProgress
from servers import lifecycle, services
from servers.models import Operation, Server
from servers.states import (
    GONE,
    RULES,
    OperationKind,
    OperationStatus,
    PowerState,
    ServerStatus,
    SuspensionReason,
)
from servers.wishes import Wish, WishInvalid
from tests.factories import TESTER, OperationFactory, ServerFactory, wish_for

# What may not be asked for, and why, where the answer says more than "not now".
CODES: dict[tuple[str, str], str] = {
    ("start", "active"): "already_running",
    ("stop", "stopped"): "not_running",
    ("hard_stop", "stopped"): "not_running",
    ("reboot", "stopped"): "not_running",
    **{(kind, "suspended"): "suspended" for kind in OperationKind},
    **{(kind, "error"): "server_in_error" for kind in OperationKind},
}

each_kind = pytest.mark.parametrize("kind", OperationKind)
pytestmark = pytest.mark.django_db


def row(server: Server) -> Server:
    return Server.objects.get(pk=server.pk)


@each_kind
@pytest.mark.parametrize("status", ServerStatus)
def test_an_operation_is_opened_or_refused_as_the_table_says(
    kind: OperationKind, status: ServerStatus
) -> None:
    server = ServerFactory.create(status=status)

    if status in RULES[kind].allowed_in:
        operation = lifecycle.request(server, kind, wish=wish_for(kind))

        assert row(server).status == RULES[kind].shows
        assert row(server).updated_at > server.updated_at
        assert (operation.kind, operation.status) == (kind, OperationStatus.QUEUED)
        assert operation.status_before == status
        assert operation.actor == TESTER
        assert (operation.deadline_at is None) == (RULES[kind].deadline is None)
    else:
        with pytest.raises(NotFound if status in GONE else NotAllowedNow) as refusal:
            lifecycle.request(server, kind, wish=wish_for(kind))

        ours = CODES.get((kind, status), "not_allowed_now")
        assert refusal.value.code == ("not_found" if status in GONE else ours)
        assert (row(server).status, row(server).updated_at) == (status, server.updated_at)
        assert not Operation.objects.exists()


@each_kind
@pytest.mark.parametrize("open_status", [OperationStatus.QUEUED, OperationStatus.RUNNING])
def test_while_one_operation_is_open_only_a_delete_gets_through(
    kind: OperationKind, open_status: OperationStatus
) -> None:
    status = next(iter(RULES[kind].allowed_in), ServerStatus.ACTIVE)
    server = ServerFactory.create(status=status)
    before = OperationFactory.create(server=server, status=open_status)

    if kind == OperationKind.DELETE:
        lifecycle.request(server, kind, wish=wish_for(kind))

        before.refresh_from_db()
        assert before.status == OperationStatus.CANCELLED
        assert row(server).deleted_at is not None
    else:
        with pytest.raises(OperationInProgress):
            lifecycle.request(server, kind, wish=wish_for(kind))

        assert Operation.objects.get() == before
        assert row(server).status == status


@pytest.mark.parametrize(
    "over", [OperationStatus.SUCCEEDED, OperationStatus.FAILED, OperationStatus.CANCELLED]
)
def test_what_is_over_stands_in_nobodys_way(over: OperationStatus) -> None:
    server = ServerFactory.create()
    OperationFactory.create(server=server, status=over)

    assert lifecycle.request(server, OperationKind.REBOOT).status == "queued"


@pytest.mark.parametrize("status", [ServerStatus.ACTIVE, ServerStatus.STOPPED])
def test_a_suspension_remembers_why_and_what_was_before_until_it_is_over(status: ServerStatus) -> None:
    server = ServerFactory.create(status=status)

    carried_out(server, OperationKind.SUSPEND, suspend_for=SuspensionReason.BILLING)

    suspended = row(server)
    assert (suspended.status, suspended.power_state) == (ServerStatus.SUSPENDED, PowerState.OFF)
    assert (suspended.suspended_for, suspended.suspended_from) == (SuspensionReason.BILLING, status)
    assert suspended.suspended_at is not None

    carried_out(server, OperationKind.UNSUSPEND)

    after = row(server)
    assert after.status == status
    assert (after.suspended_for, after.suspended_from, after.suspended_at) == ("", "", None)


@pytest.mark.parametrize(
    ("power", "status", "suspended_for"),
    [
        (PowerState.RUNNING, ServerStatus.ACTIVE, ""),
        (PowerState.OFF, ServerStatus.SUSPENDED, SuspensionReason.ABUSE),
        (PowerState.UNKNOWN, ServerStatus.SUSPENDED, SuspensionReason.ABUSE),
    ],
)
def test_after_an_unsuspend_that_failed_a_server_is_suspended_unless_it_runs(
    power: PowerState, status: ServerStatus, suspended_for: str
) -> None:
    server = ServerFactory.create()
    carried_out(server, OperationKind.SUSPEND)
    unsuspend = begun(server, OperationKind.UNSUSPEND)

    lifecycle.fail(unsuspend, power)

    assert (row(server).status, row(server).suspended_for) == (status, suspended_for)
    assert row(server).suspended_from == (ServerStatus.ACTIVE if suspended_for else "")
    assert bool(row(server).suspended_at) == bool(suspended_for)


def test_a_suspension_that_failed_leaves_no_trace() -> None:
    server = ServerFactory.create()
    lifecycle.fail(begun(server, OperationKind.SUSPEND), PowerState.UNKNOWN)

    assert (row(server).status, row(server).suspended_for) == (ServerStatus.ACTIVE, "")


def test_abuse_outweighs_billing_and_never_the_other_way_round() -> None:
    """Guard: the reason asked for in ``suspend_server``."""
    server = ServerFactory.create()
    carried_out(server, OperationKind.SUSPEND, suspend_for=SuspensionReason.BILLING)

    assert services.suspend_server(server=server, reason=SuspensionReason.ABUSE) is None
    assert row(server).suspended_for == SuspensionReason.ABUSE
    with pytest.raises(NotAllowedNow) as refusal:
        services.suspend_server(server=server, reason=SuspensionReason.BILLING)
    assert refusal.value.code == "suspended"
    assert row(server).suspended_for == SuspensionReason.ABUSE


def begun(server: Server, kind: OperationKind, **wanted: Any) -> Operation:
    operation = lifecycle.begin(lifecycle.request(server, kind, **wanted).pk)
    assert operation is not None
    return operation


def carried_out(server: Server, kind: OperationKind, **wanted: Any) -> None:
    lifecycle.succeed(begun(server, kind, **wanted))


def test_a_wish_that_the_kind_does_not_know_opens_nothing() -> None:
    """Guard: ``column_of`` in ``lifecycle._insert``."""
    server = ServerFactory.create()

    for kind, wish in ((OperationKind.RESIZE, Wish()), (OperationKind.STOP, wish_for(OperationKind.REBUILD))):
        with pytest.raises(WishInvalid):
            lifecycle.request(server, kind, wish=wish)

    assert row(server).status == ServerStatus.ACTIVE
    assert not Operation.objects.exists()


def test_what_was_believed_does_not_count() -> None:
    """The row decides, not the copy that somebody read before."""
    stale = ServerFactory.create(status=ServerStatus.STOPPED)
    Server.objects.update(status=ServerStatus.ACTIVE)

    with pytest.raises(NotAllowedNow) as refusal:
        lifecycle.request(stale, OperationKind.START)
    assert refusal.value.code == "already_running"
