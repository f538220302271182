"""What something is sold at."""

from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import NamedTuple

SMALLEST = Decimal("0.0001")


class MeterState(StrEnum):
    """Whether a component costs something now, and whether it will."""

    EXPECTED = "expected"  # not charged yet: the subject is being made, or is coming back
    RUNNING = "running"  # charged
    OWED = "owed"  # not charged while the account owes; the subject comes back once that is paid
    OFF = "off"  # not charged, and the subject does not come back by itself


WILL_COST = (MeterState.EXPECTED, MeterState.RUNNING)
TO_BE_PAID = (*WILL_COST, MeterState.OWED)


class Price(NamedTuple):
    """Credits for an hour and the most for a calendar month, of one unit; and how many units."""

    hourly: Decimal
    monthly: Decimal
    quantity: Decimal = Decimal(1)

    @property
    def per_hour(self) -> Decimal:
        """Of all units, to four decimals, half up."""
        return rounded(self.hourly * self.quantity)

    @property
    def per_month(self) -> Decimal:
        """The most for a calendar month, of all units."""
        return rounded(self.monthly * self.quantity)


FREE = Price(Decimal(0), Decimal(0))


def rounded(amount: Decimal) -> Decimal:
    return amount.quantize(SMALLEST, ROUND_HALF_UP)
