"""When the credits of an account are to be looked at again.

Code that changes what an account has or owes asks for a review in the same transaction; the app that acts
(``servers.dunning``) takes what is due.  A lost message costs a minute and nothing more.
"""

from datetime import datetime

from django.db import connection

from accounts.models import Account
from billing.models import Review
from core import clock
from core.broker import send_on_commit

ASK = """
    INSERT INTO billing_review (account_id, due_at) VALUES (%s, %s)
    ON CONFLICT (account_id) DO UPDATE SET due_at = least(billing_review.due_at, excluded.due_at)
"""


def ask_for(account: Account) -> None:
    """Have an account looked at as soon as this transaction is committed."""
    ask_at(account.pk, clock.now())
    # Named, not imported: billing does not know the app that acts.  If the message is lost, the row is due.
    send_on_commit("servers.review_account", account.pk)


def ask_at(account_id: int, moment: datetime) -> None:
    """Have an account looked at then, or earlier if that was asked for already."""
    with connection.cursor() as cursor:
        cursor.execute(ASK, [account_id, moment])


def reviewed(account: Account, *, again_at: datetime | None) -> None:
    """Write when to look at an account next.  The caller holds the account's lock and has looked at it."""
    if again_at is None:
        Review.objects.filter(account=account).delete()
    else:
        Review.objects.update_or_create(account=account, defaults={"due_at": again_at})


def due(now: datetime) -> list[int]:
    """The ids of the accounts to look at, the longest due first."""
    return list(
        Review.objects.filter(due_at__lte=now).order_by("due_at", "pk").values_list("account_id", flat=True)
    )
