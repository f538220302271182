"""The runway that an order needs: billing's, and what open resizes and first backups will add to it."""

from decimal import Decimal

from django.db.models import Exists, OuterRef

from accounts.models import Account
from billing import meters, runway
from billing.models import Meter
from billing.prices import TO_BE_PAID
from servers.models import Operation
from servers.prices import BACKUPS, SUBJECT, USAGE, price_of_backups, prices_of
from servers.selectors import servers_of
from servers.states import OPEN_OPERATION, OperationKind, ServerStatus
from servers.wishes import ResizeWish


def required_runway(account: Account, *, more: Decimal = Decimal(0)) -> Decimal:
    """The cost of VPS_MIN_RUNWAY_HOURS of everything sold to the account, and of ``more`` an hour."""
    return runway.required_runway(account, more=more + _to_come(account))


def require_runway(account: Account, *, more: Decimal = Decimal(0)) -> None:
    """Refuse an order for which the credits would not last.  The caller holds the account's lock."""
    runway.require_runway(account, more=more + _to_come(account))


def _to_come(account: Account) -> Decimal:
    return _dearer_by_resizes(account) + _first_backups(account)


def _first_backups(account: Account) -> Decimal:
    """The credits an hour of backups that are enabled and cost nothing yet, since there is none.

    Those of a server that is being resized are in the price of its plan to be.
    """
    paid = Meter.objects.filter(
        subject_kind=SUBJECT, subject_id=OuterRef("pk"), component=BACKUPS, price_hourly__gt=0
    )
    runs = Meter.objects.filter(
        subject_kind=SUBJECT, subject_id=OuterRef("pk"), component=USAGE, state__in=TO_BE_PAID
    )
    enabled = servers_of(account).filter(~Exists(paid), Exists(runs), backups_enabled=True)
    to_come = list(enabled.exclude(status=ServerStatus.RESIZING).values_list("pk", flat=True))
    if not to_come:
        return Decimal(0)
    sold = meters.prices_of(SUBJECT, to_come).values()
    prices = [price_of_backups(components[USAGE]) for components in sold if USAGE in components]
    return sum((meters.per_hour({BACKUPS: price}) for price in prices), Decimal(0))


def _dearer_by_resizes(account: Account) -> Decimal:
    """The credits an hour that open resizes add.  A resize to a cheaper plan saves nothing until its end."""
    resizing = servers_of(account).filter(status=ServerStatus.RESIZING)
    resizes = list(
        Operation.objects.filter(
            server__in=resizing, kind=OperationKind.RESIZE, status__in=OPEN_OPERATION
        ).select_related("server")
    )
    if not resizes:
        return Decimal(0)
    sold = meters.prices_of(SUBJECT, [resize.subject_server_id for resize in resizes])
    return sum(
        (
            max(Decimal(0), _wished(resize) - meters.per_hour(sold[resize.subject_server_id]))
            for resize in resizes
        ),
        Decimal(0),
    )


def _wished(resize: Operation) -> Decimal:
    """The cost of an hour of the server after its resize."""
    wish = resize.typed_wish
    if not isinstance(wish, ResizeWish):
        return Decimal(0)
    usage = wish.prices[USAGE]
    prices = prices_of(usage.hourly, usage.monthly, backups=resize.subject_server.backups_enabled)
    return meters.per_hour(prices)
