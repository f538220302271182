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
from backups.kinds import BackupStatus, Verified
from backups.models import Backup
from core import leases
from core.errors import NotAllowedNow, NotFound, OperationInProgress
from core.leases import LeaseLost as LeaseLost  # for those who call what is here
from core.written import take_over
from inventory.models import Hypervisor, Placement
from servers.changes import BackupChange, StatusChange, announce, announce_backup
from servers.lanes import lane_of
from servers.models import Operation, Server
from servers.states import (
    BACKUP_RULES,
    CHANGEABLE,
    GONE,
    HOST_DEADLINES,
    OPEN_OPERATION,
    RULES,
    STATUS_OF_POWER,
    BackupOperationKind,
    HostOperationKind,
    OperationKind,
    OperationStatus,
    PowerState,
    ServerStatus,
    SuspensionReason,
    refusal,
    status_after_failure,
)
from servers.wishes import (
    CreateWish,
    Kind,
    RebuildWish,
    ResizeWish,
    RestoreWish,
    Wish,
    column_of,
    made_from,
)

DID_NOT_BOOT = "did_not_boot"
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


def open_create(server: Server, wish: CreateWish) -> Operation:
    """Open the operation that makes a new server, which is announced with it."""
    status = ServerStatus.PROVISIONING
    operation = _open(server, OperationKind.CREATE, status, wish)
    announce(StatusChange(server, before=None, after=status, operation=operation))
    return operation


def request_of_host(hypervisor: Hypervisor, kind: HostOperationKind, wish: Wish = NOTHING) -> Operation:
    """Open an operation of the current actor on a host.  Refuses a second open one (OperationInProgress)."""
    return _insert(kind, wish, HOST_DEADLINES[kind], hypervisor=hypervisor)


def request_of_backup(
    backup: Backup,
    kind: BackupOperationKind,
    hypervisor_id: int | None = None,
    trial_room: Placement | None = None,
) -> Operation:
    """Open an operation of the current actor on a backup.  Refuses a second one (OperationInProgress)."""
    where = {"hypervisor_id": hypervisor_id, "trial_room": trial_room}
    return _insert(kind, NOTHING, BACKUP_RULES[kind].deadline, backup=backup, **where)


def _open(server: Server, kind: OperationKind, before: ServerStatus, wish: Wish) -> Operation:
    where = server.home.hypervisor_id if server.home else None
    about = {"server": server, "hypervisor_id": where, "status_before": before}
    # A disk that is made from a backup takes as long in a new server as in a restore.
    deadline = RULES[kind if made_from(wish) is None else OperationKind.RESTORE].deadline
    return _insert(kind, wish, deadline, **about)


def _insert(kind: Kind, wish: Wish, deadline: timedelta | None, **about: Any) -> Operation:
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
        raise OperationInProgress("Another operation on this has not finished yet.") from None
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
    if operation.backup_id is not None and operation.started_at is None:
        # Backups wait for each other: the time that one may take counts from now.
        begun["deadline_at"] = F("deadline_at") + (Now() - F("created_at"))
    if not leases.take(operation, lease=lease(), lane=lane_of(operation), **begun):
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


def copies_beside(operation: Operation) -> int:
    """How many copies the host has, or makes, for other backups, that are not stored yet."""
    copies = Operation.objects.filter(
        Operation.OPEN,
        hypervisor=operation.hypervisor_id,
        kind=BackupOperationKind.TAKE,
        backup__copied_as__isnull=False,
        backup__stored_as=None,
    )
    return copies.exclude(pk=operation.pk).count()


def seconds_in_step(operation: Operation) -> float:
    """How long the step that is under way has taken so far, all attempts together."""
    return _seconds_since("step_since", operation)


def seconds_under_way(operation: Operation) -> float:
    """How long ago a worker began the operation for the first time."""
    return _seconds_since("started_at", operation)


def _seconds_since(moment: str, operation: Operation) -> float:
    spent = Now() - F(moment)
    spent_so_far: timedelta | None = Operation.objects.values_list(spent, flat=True).get(pk=operation.pk)
    return spent_so_far.total_seconds() if spent_so_far else 0.0


def renew(operation: Operation) -> None:
    leases.renew(operation, lease())


def postpone(
    operation: Operation, delay_s: float, *, retry_detail: str = "", from_the_start: bool = False
) -> None:
    """Let go of the operation and have it done no sooner than ``delay_s`` seconds from now.

    ``retry_detail``: it is put off because something failed that may pass; for staff.
    ``from_the_start``: with its first step, and not with the step that was under way.
    """
    changes: dict[str, Any] = {"status": OperationStatus.QUEUED}
    if retry_detail:
        changes |= {"retries": operation.retries + 1, "error_detail": retry_detail}
    if from_the_start:
        changes["step"] = ""
    leases.postpone(operation, delay_s, **changes)


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
    """Close the operation and give its subject the status that the tables promise for its kind."""
    if operation.backup_id is not None:
        _end_backup(operation, OperationStatus.SUCCEEDED)
        return
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
    """Close an operation that was given up.  Its subject's status is the table's, or what the host says."""
    if operation.backup_id is not None:
        _end_backup(operation, OperationStatus.FAILED)
        return
    if operation.server_id is None:
        _close(operation, OperationStatus.FAILED)
        return
    server = _locked(operation.subject_server_id)
    _close(operation, OperationStatus.FAILED)
    before = ServerStatus(operation.status_before)
    status = status_after_failure(OperationKind(operation.kind), before, power)
    _write(server, operation, status=status, **_suspension(server, status), **_observation(power))


def _end_backup(operation: Operation, ended: OperationStatus) -> None:
    """Close an operation about a backup and give the backup the status of the table."""
    backup, rule = operation.subject_backup, BACKUP_RULES[BackupOperationKind(operation.kind)]
    server = Server.objects.select_for_update().filter(pk=backup.server_id).first()
    has_succeeded = ended == OperationStatus.SUCCEEDED
    _lock(backup)
    _close(operation, ended, **({"progress": 100} if has_succeeded else {}))
    after = rule.succeeds_in if has_succeeded else rule.fails_in
    if after is None:
        return
    if rule.proves is not None:
        if has_succeeded:
            _record_whole(backup, rule.proves)
        return
    changes: dict[str, Any] = {"status": after}
    if after == BackupStatus.COMPLETED:
        changes |= {"completed_at": Now(), "verified_at": _read_since(backup), "verified_by": Verified.READ}
    if after == BackupStatus.FAILED:
        changes |= {"error_code": operation.error_code, "message": operation.message}
    Backup.objects.filter(pk=backup.pk).update(**changes)
    announce_backup(BackupChange(Backup.objects.get(pk=backup.pk), server, after))


def _lock(backup: Backup) -> None:
    """Before its operation: so does a delete."""
    Backup.objects.select_for_update().get(pk=backup.pk)


def _read_since(backup: Backup) -> Any:
    """What an incremental takes from its parent was read when the parent was, and is looked for only."""
    if backup.parent is None:
        return Now()
    parent = Backup.objects.filter(uuid=backup.parent)
    return parent.values_list("verified_at", flat=True).first() or Now()


def _record_whole(backup: Backup, how: Verified) -> None:
    """One that did not boot stays damaged until it boots, however well it is read."""
    changes: dict[str, Any] = {"verified_at": Now(), "verified_by": how}
    boots = Operation.objects.filter(backup=backup, kind=BackupOperationKind.BOOT)
    told = Q(status=OperationStatus.SUCCEEDED) | Q(error_code=DID_NOT_BOOT)
    last = boots.filter(told).order_by("-pk").first()
    if how == Verified.BOOTED or last is None or last.error_code != DID_NOT_BOOT:
        changes["damage"] = ""
    Backup.objects.filter(pk=backup.pk).update(**changes)


@transaction.atomic
def record_backup(operation: Operation, **columns: Any) -> None:
    """Write down about a backup what its worker learned while it took it.  Raises LeaseLost."""
    _lock(operation.subject_backup)
    renew(operation)
    Backup.objects.filter(pk=operation.subject_backup.pk).update(**columns)
    take_over(operation.subject_backup, columns)


def record_damage(backup: Backup, what: str) -> None:
    """Write down what somebody who restored a whole backup found wrong with it."""
    Backup.objects.filter(pk=backup.pk, status=BackupStatus.COMPLETED).update(damage=what[:255])


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
    """Give the server the plan, the system or the disk that the operation was asked for.

    A plan comes at the price of the day when it was ordered: billing is told of it.  May be repeated.
    """
    server = _locked(operation.subject_server_id)
    renew(operation)
    match operation.typed_wish:
        case ResizeWish(plan_id=plan_id):
            changes: dict[str, Any] = {"plan_id": plan_id}
        case RebuildWish(os_version_id=os_version_id, image_id=image_id, disk_number=disk_number):
            changes = {
                "os_version_id": os_version_id,
                "base_image_id": image_id,
                "disk_number": disk_number,
                "disk_needs_image": True,
            }
        case RestoreWish(backup_id=backup_id, disk_number=disk_number):
            restored = Backup.objects.get(pk=backup_id)
            changes = {
                "os_version_id": restored.os_version_id,
                "base_image_id": restored.base_image_id,
                "disk_number": disk_number,
                "disk_needs_image": False,
            }
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
