"""The runway that an order needs: billing's, and what open resizes will add to it."""

from decimal import Decimal

from accounts.models import Account
from billing import meters, runway
from servers.models import Operation
from servers.prices import SUBJECT, USAGE, prices_of
from servers.selectors import servers_of
from servers.states import OPEN_OPERATION, OperationKind, ServerStatus
from servers.wishes import ResizeWish


def required_runway(account: Account, *, more: Decimal = Decimal(0)) -> Decimal:
    """The cost of VPS_MIN_RUNWAY_HOURS of everything sold to the account, and of ``more`` an hour."""
    return runway.required_runway(account, more=more + _dearer_by_resizes(account))


def require_runway(account: Account, *, more: Decimal = Decimal(0)) -> None:
    """Refuse an order for which the credits would not last.  The caller holds the account's lock."""
    runway.require_runway(account, more=more + _dearer_by_resizes(account))


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
