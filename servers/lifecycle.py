"""The only writer of a server's status, power state and operations.

Whoever needs both rows locks the server before touching its operation.  Every
write of a worker asks ``WHERE attempt = mine``: one that lost its lease, or
whose operation was cancelled, cannot write (``LeaseLost``).  Leases and due times
are measured by Postgres's clock alone: those of the workers may differ.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from accounts.webhooks.events import Event
from accounts.webhooks.services import announce
from plans.models import OsVersion, Plan
from servers.host_limit import host_is_full
from servers.models import Operation, Server
from servers.prices import price_of
from servers.rates import record_rate
from servers.states import (
    GONE,
    OPEN_OPERATION,
    RULES,
    SETTLED,
    STATUS_OF_POWER,
    OperationKind,
    OperationStatus,
    PowerState,
    ServerStatus,
    SuspensionReason,
    refusal,
    status_after_failure,
)
from vpsorg.errors import NotAllowedNow, NotFound, OperationInProgress

# Messages are held back by the clocks of those who send and receive them.
CLOCKS_DIFFER = timedelta(seconds=1)
UNDO = "undo"  # the step of an operation that was given up


class LeaseLost(Exception):
    """The operation is no longer this worker's: it was cancelled, or taken over after the lease ended."""


class HostFull(Exception):
    """The host of this operation's server has as many under way as it may have: it is due a little later."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(delay_s)
        self.delay_s = delay_s


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
    requested_by: str,
    plan: Plan | None = None,
    os_version: OsVersion | None = None,
    suspend_for: SuspensionReason = SuspensionReason.ABUSE,
) -> Operation:
    """Open an operation on a server, or say why it cannot be opened now.

    Refuses a wrong status (NotAllowedNow) and a second open operation
    (OperationInProgress).  DELETE pre-empts: it cancels what is open.
    """
    server = Server.objects.select_for_update().get(pk=server.pk)
    before, rule = ServerStatus(server.status), RULES[kind]
    if before in GONE:
        raise NotFound("There is no such server.")
    open_operation = Operation.objects.filter(server=server, status__in=OPEN_OPERATION)
    if kind == OperationKind.DELETE:
        # The lease stays: the delete begins when the worker let go or the lease ended.
        open_operation.update(status=OperationStatus.CANCELLED, finished_at=timezone.now())
    elif open_operation.exists():
        raise OperationInProgress(
            "Another operation on this server has not finished yet. Try again in a moment."
        )
    elif before not in rule.allowed_in:
        code, sentence = refusal(kind, before)
        raise NotAllowedNow(sentence, code=code)
    changes: dict[str, Any] = {"status": rule.shows}
    if kind == OperationKind.DELETE:
        changes["deleted_at"] = timezone.now()
    if kind == OperationKind.SUSPEND:
        changes |= {"suspended_for": suspend_for, "suspended_from": before}
    _write(server, **changes)
    return _open(server, kind, before, requested_by, plan=plan, os_version=os_version)


def open_create(server: Server, *, requested_by: str) -> Operation:
    """The operation that a server is born with."""
    _announce(server, None, ServerStatus.PROVISIONING)
    return _open(server, OperationKind.CREATE, ServerStatus.PROVISIONING, requested_by)


def _open(
    server: Server, kind: OperationKind, before: ServerStatus, requested_by: str, **wanted: Any
) -> Operation:
    now, deadline, plan = timezone.now(), RULES[kind].deadline, wanted.get("plan")
    if plan is not None:
        wanted |= {"price_hourly": plan.price_hourly, "price_monthly": plan.price_monthly}
    try:
        with transaction.atomic():
            return Operation.objects.create(
                server=server,
                kind=kind,
                status_before=before,
                requested_by=requested_by[:100],
                created_at=now,
                due_at=now,
                **wanted,
                deadline_at=None if deadline is None else now + deadline,
            )
    except IntegrityError:
        raise OperationInProgress("Another operation on this server has not finished yet.") from None


def begin(operation_id: int) -> Operation | None:
    """Take an operation.  None if another worker has it, it is not due, or it is over.

    The WHERE clause is the guard: of two workers, one updates the row.  A lease
    that ran out means the worker died; steps are repeatable, so its step is done
    again.  While another operation's worker still holds a lease on the same
    server (a delete came in between) nobody begins.  Raises HostFull.
    """
    queued = Q(status=OperationStatus.QUEUED, due_at__lte=Now() + CLOCKS_DIFFER)
    abandoned = Q(status=OperationStatus.RUNNING, lease_until__lt=Now())
    others = Operation.objects.filter(server=OuterRef("server"), lease_until__gt=Now()).exclude(
        pk=OuterRef("pk")
    )
    mine = Operation.objects.filter(queued | abandoned, ~Exists(others), pk=operation_id)
    delay_s = random.uniform(1.5, 3)  # noqa: S311
    with transaction.atomic():
        is_full = host_is_full(operation_id)
        if is_full:
            # Due later: of many messages about it one comes again, and the sweep does not call it forgotten.
            # What was abandoned is queued like the others: its former worker, should it live, cannot write.
            later = Now() + timedelta(seconds=delay_s)
            changed = mine.update(status=OperationStatus.QUEUED, lease_until=None, due_at=later)
        else:
            changed = mine.update(
                status=OperationStatus.RUNNING,
                lease_until=Now() + lease(),
                attempt=F("attempt") + 1,
                started_at=Coalesce("started_at", Now()),
            )
    if not changed:
        return None
    if is_full:
        raise HostFull(delay_s)
    # What each worker needs.  Not all that it may need: the more tables, the longer Postgres plans.
    return Operation.objects.select_related("server__account", "server__placement__hypervisor").get(
        pk=operation_id
    )


def lease() -> timedelta:
    """How long a worker may be silent before it is taken for dead."""
    return timedelta(seconds=settings.VPS_OPERATION_LEASE)


def enter(operation: Operation, step: str, progress: int = 0) -> None:
    """Name the step that begins now and how much is done (percent), and renew the lease."""
    changes: dict[str, Any] = {"lease_until": Now() + lease()}
    if operation.step != step:
        changes |= {"step": step, "step_since": timezone.now(), "retries": 0, "progress": progress}
    _fenced(operation, **changes)


def renew(operation: Operation) -> None:
    _fenced(operation, lease_until=Now() + lease())


def postpone(operation: Operation, delay_s: float, *, retry_detail: str = "") -> None:
    """Let go of the operation and have it done no sooner than ``delay_s`` seconds from now.

    ``retry_detail``: it is put off because something failed that may pass; for staff.
    """
    retry = {"retries": operation.retries + 1, "error_detail": retry_detail} if retry_detail else {}
    _fenced(
        operation,
        status=OperationStatus.QUEUED,
        lease_until=None,
        due_at=Now() + timedelta(seconds=delay_s),
        **retry,
    )


def note(operation: Operation, sentence: str) -> None:
    """Leave a sentence for the customer on an operation that goes on."""
    _fenced(operation, message=sentence)


def let_go(operation: Operation) -> None:
    """Say that this worker's hands are off, after LeaseLost: a waiting delete need not wait for the lease."""
    Operation.objects.filter(
        pk=operation.pk, attempt=operation.attempt, status=OperationStatus.CANCELLED
    ).update(lease_until=None)


def give_up(operation: Operation, failure: Failure) -> None:
    """Write down why the operation fails, before anything is undone: a crash must not lose the reason."""
    _fenced(
        operation,
        step=UNDO,
        step_since=timezone.now(),
        error_code=failure.code,
        message=failure.sentence,
        error_detail=failure.detail,
    )


@transaction.atomic
def succeed(operation: Operation) -> None:
    """Close the operation and give the server the status that its row of RULES promises."""
    server = Server.objects.select_for_update().get(pk=operation.server_id)
    _close(operation, OperationStatus.SUCCEEDED, progress=100)
    before = ServerStatus(server.suspended_from or operation.status_before)
    status = RULES[OperationKind(operation.kind)].succeeds_in or before
    power = PowerState.RUNNING if status == ServerStatus.ACTIVE else PowerState.OFF
    _write(server, status=status, **_suspension(server, status), **_observation(power))


@transaction.atomic
def fail(operation: Operation, power: PowerState) -> None:
    """Close an operation that was given up.  The server's status is the table's, or what the host says."""
    server = Server.objects.select_for_update().get(pk=operation.server_id)
    _close(operation, OperationStatus.FAILED)
    before = ServerStatus(operation.status_before)
    status = status_after_failure(OperationKind(operation.kind), before, power)
    _write(server, status=status, **_suspension(server, status), **_observation(power))


def keep_suspended(server: Server, reason: SuspensionReason) -> bool:
    """Give a server that is suspended already another reason.  False if it is not suspended."""
    suspended = Server.objects.filter(pk=server.pk, status=ServerStatus.SUSPENDED)
    return suspended.update(suspended_for=reason, updated_at=timezone.now()) == 1


@transaction.atomic
def adopt(operation: Operation) -> None:
    """The plan or system that the operation was asked for is the server's from now on.

    A plan at the price of the day when it was ordered.
    """
    server = Server.objects.select_for_update().get(pk=operation.server_id)
    renew(operation)
    wanted = {"plan": operation.plan, "os_version": operation.os_version}
    changes: dict[str, Any] = {field: row for field, row in wanted.items() if row is not None}
    if operation.price_hourly is not None and operation.price_monthly is not None:
        prices = operation.price_hourly, operation.price_monthly
        changes |= price_of(*prices, backups=server.backups_enabled)._asdict()
    _write(server, **changes)
    for field, value in changes.items():
        setattr(operation.server, field, value)


@transaction.atomic
def record_addresses(operation: Operation, addresses: tuple[IPv4Address | IPv6Address, ...]) -> None:
    """Write down what the guest has: its first address of each family."""
    Server.objects.select_for_update().get(pk=operation.server_id)
    renew(operation)
    first = {version: next((str(a) for a in addresses if a.version == version), None) for version in (4, 6)}
    _write(operation.server, ip_address=first[4], ipv6_address=first[6])


@transaction.atomic(savepoint=False)
def observe(server: Server, power: PowerState, asked_at: datetime) -> bool:
    """Record what a host said of an idle server, if nothing was written since it was asked.

    A status that contradicts the host follows it.  False: news too old, or an
    operation is open.
    """
    changes: dict[str, Any] = {}
    if status := contradicted_by(power, ServerStatus(server.status)):
        changes = {"status": status, "updated_at": timezone.now(), "settled_at": Now()}
    unchanged = _idle_since(asked_at).filter(pk=server.pk, status=server.status)
    if not unchanged.update(power_state=power, observed_at=asked_at, **changes):
        return False
    _announce(server, server.status, changes.get("status", server.status))
    return True


def confirm(servers: Iterable[int], power: PowerState, asked_at: datetime) -> None:
    """Record of many idle servers that their host said what their status says, by one statement."""
    _idle_since(asked_at).filter(pk__in=list(servers)).update(power_state=power, observed_at=asked_at)


def contradicted_by(power: PowerState, status: ServerStatus) -> ServerStatus | None:
    """The status that an idle server gets when its host says this; None: it keeps its own."""
    told = STATUS_OF_POWER.get(power)
    return told if told and told != status and status in SETTLED else None


def _idle_since(asked_at: datetime) -> QuerySet[Server]:
    return Server.objects.filter(~Exists(_open_operations_of(OuterRef("pk"))), settled_at__lt=asked_at)


def forget_power(servers: QuerySet[Server]) -> None:
    """Their host cannot be asked: what they do is unknown, what was promised stands."""
    servers.update(power_state=PowerState.UNKNOWN)


def _open_operations_of(server: Any) -> Any:
    return Operation.objects.filter(server=server, status__in=OPEN_OPERATION)


def _suspension(server: Server, status: ServerStatus) -> dict[str, Any]:
    """What an operation that ends in this status leaves of a suspension."""
    if status == ServerStatus.SUSPENDED:
        return {"suspended_at": server.suspended_at or timezone.now()}
    return {"suspended_for": "", "suspended_from": "", "suspended_at": None}


def _observation(power: PowerState) -> dict[str, Any]:
    return {"power_state": power, "observed_at": timezone.now()}


def _close(operation: Operation, status: OperationStatus, **changes: Any) -> None:
    _fenced(operation, status=status, finished_at=timezone.now(), lease_until=None, **changes)


def _fenced(operation: Operation, **changes: Any) -> None:
    mine = Operation.objects.filter(
        pk=operation.pk, attempt=operation.attempt, status=OperationStatus.RUNNING
    )
    if not mine.update(**changes):
        raise LeaseLost(f"{operation} is no longer ours")
    for name, value in changes.items():
        setattr(operation, name, value)


def _write(server: Server, **changes: Any) -> None:
    Server.objects.filter(pk=server.pk).update(**changes, updated_at=timezone.now(), settled_at=Now())
    record_rate(server.pk)
    _announce(server, server.status, changes.get("status", server.status))


def _announce(server: Server, before: str | None, status: str) -> None:
    """Tell the account's webhooks of a change of status: whoever writes one comes through here."""
    if status != before:
        names = {"id": server.pk, "uuid": str(server.uuid), "name": server.name}
        payload = {"server": names, "status_before": before, "status": status}
        announce(account_id=server.account_id, event=Event.SERVER_STATUS_CHANGED, payload=payload)
