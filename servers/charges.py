"""What servers tell billing: when a server begins to cost something, what it costs, and when it stops.

``follow`` hears of every write of ``lifecycle``; ``services`` calls the others.  All of it is written in the
transaction that changes the server, whose lock the caller holds.
"""

from collections.abc import Iterator

from django.db.models import Exists, OuterRef, QuerySet

from backups.kinds import BackupKind, BackupStatus
from backups.selectors import whole_automatic_backups
from billing import meters
from billing.ledger_audit import Code
from billing.meters import Subject
from billing.models import Meter
from billing.prices import FREE, MeterState
from core.findings import Finding
from servers.changes import BackupChange, StatusChange
from servers.models import Server
from servers.prices import BACKUPS, SUBJECT, USAGE, Prices, price_of_backups, prices_of
from servers.states import FREE_STATUSES, ServerStatus, SuspensionReason
from servers.wishes import ResizeWish

S = ServerStatus


def subject_of(server: Server) -> Subject:
    return Subject(server.account_id, SUBJECT, server.pk, server.name)


def state_in(status: ServerStatus, suspended_for: str) -> MeterState:
    """What a server in this status costs: everything, nothing yet, or nothing any more."""
    if status not in FREE_STATUSES:
        return MeterState.RUNNING
    if status in {S.PROVISIONING, S.UNSUSPENDING}:
        return MeterState.EXPECTED
    if status == S.SUSPENDED and suspended_for == SuspensionReason.BILLING:
        return MeterState.OWED
    return MeterState.OFF


def sell(server: Server, prices: Prices) -> None:
    """Begin to meter a server that was just ordered."""
    meters.open_meters(subject_of(server), prices)


def follow(change: StatusChange) -> None:
    """Tell billing what a server costs after a write of ``lifecycle``.

    Asks the database nothing where the values at hand say that nothing changes: a stop or a start.
    """
    if change.before is None:
        return
    server = change.server
    before = state_in(change.before, server.suspended_for)
    after = state_in(change.after, change.written.get("suspended_for", server.suspended_for))
    prices = _prices_adopted(change)
    if prices or before != after:
        meters.keep(subject_of(server), after, prices)


def follow_backup(change: BackupChange) -> None:
    """Sell a server its backups while there is an automatic one that is complete."""
    server, is_automatic = change.server, change.backup.kind == BackupKind.AUTOMATIC
    if server is None or server.deleted_at or not is_automatic or not server.backups_enabled:
        return
    sold = sold_at(server)
    if change.after == BackupStatus.COMPLETED and sold[BACKUPS] == FREE:
        change_prices(server, {BACKUPS: price_of_backups(sold[USAGE])})
    if change.after == BackupStatus.DELETED and not whole_automatic_backups(server.pk).exists():
        change_prices(server, {BACKUPS: FREE})


def change_prices(server: Server, prices: Prices) -> None:
    """Sell components of a server at these prices from now on."""
    meters.keep(subject_of(server), state_in(ServerStatus(server.status), server.suspended_for), prices)


def rename(server: Server) -> None:
    meters.rename(subject_of(server))


def sold_at(server: Server) -> Prices:
    """The prices of a server by component, whatever its status; FREE for what it does not have."""
    return {USAGE: FREE, BACKUPS: FREE} | meters.prices_of(SUBJECT, [server.pk])[server.pk]


def _prices_adopted(change: StatusChange) -> Prices:
    """The prices of a resize, when the server gets its plan: those of the day when it was ordered."""
    if change.operation is None or "plan_id" not in change.written:
        return {}
    wish = change.operation.typed_wish
    if not isinstance(wish, ResizeWish):
        return {}
    usage = wish.prices[USAGE]
    return prices_of(usage.hourly, usage.monthly, backups=sold_at(change.server)[BACKUPS] != FREE)


def findings() -> Iterator[Finding]:
    """For the ledger audit: servers whose meters are missing, or are in another state than the server."""
    has_meter = Exists(_meters(USAGE))
    for server in Server.objects.exclude(has_meter).order_by("pk").iterator():
        if _state_of(server) == MeterState.RUNNING:
            yield Finding(Code.METER_MISSING, f"server {server.pk}", f"is {server.status} and not metered")
    backed_up = Exists(whole_automatic_backups(OuterRef("pk")))
    with_backups = Server.objects.filter(has_meter, backed_up, backups_enabled=True).exclude(
        Exists(_meters(BACKUPS))
    )
    for server in with_backups.order_by("pk").iterator():
        yield Finding(Code.METER_MISSING, f"server {server.pk}", "has backups, and they are not metered")
    yield from _states()


def _meters(component: str) -> QuerySet[Meter]:
    return Meter.objects.filter(subject_kind=SUBJECT, subject_id=OuterRef("pk"), component=component)


def _states() -> Iterator[Finding]:
    metered = Meter.objects.filter(subject_kind=SUBJECT).order_by("pk")
    for some in _in_chunks(metered):
        servers = Server.objects.in_bulk([meter.subject_id for meter in some])
        for meter in some:
            server = servers.get(meter.subject_id)
            state = MeterState.OFF if server is None else _state_of(server)
            if meter.state != state:
                what = f"its {meter.component} should be {state}, its meter says {meter.state}"
                yield Finding(Code.RATE_DIFFERS, f"server {meter.subject_id}", what)


def _in_chunks(metered: QuerySet[Meter], size: int = 2000) -> Iterator[list[Meter]]:
    after = 0
    while some := list(metered.filter(pk__gt=after)[:size]):
        yield some
        after = some[-1].pk


def _state_of(server: Server) -> MeterState:
    return state_in(ServerStatus(server.status), server.suspended_for)
