"""One function for each thing that can be done to a server or a hypervisor.

Each is one transaction: it does everything, or raises a Refusal and changes nothing.  The history names the
current actor (``accounts.actors``).
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import wraps
from typing import Any, ParamSpec, cast

from django.db import transaction
from django.db.models.functions import Least, Now

from accounts.models import Account, SshKey
from accounts.services import record_use
from backups.models import Backup
from billing import ledger, meters
from billing.prices import FREE
from billing.runway import require_grace
from core import leases, queues
from core.broker import send_on_commit
from core.errors import NoCapacity, NotAllowedNow, NotFound, Refusal
from core.written import take_over
from inventory.models import Hypervisor, Placement
from inventory.offers import locations_with_room
from inventory.services import claim, make_port, release, remove_port, resize
from plans.catalogue import locations
from plans.models import Location, OsVersion, Plan
from servers import backup_schedule, charges, lifecycle
from servers.copies import has_automatic_backup, require_available, require_restorable
from servers.lanes import neighbours_of
from servers.limits import require_restores_within_limit, require_within_limits
from servers.models import Operation, ResourceUsage, Server
from servers.prices import BACKUPS, USAGE, price_of_backups, prices_of_plan
from servers.runway import require_runway
from servers.selectors import servers_of, servers_that_keep_dying
from servers.states import (
    HostOperationKind,
    OperationKind,
    OperationStatus,
    PowerState,
    ServerStatus,
    SuspensionReason,
)
from servers.wishes import CreateWish, ResizeWish, Size, made_from, rebuild_with, resize_to

COPY_LIMIT_S = 13 * 3600  # a worker that copies a whole disk has longer than Celery's tasks have
log = logging.getLogger(__name__)
P = ParamSpec("P")


def _says_where_else(create: Callable[P, Server]) -> Callable[P, Server]:
    """Add to a refusal for want of room where the plan can be had.  The transaction is over by then."""

    @wraps(create)
    def saying(*args: P.args, **wanted: P.kwargs) -> Server:
        try:
            return create(*args, **wanted)
        except NoCapacity as refusal:
            plan, location = cast(Plan, wanted["plan"]), cast(Location, wanted["location"])
            elsewhere = [code for code in locations_with_room([plan])[plan.pk] if code != location.code]
            told = f"It can be had in: {', '.join(elsewhere) or 'no location at the moment'}."
            raise NoCapacity(f"{refusal.sentence} {told}", field=refusal.field) from None

    return saying


@_says_where_else
@transaction.atomic
def create_server(
    *,
    account: Account,
    name: str,
    plan: Plan,
    os_version: OsVersion,
    location: Location,
    hostname: str = "",
    ssh_keys: Sequence[SshKey] = (),
    backups_enabled: bool = False,
    backup: Backup | None = None,
) -> Server:
    """Claim what the plan needs and order the server to be made.

    Its disk starts from the system's image, or from a backup that has this system.

    When this returns, host, memory, disk and addresses are this server's.
    Refuses with InsufficientCredits or NoCapacity, and what is beyond the account's limits.
    """
    if backups_enabled:
        require_available(location, field="backups_enabled")
    account = ledger.locked(account)
    require_within_limits(account)
    if backup is not None:
        require_restores_within_limit(account)
        require_restorable(backup, account=account, disk_gib=plan.disk_gib)
    require_runway(account, more=meters.per_hour(prices_of_plan(plan, backups=backups_enabled)))
    server = Server.objects.create(
        account=account,
        name=name,
        hostname=hostname or name,
        plan=plan,
        os_version=os_version,
        base_image=os_version.image_to_start_from if backup is None else backup.base_image,
        disk_needs_image=backup is None,
        location=location,
        home=claim(location, **_size_of(plan)),
        port=make_port(location),
        authorized_keys=[key.public_key for key in ssh_keys],
        backups_enabled=backups_enabled,
        status=ServerStatus.PROVISIONING,
    )
    if backups_enabled:
        backup_schedule.set_next(server)
    record_use(ssh_keys)
    charges.sell(server, prices_of_plan(plan, backups=False))  # backups cost from the first one on
    server.usage = ResourceUsage.objects.create(server=server)
    wake(lifecycle.open_create(server, CreateWish(backup_id=None if backup is None else backup.pk)))
    return server


def start_server(*, server: Server) -> Operation:
    """Order a stopped server to be started."""
    return order_within_grace(server, OperationKind.START)


def stop_server(*, server: Server) -> Operation:
    """Order an active server to be shut down by its guest; its power is cut after VPS_SHUTDOWN_TIMEOUT."""
    return _order(server, OperationKind.STOP)


def reboot_server(*, server: Server) -> Operation:
    """Order an active server to be shut down by its guest and started again."""
    return order_within_grace(server, OperationKind.REBOOT)


def hard_stop_server(*, server: Server) -> Operation:
    """Order an active server's power to be cut at once."""
    return _order(server, OperationKind.HARD_STOP)


@transaction.atomic
def resize_server(*, server: Server, plan: Plan) -> Operation:
    """Order a resize to another plan on the same host.  Additional room is claimed now.

    The disk may grow and never shrink.  Refuses with NotAllowedNow,
    OperationInProgress, InsufficientCredits or NoCapacity.
    """
    account = ledger.locked(server.account)
    now_there = locked_server(server)
    if plan == now_there.plan:
        raise Refusal("The server has this plan already.", code="same_plan", field="plan")
    if now_there.home is not None and plan.disk_gib < now_there.home.disk_gib:
        raise Refusal(
            "A disk cannot shrink: choose a plan with as much storage.", code="disk_shrinks", field="plan"
        )
    held = Size(**_size_of(now_there.home)) if now_there.home else None
    operation = order_within_grace(server, OperationKind.RESIZE, wish=resize_to(plan, held=held))
    wished = meters.per_hour(prices_of_plan(plan, backups=now_there.backups_enabled))
    if wished > meters.per_hour(charges.sold_at(now_there)):
        require_runway(account)
    claim, size = now_there.claim, _size_of(plan)
    # Surplus room is released once the machine is smaller: until then the server needs all of it.
    resize(claim, **{name: max(value, getattr(claim, name)) for name, value in size.items()})
    return operation


@transaction.atomic
def rebuild_server(*, server: Server, os_version: OsVersion) -> Operation:
    """Order a server to be rebuilt with this system.  Its addresses stay; all data on its disk is lost.

    A rebuild that fails leaves the server as it was, with its disk.
    """
    next_disk = locked_server(server).disk_number + 1
    wish = rebuild_with(os_version, disk_number=next_disk)
    return order_within_grace(server, OperationKind.REBUILD, wish=wish)


@transaction.atomic
def suspend_server(*, server: Server, reason: SuspensionReason) -> Operation | None:
    """Order a server to be shut down, as a stop does, and to stay off until it is unsuspended.

    A server that is suspended for billing already needs no operation to be suspended for
    abuse: only the reason changes, so that a top-up does not unsuspend it any more.
    """
    if reason == SuspensionReason.ABUSE and lifecycle.keep_suspended(server, reason):
        return None
    return _order(server, OperationKind.SUSPEND, suspend_for=reason)


@transaction.atomic
def unsuspend_server(*, server: Server, reason: SuspensionReason | None = None) -> Operation:
    """Order a suspended server to be what it was before: started again, if it was active.

    With a reason, refuses a server that is suspended for another reason.
    """
    operation = _order(server, OperationKind.UNSUSPEND)
    if reason not in {None, operation.subject_server.suspended_for}:
        raise NotAllowedNow("This server is suspended for another reason.", code="suspended")
    return operation


def delete_server(*, server: Server) -> Operation:
    """Order a deletion, in any status.  For the customer the server is gone at once."""
    return _order(server, OperationKind.DELETE)


@transaction.atomic
def update_server(
    *,
    server: Server,
    name: str | None = None,
    hostname: str | None = None,
    backups_enabled: bool | None = None,
) -> Server:
    """Change the given fields.  A new hostname reaches the guest at its next boot.

    Refuses with InsufficientCredits when backups are enabled that cannot be paid, and with
    ``backups_unavailable`` where none can be taken.
    """
    if backups_enabled and not server.backups_enabled:
        require_available(server.location, field="backups_enabled")
    account = ledger.locked(server.account)
    now_there = locked_server(server)
    given = {"name": name, "hostname": hostname, "backups_enabled": backups_enabled}
    changes: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    if changes:
        changes["updated_at"] = Now()
        Server.objects.filter(pk=server.pk).update(**changes)
        if backups_enabled not in {None, now_there.backups_enabled}:
            _switch_backups(account, now_there, on=bool(backups_enabled))
        if name not in {None, now_there.name}:
            now_there.name = changes["name"]
            charges.rename(now_there)
            Backup.objects.filter(server_id=server.pk).update(server_name=changes["name"])
        take_over(server, changes)
    if "name" in changes and server.home_id is not None:
        queue = queues.at(locations[server.location_id].code)
        send_on_commit("provisioning.rename", server.pk, queue=queue)
    return server


@transaction.atomic
def follow_host(*, server: Server, power: PowerState, start_again: bool, asked_at: datetime) -> None:
    """Make an idle server's status what its host said at ``asked_at``.

    ``start_again``: the machine died with its host or its process, so the server is started again.
    A server that dies after each of several starts within an hour stays stopped, for staff to look at.
    """
    if not lifecycle.observe(server, power, asked_at) or not start_again:
        return
    if servers_that_keep_dying().filter(pk=server.pk).exists():
        log.error("server %s dies after each start: it is left stopped", server.uuid)
        return
    _order(server, OperationKind.START)


@transaction.atomic
def give_back_surplus(*, operation: Operation) -> None:
    """After a resize or its undo: release the room that the server does not need.

    Takes nothing, so it is never refused.  May be repeated.
    """
    server = Server.objects.select_for_update().get(pk=operation.subject_server_id)
    claim, wish = server.claim, operation.typed_wish
    size = _size_of(server.plan)
    if isinstance(wish, ResizeWish):  # as it was when the resize was ordered, whatever became of the plans
        size = _size_of(wish if server.plan_id == wish.plan_id else wish.held or server.plan)
    resize(claim, **{name: min(value, getattr(claim, name)) for name, value in size.items()})
    operation.subject_server.home = claim


@transaction.atomic
def release_claims(*, server: Server) -> None:
    """Release the room and the addresses of a server whose machine and files are removed.

    May be repeated.
    """
    locked = Server.objects.select_for_update().get(pk=server.pk)
    placements, port = [locked.home, locked.incoming], locked.port
    Server.objects.filter(pk=server.pk).update(home=None, incoming=None, port=None)
    for placement in placements:
        if placement is not None:
            release(placement)
    if port is not None:
        remove_port(port)
    server.home = server.incoming = server.port = None


@transaction.atomic
def check_hypervisor(*, hypervisor: Hypervisor) -> Operation:
    """Order a check of a hypervisor.  The result is recorded in its row and on the operation."""
    operation = lifecycle.request_of_host(hypervisor, HostOperationKind.CHECK)
    wake(operation)
    return operation


def let_go(*, operation: Operation) -> None:
    """Record that the worker of a cancelled operation has stopped; operations that waited for it begin."""
    lifecycle.let_go(operation)
    if operation.server_id is None and operation.backup_id is None:
        return
    same = {"server": operation.server_id} if operation.server_id else {"backup": operation.backup_id}
    waiting = Operation.objects.filter(**same, status=OperationStatus.QUEUED)
    for successor in waiting.select_related("server", "backup"):
        wake(successor)


def wake_next(operation: Operation) -> None:
    """Wake the operation that waited for this operation, or for a seat on the same host."""
    if operation.hypervisor_id is None:
        return
    if waiting := leases.next_waiting(neighbours_of(operation)):
        wake(waiting)


def wake(operation: Operation, *, delay_s: float = 0) -> None:
    """Have a worker look at an operation.  May be repeated."""
    # Named, not imported: servers must not know who carries operations out.  If the
    # message is lost the row is not, and provisioning's scheduler finds it.
    send_on_commit("provisioning.carry_out", operation.pk, **sent_with(operation), delay_s=delay_s)


@transaction.atomic
def retry_now(operation: Operation) -> bool:
    """Have an operation that waits for its next try tried at once.

    False if it is over, or a worker is at it.
    """
    waits = leases.free(Operation.objects.filter(Operation.OPEN, pk=operation.pk))
    if not waits.update(due_at=Least("due_at", Now())):
        return False
    wake(operation)
    return True


def sent_with(operation: Operation) -> dict[str, Any]:
    """Celery's options for a message about an operation: whose it is, and how long its worker may take."""
    code = locations[operation.subject.location_id].code
    kept_for = queues.SHARED if operation.backup_id is None else queues.BACKUPS
    options: dict[str, Any] = {"queue": queues.at(code, kept_for)}
    if operation.backup_id is not None or made_from(operation.typed_wish) is not None:
        options["time_limit"] = COPY_LIMIT_S
    return options


def locked_server(server: Server) -> Server:
    """The server's row, locked and read again.  Raises NotFound for a deleted server."""
    now_there = servers_of(server.account).select_for_update().filter(pk=server.pk).first()
    if now_there is None:
        raise NotFound("There is no such server in this account.")
    return now_there


def _switch_backups(account: Account, server: Server, *, on: bool) -> None:
    """Have a server backed up from now on, or not any more.  Refuses with InsufficientCredits.

    They cost something as long as there is one: from the first that completes, or at once.
    """
    price = price_of_backups(charges.sold_at(server)[USAGE])
    if not on:
        backup_schedule.end(server)
        charges.change_prices(server, {BACKUPS: FREE})
        return
    backup_schedule.set_next(server)
    if has_automatic_backup(server):
        charges.change_prices(server, {BACKUPS: price})
    require_runway(account)


def _size_of(sold: Plan | Placement | ResizeWish | Size) -> dict[str, int]:
    return {"vcpus": sold.vcpus, "memory_mib": sold.memory_mib, "disk_gib": sold.disk_gib}


@transaction.atomic
def _order(server: Server, kind: OperationKind, **wanted: Any) -> Operation:
    operation = lifecycle.request(server, kind, **wanted)
    wake(operation)
    return operation


@transaction.atomic
def order_within_grace(server: Server, kind: OperationKind, **wanted: Any) -> Operation:
    """Refuses with InsufficientCredits once the servers of the account are due to be suspended.

    An account due for suspension could otherwise keep its servers busy, and never be suspended.
    """
    operation = _order(server, kind, **wanted)
    require_grace(operation.subject_server.account)
    return operation
