"""The only writer of the ledger.  A line is added and never changed: a mistake is corrected by another.

The database keeps the balance with each line (triggers, see the migration
``ledger``) and refuses a balance that is not the sum.  Whoever decides by a
balance locks the account first (``locked``).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db import IntegrityError, transaction

from accounts.models import Account, CreditEntry
from vpsorg.errors import Refusal
from vpsorg.messages import send_on_commit

AMOUNT = re.compile(r"-?[0-9]{1,10}(\.[0-9]{1,4})?", re.ASCII)
SOUND = "at most 10 digits and 4 decimals"
LONGEST = {"reason": 255, "reference": 100, "made_by": 100}
Kind = CreditEntry.Kind


@dataclass(frozen=True)
class Charge:
    """What one hour of one server costs, for itself or for its backups."""

    server_id: int
    hour: datetime
    kind: CreditEntry.Kind
    amount: Decimal
    reason: str


def locked(account: Account) -> Account:
    """The account as it is now.  Its balance is the caller's until the transaction ends."""
    # No key: who only refers to the account (a new token, a new server) need not wait.
    return Account.objects.select_for_update(no_key=True).get(pk=account.pk)


def amount_of(text: str) -> Decimal:
    """An amount as a person writes it: 50, 12.50.  Refuses anything else: currencies, words, 1e3."""
    if not AMOUNT.fullmatch(text):
        raise _no_amount(f"{SOUND}, and no currency")
    return Decimal(text)


def top_up(
    *, account: Account, amount: Decimal, reason: str, made_by: str, reference: str = ""
) -> CreditEntry:
    """Add credits that were paid for, or given.  The same reference a second time is refused."""
    return _give(Kind.TOP_UP, account, amount, reason=reason, made_by=made_by, reference=reference)


def refund(
    *, account: Account, amount: Decimal, reason: str, made_by: str, reference: str = ""
) -> CreditEntry:
    """Give back what was charged."""
    return _give(Kind.REFUND, account, amount, reason=reason, made_by=made_by, reference=reference)


def correct(
    *, account: Account, amount: Decimal, reason: str, made_by: str, reference: str = ""
) -> CreditEntry:
    """Put a mistake right, in either direction."""
    _require_sound(amount)
    if not amount:
        raise _no_amount("not 0")
    return _write(Kind.CORRECTION, account, amount, reason=reason, made_by=made_by, reference=reference)


def welcome(*, account: Account, amount: Decimal) -> CreditEntry:
    """The credits that a new account begins with."""
    return _give(Kind.SIGNUP, account, amount, reason="Welcome", made_by="signup")


def charge(account: Account, charges: Iterable[Charge]) -> None:
    """Take what hours cost.  The caller holds the account's lock.

    An hour that was charged before is refused by the database, and with it all of them.
    """
    CreditEntry.objects.bulk_create(
        CreditEntry(
            account=account,
            kind=charge.kind,
            amount=-charge.amount,
            reason=charge.reason,
            made_by="meter",
            server_id=charge.server_id,
            hour=charge.hour,
        )
        for charge in charges
    )


def _give(kind: CreditEntry.Kind, account: Account, amount: Decimal, **told: str) -> CreditEntry:
    _require_sound(amount)
    if amount <= 0:
        raise _no_amount("more than 0")
    return _write(kind, account, amount, **told)


@transaction.atomic
def _write(kind: CreditEntry.Kind, account: Account, amount: Decimal, **told: str) -> CreditEntry:
    if not told["reason"].strip():
        raise Refusal("Say why, for the history.", code="reason_missing", field="reason")
    for field, text in told.items():
        if len(text) > LONGEST[field]:
            raise Refusal(f"Should have at most {LONGEST[field]} characters.", code="too_long", field=field)
    locked(account)
    try:
        with transaction.atomic():
            entry = CreditEntry.objects.create(kind=kind, account=account, amount=amount, **told)
    except IntegrityError as error:
        if "one_top_up_per_reference" not in str(error):
            raise
        raise Refusal(
            f"This account was topped up for {told['reference']} already.",
            code="duplicate_reference",
            field="reference",
        ) from None
    _tell_servers(account)
    return entry


def _tell_servers(account: Account) -> None:
    # Named, not imported: accounts know no servers.  If the message is lost, the next
    # look at all accounts does the same.
    send_on_commit("servers.settle", account.pk)


def _require_sound(amount: Decimal) -> None:
    if not amount.is_finite() or abs(amount) >= 10**10 or amount != round(amount, 4):
        raise _no_amount(SOUND)


def _no_amount(what: str) -> Refusal:
    sentence = f"The amount should be credits such as 50 or 12.50: {what}."
    return Refusal(sentence, code="invalid_amount", field="amount")
