"""How many servers an account may have, and how many may be in the making or be restored at once.

One token that creates and deletes in a loop must not take the addresses of a location from everybody else,
and one that restores not all workers, which copy disks for hours then.
"""

from django.conf import settings
from django.db.models import Count, Q

from accounts.models import Account
from core.errors import Refusal
from servers.models import Operation
from servers.selectors import servers_of
from servers.states import OPEN_OPERATION, OperationKind, ServerStatus


def max_servers(account: Account) -> int:
    """0: no limit."""
    return settings.VPS_MAX_SERVERS if account.max_servers is None else account.max_servers


def max_open_creates(account: Account) -> int:
    """0: no limit."""
    return settings.VPS_MAX_OPEN_CREATES if account.max_open_creates is None else account.max_open_creates


def require_within_limits(account: Account) -> None:
    """Refuse one server more than the account may have, or one create more than may be under way.

    A server that is being deleted counts until nothing of it is left on its host.
    The caller holds the account's lock: of two creates at once only one may be the last.
    """
    in_the_making = Count("pk", filter=Q(status=ServerStatus.PROVISIONING))
    there = servers_of(account).aggregate(servers=Count("pk"), creates=in_the_making)
    leaving = Operation.objects.filter(
        server__account=account, kind=OperationKind.DELETE, status__in=OPEN_OPERATION
    )
    most = max_servers(account)
    if most and there["servers"] + leaving.count() >= most:
        raise Refusal(
            f"This account may have {most} servers, and those that are being deleted count until they are "
            "gone. Delete one, or ask support for more.",
            code="server_limit_reached",
        )
    most = max_open_creates(account)
    if most and there["creates"] >= most:
        raise Refusal(
            f"This account may have {most} servers in the making at once. Wait until one is active.",
            code="too_many_creates",
        )


def require_restores_within_limit(account: Account) -> None:
    """Refuse one disk more to be made from a backup than VPS_MAX_OPEN_RESTORES (0: no limit).

    Of two orders at the same moment, for two servers, both may be the last.
    """
    restores = Operation.objects.filter(
        server__account=account, status__in=OPEN_OPERATION, wish__backup_id__isnull=False
    )
    most = settings.VPS_MAX_OPEN_RESTORES
    if most and restores.count() >= most:
        raise Refusal(
            f"This account may have {most} disks made from backups at once. Wait until one is there.",
            code="too_many_restores",
        )
