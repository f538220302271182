"""One function for each thing somebody can do to a server.

Each is one transaction: all of it, or a refusal and nothing.  ``requested_by``
says who asked, for the history.
"""

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from accounts import ledger
from accounts.models import Account, SshKey
from accounts.services import record_use
from inventory.services import claim, release, resize
from plans.catalogue import locations
from plans.models import Location, OsVersion, Plan
from servers import lifecycle
from servers.credits import require_grace, require_runway
from servers.models import Operation, ResourceUsage, Server
from servers.prices import price_of, price_of_plan
from servers.rates import record_rate
from servers.selectors import RECONCILE, servers_of, servers_that_keep_dying
from servers.states import OperationKind, OperationStatus, PowerState, ServerStatus, SuspensionReason
from vpsorg import queues
from vpsorg.errors import NotAllowedNow, NotFound, Refusal
from vpsorg.messages import send_on_commit

log = logging.getLogger(__name__)


@transaction.atomic
def create_server(
    *,
    account: Account,
    name: str,
    plan: Plan,
    os_version: OsVersion,
    location: Location,
    requested_by: str,
    hostname: str = "",
    ssh_keys: Sequence[SshKey] = (),
    backups_enabled: bool = False,
) -> Server:
    """Claim what the plan needs and order the server to be made.

    When this returns, host, memory, disk and addresses are this server's.
    Refuses with InsufficientCredits or NoCapacity.
    """
    account = ledger.locked(account)
    price = price_of_plan(plan, backups=backups_enabled)
    require_runway(account, more=price.hourly)
    now = timezone.now()
    server = Server.objects.create(
        account=account,
        name=name,
        hostname=hostname or name,
        plan=plan,
        os_version=os_version,
        location=location,
        placement=claim(location, **_size_of(plan)),
        authorized_keys=[key.public_key for key in ssh_keys],
        backups_enabled=backups_enabled,
        **price._asdict(),
        status=ServerStatus.PROVISIONING,
        created_at=now,
        updated_at=now,
        settled_at=now,
    )
    record_use(ssh_keys)
    server.usage = ResourceUsage.objects.create(server=server)
    wake(lifecycle.open_create(server, requested_by=requested_by))
    return server


def start_server(*, server: Server, requested_by: str) -> Operation:
    """Order a stopped server to be started."""
    return _order_within_grace(server, OperationKind.START, requested_by)


def stop_server(*, server: Server, requested_by: str) -> Operation:
    """Order an active server to be shut down by its guest; its power is cut after VPS_SHUTDOWN_TIMEOUT."""
    return _order(server, OperationKind.STOP, requested_by)


def reboot_server(*, server: Server, requested_by: str) -> Operation:
    """Order an active server to be shut down by its guest and started again."""
    return _order_within_grace(server, OperationKind.REBOOT, requested_by)


def hard_stop_server(*, server: Server, requested_by: str) -> Operation:
    """Order an active server's power to be cut at once."""
    return _order(server, OperationKind.HARD_STOP, requested_by)


@transaction.atomic
def resize_server(*, server: Server, plan: Plan, requested_by: str) -> Operation:
    """Order a server to become one of another plan on its host; what is more is claimed now.

    The disk may grow and never shrink.  Refuses with NotAllowedNow,
    OperationInProgress, InsufficientCredits or NoCapacity.
    """
    account = ledger.locked(server.account)
    now_there = _locked(server)
    if plan == now_there.plan:
        raise Refusal("The server has this plan already.", code="same_plan", field="plan")
    if plan.disk_gib < now_there.plan.disk_gib:
        raise Refusal(
            "A disk cannot shrink: choose a plan with as much storage.", code="disk_shrinks", field="plan"
        )
    operation = _order_within_grace(server, OperationKind.RESIZE, requested_by, plan=plan)
    if price_of_plan(plan, backups=now_there.backups_enabled).hourly > now_there.price.hourly:
        require_runway(account)
    claim, size = operation.server.claim, _size_of(plan)
    # What is less is given back once the machine is smaller: until then the server needs what it has.
    resize(claim, **{name: max(value, getattr(claim, name)) for name, value in size.items()})
    return operation


def rebuild_server(*, server: Server, os_version: OsVersion, requested_by: str) -> Operation:
    """Order a server to be made anew with this system: same addresses, and everything on its disk is lost."""
    return _order_within_grace(server, OperationKind.REBUILD, requested_by, os_version=os_version)


@transaction.atomic
def suspend_server(*, server: Server, reason: SuspensionReason, requested_by: str) -> Operation | None:
    """Order a server to be shut down, as a stop does, and to stay off until it is unsuspended.

    For abuse, one that is suspended for billing stays so for abuse, and needs no
    operation: a top-up does not bring it back any more.
    """
    if reason == SuspensionReason.ABUSE and lifecycle.keep_suspended(server, reason):
        return None
    return _order(server, OperationKind.SUSPEND, requested_by, suspend_for=reason)


@transaction.atomic
def unsuspend_server(
    *, server: Server, requested_by: str, reason: SuspensionReason | None = None
) -> Operation:
    """Order a suspended server to be what it was before: started again, if it was active.

    With a reason, refuses one that is suspended for another, as it may be since it was read.
    """
    operation = _order(server, OperationKind.UNSUSPEND, requested_by)
    if reason not in {None, operation.server.suspended_for}:
        raise NotAllowedNow("This server is suspended for another reason.", code="suspended")
    return operation


def delete_server(*, server: Server, requested_by: str) -> Operation:
    """Give a server up: for the customer it is gone at once, in whatever status it was."""
    return _order(server, OperationKind.DELETE, requested_by)


@transaction.atomic
def update_server(
    *,
    server: Server,
    name: str | None = None,
    hostname: str | None = None,
    backups_enabled: bool | None = None,
) -> Server:
    """Change what is given.  A new hostname reaches the guest at its next boot.

    Refuses with InsufficientCredits when backups are enabled that cannot be paid.
    """
    account = ledger.locked(server.account)
    now_there = _locked(server)
    given = {"name": name, "hostname": hostname, "backups_enabled": backups_enabled}
    changes: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    old = price = now_there.price
    if backups_enabled not in {None, now_there.backups_enabled}:
        price = price_of(old.price_hourly, old.price_monthly, backups=bool(backups_enabled))
        changes |= price._asdict()
    if changes:
        changes["updated_at"] = timezone.now()
        Server.objects.filter(pk=server.pk).update(**changes)
        if price.hourly > old.hourly:
            require_runway(account)
        record_rate(server.pk)
        for field, value in changes.items():
            setattr(server, field, value)
    if "name" in changes and server.placement_id is not None:
        _send("provisioning.rename", server.pk, server)
    return server


@transaction.atomic
def follow_host(*, server: Server, power: PowerState, start_again: bool, asked_at: datetime) -> None:
    """Make an idle server's status what its host said at ``asked_at``.

    ``start_again``: nobody switched it off, the host or its process died; so it is started again;
    but one that dies after each of several starts within an hour is left stopped, for staff to look at.
    """
    if not lifecycle.observe(server, power, asked_at) or not start_again:
        return
    if servers_that_keep_dying().filter(pk=server.pk).exists():
        log.error("server %s dies after each start: it is left stopped", server.uuid)
        return
    _order(server, OperationKind.START, RECONCILE)


@transaction.atomic
def settle_claims(*, operation: Operation) -> None:
    """After a resize, or one that came to nothing: claim what the server's plan says and no more.

    Gives back and takes nothing, so it is never refused.  May be repeated.
    """
    server = Server.objects.select_for_update().get(pk=operation.server_id)
    resize(server.claim, **_size_of(server.plan))
    operation.server.placement = server.placement


@transaction.atomic
def release_claims(*, server: Server) -> None:
    """Give back what a server held on its host, once nothing of it is left there.  May be repeated."""
    locked = Server.objects.select_for_update().get(pk=server.pk)
    if locked.placement is not None:
        placement, locked.placement = locked.placement, None
        locked.save(update_fields=["placement"])
        release(placement)
    server.placement = None


def let_go(*, operation: Operation) -> None:
    """Say that the worker of a cancelled operation has its hands off: what waits for that begins at once."""
    lifecycle.let_go(operation)
    waiting = Operation.objects.filter(server=operation.server_id, status=OperationStatus.QUEUED)
    for successor in waiting.select_related("server"):
        wake(successor)


def wake(operation: Operation, *, delay_s: float = 0) -> None:
    """Have a worker look at an operation.  To do so twice, or for nothing, does no harm."""
    # Named, not imported: servers must not know who carries operations out.  If the
    # message is lost the row is not, and provisioning's sweep finds it.
    _send("provisioning.carry_out", operation.pk, operation.server, delay_s)


def _locked(server: Server) -> Server:
    """The server as it is now, whatever was read before.  Raises NotFound for one that is gone."""
    now_there = servers_of(server.account).select_for_update().filter(pk=server.pk).first()
    if now_there is None:
        raise NotFound("There is no such server in this account.")
    return now_there


def _size_of(plan: Plan) -> dict[str, int]:
    return {"vcpus": plan.vcpus, "memory_mib": plan.memory_mib, "disk_gib": plan.disk_gib}


@transaction.atomic
def _order(server: Server, kind: OperationKind, requested_by: str, **wanted: Any) -> Operation:
    operation = lifecycle.request(server, kind, requested_by=requested_by, **wanted)
    wake(operation)
    return operation


@transaction.atomic
def _order_within_grace(server: Server, kind: OperationKind, requested_by: str, **wanted: Any) -> Operation:
    """Refuses with InsufficientCredits once the servers of the account are due to be suspended.

    One that is busy is not: kept busy, it would never be.
    """
    operation = _order(server, kind, requested_by, **wanted)
    require_grace(operation.server.account)
    return operation


def _send(task: str, row_id: int, server: Server, delay_s: float = 0) -> None:
    queue = queues.at(locations[server.location_id].code)
    send_on_commit(task, row_id, queue=queue, countdown=delay_s or None)
