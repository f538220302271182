"""Every status × every operation, on real rows."""

import pytest

from servers import lifecycle
from servers.models import Operation, Server
from servers.states import GONE, RULES, OperationKind, OperationStatus, ServerStatus
from tests.factories import OperationFactory, ServerFactory
from vpsorg.errors import NotAllowedNow, NotFound, OperationInProgress

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
        operation = lifecycle.request(server, kind, requested_by="a test")

        assert row(server).status == RULES[kind].shows
        assert row(server).updated_at > server.updated_at
        assert (operation.kind, operation.status) == (kind, OperationStatus.QUEUED)
        assert operation.status_before == status
        assert operation.requested_by == "a test"
        assert (operation.deadline_at is None) == (RULES[kind].deadline is None)
    else:
        with pytest.raises(NotFound if status in GONE else NotAllowedNow) as refusal:
            lifecycle.request(server, kind, requested_by="a test")

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
        lifecycle.request(server, kind, requested_by="a test")

        before.refresh_from_db()
        assert before.status == OperationStatus.CANCELLED
        assert row(server).deleted_at is not None
    else:
        with pytest.raises(OperationInProgress):
            lifecycle.request(server, kind, requested_by="a test")

        assert Operation.objects.get() == before
        assert row(server).status == status


@pytest.mark.parametrize(
    "over", [OperationStatus.SUCCEEDED, OperationStatus.FAILED, OperationStatus.CANCELLED]
)
def test_what_is_over_stands_in_nobodys_way(over: OperationStatus) -> None:
    server = ServerFactory.create()
    OperationFactory.create(server=server, status=over)

    assert lifecycle.request(server, OperationKind.REBOOT, requested_by="a test").status == "queued"


def test_what_was_believed_does_not_count() -> None:
    """The row decides, not the copy that somebody read before."""
    stale = ServerFactory.create(status=ServerStatus.STOPPED)
    Server.objects.update(status=ServerStatus.ACTIVE)

    with pytest.raises(NotAllowedNow) as refusal:
        lifecycle.request(stale, OperationKind.START, requested_by="a test")
    assert refusal.value.code == "already_running"
