"""Payments: the lines of the ledger that people add.  ``billing.metering`` adds those of usage.

A line is never changed: a mistake is corrected by another line.  The database keeps the balance with each
line (triggers, see ``billing.models``) and refuses a balance that is not the sum.  Code that decides by a
balance locks the account first (``locked``).
"""

import re
from decimal import Decimal

from django.conf import settings
from django.db import IntegrityError, transaction

from accounts.models import Account
from billing import reviews
from billing.models import Payment
from core.errors import Refusal

AMOUNT = re.compile(r"-?[0-9]{1,10}(\.[0-9]{1,4})?", re.ASCII)
SOUND = "at most 10 digits and 4 decimals"
LONGEST = {"reason": 255, "reference": 100, "made_by": 100}
Kind = Payment.Kind


def locked(account: Account) -> Account:
    """The account as it is now.  Nobody else changes its balance until the caller's transaction ends."""
    # FOR NO KEY UPDATE: inserting a row that references the account (a token, a server) does not block.
    return Account.objects.select_for_update(no_key=True).get(pk=account.pk)


def amount_of(text: str) -> Decimal:
    """An amount as a person writes it: 50, 12.50.  Refuses anything else: currencies, words, 1e3."""
    if not AMOUNT.fullmatch(text):
        raise _no_amount(f"{SOUND}, and no currency")
    return Decimal(text)


def top_up(*, account: Account, amount: Decimal, reason: str, made_by: str, reference: str = "") -> Payment:
    """Add credits that were paid for, or given.  The same reference a second time is refused."""
    return _give(Kind.TOP_UP, account, amount, reason=reason, made_by=made_by, reference=reference)


def refund(*, account: Account, amount: Decimal, reason: str, made_by: str, reference: str = "") -> Payment:
    """Give back what was charged."""
    return _give(Kind.REFUND, account, amount, reason=reason, made_by=made_by, reference=reference)


def correct(*, account: Account, amount: Decimal, reason: str, made_by: str, reference: str = "") -> Payment:
    """Correct a mistake, by a positive or negative amount."""
    _require_sound(amount)
    if not amount:
        raise _no_amount("not 0")
    return _write(Kind.CORRECTION, account, amount, reason=reason, made_by=made_by, reference=reference)


def welcome(account: Account) -> None:
    """Give a new account the credits that it begins with: VPS_SIGNUP_CREDITS."""
    if settings.VPS_SIGNUP_CREDITS:
        _give(Kind.SIGNUP, account, settings.VPS_SIGNUP_CREDITS, reason="Welcome", made_by="signup")


def _give(kind: Payment.Kind, account: Account, amount: Decimal, **told: str) -> Payment:
    _require_sound(amount)
    if amount <= 0:
        raise _no_amount("more than 0")
    return _write(kind, account, amount, **told)


@transaction.atomic
def _write(kind: Payment.Kind, account: Account, amount: Decimal, **told: str) -> Payment:
    if not told["reason"].strip():
        raise Refusal("Say why, for the history.", code="reason_missing", field="reason")
    for field, text in told.items():
        if len(text) > LONGEST[field]:
            raise Refusal(f"Should have at most {LONGEST[field]} characters.", code="too_long", field=field)
    locked(account)
    try:
        with transaction.atomic():
            entry = Payment.objects.create(kind=kind, account=account, amount=amount, **told)
    except IntegrityError as error:
        if "one_top_up_per_reference" not in str(error):
            raise
        raise Refusal(
            f"This account was topped up for {told['reference']} already.",
            code="duplicate_reference",
            field="reference",
        ) from None
    reviews.ask_for(account)
    return entry


def _require_sound(amount: Decimal) -> None:
    if not amount.is_finite() or abs(amount) >= 10**10 or amount != round(amount, 4):
        raise _no_amount(SOUND)


def _no_amount(what: str) -> Refusal:
    sentence = f"The amount should be credits such as 50 or 12.50: {what}."
    return Refusal(sentence, code="invalid_amount", field="amount")
