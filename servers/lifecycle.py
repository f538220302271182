"""The only writer of a server's status, power state and operations.

Code that needs both rows locks the server before it touches the operation.  Every
write of a worker asks ``WHERE attempt = mine``: a worker that lost its lease, or
whose operation was cancelled, cannot write (``LeaseLost``).  Leases, due times and
deadlines are written and compared by Postgres's clock alone: the workers' clocks may differ.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Coalesce, Now

from accounts import actors
from core import leases
from core.errors import NotAllowedNow, NotFound, OperationInProgress
from core.leases import LeaseLost as LeaseLost  # for those who call what is here
from core.written import take_over
from inventory.models import Hypervisor
from servers.changes import StatusChange, announce
from servers.lanes import lane_of
from servers.models import Operation, Server
from servers.states import (
    CHANGEABLE,
    GONE,
    HOST_DEADLINES,
    OPEN_OPERATION,
    RULES,
    STATUS_OF_POWER,
    HostOperationKind,
    OperationKind,
    OperationStatus,
    PowerState,
    ServerStatus,
    SuspensionReason,
    refusal,
    status_after_failure,
)
from servers.wishes import RebuildWish, ResizeWish, Wish, column_of

UNDO = "undo"  # the step of an operation that was given up
NOTHING = Wish()


class DeadlinePassed(Exception):
    """The operation has taken longer than its kind may."""


@dataclass(frozen=True)
class Failure:
    """Why an operation failed: a stable code, a sentence for the customer, all we know for staff."""

    code: str
    sentence: str
    detail: str = ""


@transaction.atomic
def request(
    server: Server,
    kind: OperationKind,
    *,
    wish: Wish = NOTHING,
    suspend_for: SuspensionReason = SuspensionReason.ABUSE,
) -> Operation:
    """Open an operation of the current actor on a server, or say why it cannot be opened now.

    Refuses a wrong status (NotAllowedNow) and a second open operation
    (OperationInProgress).  DELETE pre-empts: it cancels what is open.
    A wish that the kind does not know is a bug and raises WishInvalid.
    """
    server = _locked(server.pk)
    before, rule = ServerStatus(server.status), RULES[kind]
    if before in GONE:
        raise NotFound("There is no such server.")
    open_operation = Operation.objects.filter(server=server, status__in=OPEN_OPERATION)
    if kind == OperationKind.DELETE:
        # The lease stays: the delete begins when the worker let go or the lease ended.
        open_operation.update(status=OperationStatus.CANCELLED, finished_at=Now())
    elif open_operation.exists():
        raise OperationInProgress(
            "Another operation on this server has not finished yet. Try again in a moment."
        )
    elif before not in rule.allowed_in:
        code, sentence = refusal(kind, before, PowerState(server.power_state))
        raise NotAllowedNow(sentence, code=code)
    changes: dict[str, Any] = {"status": rule.shows}
    if kind == OperationKind.DELETE:
        changes["deleted_at"] = Now()
    if kind == OperationKind.SUSPEND:
        changes |= {"suspended_for": suspend_for, "suspended_from": before}
    operation = _open(server, kind, before, wish)
    _write(server, operation, **changes)
    return operation


def open_create(server: Server) -> Operation:
    """Open the operation that makes a new server, which is announced with it."""
    status = ServerStatus.PROVISIONING
    operation = _open(server, OperationKind.CREATE, status, NOTHING)
    announce(StatusChange(server, before=None, after=status, operation=operation))
    return operation


def request_of_host(hypervisor: Hypervisor, kind: HostOperationKind, wish: Wish = NOTHING) -> Operation:
    """Open an operation of the current actor on a host.  Refuses a second open one (OperationInProgress)."""
    return _insert(kind, wish, HOST_DEADLINES[kind], hypervisor=hypervisor)


def _open(server: Server, kind: OperationKind, before: ServerStatus, wish: Wish) -> Operation:
    where = server.home.hypervisor_id if server.home else None
    about = {"server": server, "hypervisor_id": where, "status_before": before}
    return _insert(kind, wish, RULES[kind].deadline, **about)


def _insert(
    kind: OperationKind | HostOperationKind, wish: Wish, deadline: timedelta | None, **about: Any
) -> Operation:
    try:
        with transaction.atomic():
            operation = Operation.objects.create(
                **about,
                kind=kind,
                wish=column_of(kind, wish),
                **actors.current().columns,
                deadline_at=None if deadline is None else Now() + deadline,
            )
    except IntegrityError as error:
        if "one_open_operation" not in str(error):
            raise
        raise OperationInProgress("Another operation on this server or host has not finished yet.") from None
    take_over(operation, {"deadline_at": deadline and Now()})
    return operation


def _locked(server_id: int) -> Server:
    """The server's row, locked until the transaction ends."""
    # No join: after waiting for the lock, the joined columns would be those of before.
    return Server.objects.select_for_update().get(pk=server_id)


def begin(operation_id: int) -> Operation | None:
    """Take an operation.  None if another worker has it, it is not due, it is over, or it must wait.

    A lease that ran out means the worker died; steps are repeatable, so its step is
    done again.  An operation waits while its host has as many under way as it may have, and
    while another operation's worker still holds a lease on the same server (a delete came in between).
    """
    operation = Operation.objects.select_related("hypervisor").get(pk=operation_id)
    begun = {"status": OperationStatus.RUNNING, "started_at": Coalesce("started_at", Now())}
    lane = lane_of(operation.hypervisor) if operation.hypervisor else None
    if not leases.take(operation, lease=lease(), lane=lane, **begun):
        return None
    # Only what every workflow reads: with each joined table Postgres plans longer.
    return Operation.objects.select_related(
        "server__account", "server__port", "server__home__hypervisor"
    ).get(pk=operation_id)


def lease() -> timedelta:
    """How long a worker may be silent before it is taken for dead."""
    return timedelta(seconds=settings.VPS_OPERATION_LEASE)


def enter(operation: Operation, step: str, progress: int = 0, *, however_late: bool = False) -> None:
    """Name the step that begins now and how much is done (percent), and renew the lease.

    Raises DeadlinePassed: no step begins after the operation's deadline, unless it may begin however late.
    """
    changes: dict[str, Any] = {"lease_until": Now() + lease()}
    in_time = Q() if however_late else Q(deadline_at=None) | Q(deadline_at__gt=Now())
    if operation.step != step:
        changes |= {"step": step, "step_since": Now(), "retries": 0, "progress": progress}
    if leases.held(operation).filter(in_time).update(**changes):
        take_over(operation, changes)
    elif not however_late and is_overdue(operation):
        raise DeadlinePassed
    else:
        raise LeaseLost(f"{operation} is no longer ours")


def is_overdue(operation: Operation) -> bool:
    """Whether the deadline of this worker's operation has passed."""
    return (
        operation.deadline_at is not None and leases.held(operation).filter(deadline_at__lte=Now()).exists()
    )


def seconds_in_step(operation: Operation) -> float:
    """How long the step that is under way has taken so far, all attempts together."""
    spent = Now() - F("step_since")
    spent_so_far: timedelta | None = Operation.objects.values_list(spent, flat=True).get(pk=operation.pk)
    return spent_so_far.total_seconds() if spent_so_far else 0.0


def renew(operation: Operation) -> None:
    leases.renew(operation, lease())


def postpone(operation: Operation, delay_s: float, *, retry_detail: str = "") -> None:
    """Let go of the operation and have it done no sooner than ``delay_s`` seconds from now.

    ``retry_detail``: it is put off because something failed that may pass; for staff.
    """
    retry = {"retries": operation.retries + 1, "error_detail": retry_detail} if retry_detail else {}
    leases.postpone(operation, delay_s, status=OperationStatus.QUEUED, **retry)


def note(operation: Operation, sentence: str) -> None:
    """Leave a sentence for the customer on an operation that goes on."""
    leases.write(operation, message=sentence)


def may_press(operation: Operation, again_after: timedelta) -> bool:
    """Whether the guest is to be asked to shut down now; then this is written down as the last time.

    False to a worker that lost its lease.
    """
    is_due = Q(pressed_at=None) | Q(pressed_at__lt=Now() - again_after)
    return leases.held(operation).filter(is_due).update(pressed_at=Now()) == 1


def let_go(operation: Operation) -> None:
    """Say that this worker's hands are off, after LeaseLost: a waiting delete need not wait for the lease."""
    Operation.objects.filter(
        pk=operation.pk, attempt=operation.attempt, status=OperationStatus.CANCELLED
    ).update(lease_until=None)


def give_up(operation: Operation, failure: Failure) -> None:
    """Write down why the operation fails, before anything is undone: a crash must not lose the reason."""
    leases.write(
        operation,
        step=UNDO,
        step_since=Now(),
        error_code=failure.code,
        message=failure.sentence,
        error_detail=failure.detail,
    )


def forget_failure(operation: Operation, *, detail: str) -> None:
    """Clear the reason of an operation that was given up and succeeded after all; ``detail`` is for staff."""
    leases.write(operation, error_code="", message="", error_detail=detail)


@transaction.atomic
def succeed(operation: Operation) -> None:
    """Close the operation and give its server the status that RULES promises for its kind."""
    if operation.server_id is None:
        _close(operation, OperationStatus.SUCCEEDED, progress=100)
        return
    server = _locked(operation.subject_server_id)
    _close(operation, OperationStatus.SUCCEEDED, progress=100)
    before = ServerStatus(server.suspended_from or operation.status_before)
    status = RULES[OperationKind(operation.kind)].succeeds_in or before
    power = PowerState.RUNNING if status == ServerStatus.ACTIVE else PowerState.OFF
    _write(server, operation, status=status, **_suspension(server, status), **_observation(power))


@transaction.atomic
def fail(operation: Operation, power: PowerState) -> None:
    """Close an operation that was given up.  Its server's status is the table's, or what the host says."""
    if operation.server_id is None:
        _close(operation, OperationStatus.FAILED)
        return
    server = _locked(operation.subject_server_id)
    _close(operation, OperationStatus.FAILED)
    before = ServerStatus(operation.status_before)
    status = status_after_failure(OperationKind(operation.kind), before, power)
    _write(server, operation, status=status, **_suspension(server, status), **_observation(power))


@transaction.atomic
def keep_suspended(server: Server, reason: SuspensionReason) -> bool:
    """Give a server that is suspended already another reason.  False if it is not suspended."""
    server = _locked(server.pk)
    if server.status != ServerStatus.SUSPENDED:
        return False
    changes: dict[str, Any] = {"suspended_for": reason, "updated_at": Now()}
    Server.objects.filter(pk=server.pk).update(**changes)
    _announce(server, None, changes)
    return True


@transaction.atomic
def adopt(operation: Operation) -> None:
    """Give the server the plan or the system that the operation was asked for.

    A plan comes at the price of the day when it was ordered: billing is told of it.  May be repeated.
    """
    server = _locked(operation.subject_server_id)
    renew(operation)
    match operation.typed_wish:
        case ResizeWish(plan_id=plan_id):
            changes: dict[str, Any] = {"plan_id": plan_id}
        case RebuildWish(os_version_id=os_version_id, image_id=image_id, disk_number=disk_number):
            changes = {"os_version_id": os_version_id, "base_image_id": image_id, "disk_number": disk_number}
        case _:
            return
    _write(server, operation, **changes)
    for column, value in changes.items():
        setattr(operation.subject_server, column, value)


@transaction.atomic
def record_addresses(
    operation: Operation,
    addresses: Sequence[IPv4Address | IPv6Address],
    shown: Sequence[IPv4Address | IPv6Address] = (),
) -> None:
    """Write down a server's own addresses, the first of each family, and what its guest shows besides."""
    server = _locked(operation.subject_server_id)
    renew(operation)
    first = {version: next((str(a) for a in addresses if a.version == version), None) for version in (4, 6)}
    others = [str(address) for address in shown if address not in addresses]
    _write(server, operation, ip_address=first[4], ipv6_address=first[6], guest_addresses=others)


@transaction.atomic(savepoint=False)
def observe(server: Server, power: PowerState, asked_at: datetime) -> bool:
    """Record what a host said of an idle server, if nothing was written since it was asked.

    A status that contradicts the host follows it.  False: news too old, or an
    operation is open.
    """
    changes: dict[str, Any] = {}
    if status := contradicted_by(power, ServerStatus(server.status)):
        changes = {"status": status, "updated_at": Now(), "written_at": Now()}
    unchanged = _idle_since(asked_at).filter(pk=server.pk, status=server.status)
    if not unchanged.update(power_state=power, observed_at=asked_at, **changes):
        return False
    _announce(server, None, changes)
    return True


def confirm(servers: Iterable[int], power: PowerState, asked_at: datetime) -> None:
    """Record of many idle servers that their host said what their status says, by one statement."""
    _idle_since(asked_at).filter(pk__in=list(servers)).update(power_state=power, observed_at=asked_at)


def contradicted_by(power: PowerState, status: ServerStatus) -> ServerStatus | None:
    """The status that an idle server gets when its host says this; None: it keeps its own."""
    told = STATUS_OF_POWER.get(power)
    return told if told and told != status and status in CHANGEABLE else None


def _idle_since(asked_at: datetime) -> QuerySet[Server]:
    return Server.objects.filter(~Exists(_open_operations_of(OuterRef("pk"))), written_at__lt=asked_at)


def forget_power(servers: QuerySet[Server]) -> None:
    """Record that the servers' host cannot be asked: their power is unknown, their status stays."""
    servers.update(power_state=PowerState.UNKNOWN)


def _open_operations_of(server: Any) -> Any:
    return Operation.objects.filter(server=server, status__in=OPEN_OPERATION)


def _suspension(server: Server, status: ServerStatus) -> dict[str, Any]:
    """The columns of a suspension after an operation that ends in this status."""
    if status == ServerStatus.SUSPENDED:
        return {"suspended_at": server.suspended_at or Now()}
    return {"suspended_for": "", "suspended_from": "", "suspended_at": None}


def _observation(power: PowerState) -> dict[str, Any]:
    return {"power_state": power, "observed_at": Now()}


def _close(operation: Operation, status: OperationStatus, **changes: Any) -> None:
    leases.finish(operation, status=status, finished_at=Now(), **changes)


def _write(server: Server, operation: Operation, **changes: Any) -> None:
    Server.objects.filter(pk=server.pk).update(**changes, updated_at=Now(), written_at=Now())
    _announce(server, operation, changes)


def _announce(server: Server, operation: Operation | None, changes: dict[str, Any]) -> None:
    before, after = ServerStatus(server.status), changes.get("status", server.status)
    written = {column: value for column, value in changes.items() if column != "status"}
    announce(StatusChange(server, before, ServerStatus(after), written, operation))
