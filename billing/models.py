"""What things cost and what was paid.  Fields, constraints and triggers; the verbs are beside this module."""

from decimal import Decimal

import pgtrigger
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from accounts.models import Account
from billing.prices import MeterState, Price
from core.partitions import PartitionedByMonth

DAY_FULL = 2**24 - 1


def _credits(help_text: str) -> "models.DecimalField[Decimal, Decimal]":
    return models.DecimalField(max_digits=14, decimal_places=4, default=Decimal(0), help_text=help_text)


def _refuse(sentence: str) -> str:
    return f"RAISE EXCEPTION '{sentence}' USING ERRCODE = 'integrity_constraint_violation';"


def _moves_balance(lines: str) -> str:
    """The body of a trigger: add up ``lines`` (account_id, amount) and move the balances by the sums."""
    return f"""
        UPDATE accounts_account account SET
            balance = account.balance + moved.amount,
            below_zero_since = CASE
                WHEN account.balance + moved.amount < 0 THEN coalesce(account.below_zero_since, now())
            END
        FROM (SELECT account_id, sum(amount) AS amount FROM {lines} GROUP BY account_id) moved
        WHERE account.id = moved.account_id;
        RETURN NULL;
    """  # noqa: S608


def _balance_follows(name: str) -> pgtrigger.Trigger:
    return pgtrigger.Trigger(
        name=name,
        when=pgtrigger.After,
        operation=pgtrigger.Insert,
        level=pgtrigger.Statement,
        referencing=pgtrigger.Referencing(new="lines"),
        func=_moves_balance("lines"),
    )


class Payment(models.Model):
    """Credits that came in, or a correction.  ``billing.ledger`` adds them, and nobody changes one."""

    class Kind(models.TextChoices):
        SIGNUP = "signup"
        TOP_UP = "top_up"
        REFUND = "refund"
        CORRECTION = "correction"

    account = models.ForeignKey(Account, models.PROTECT, related_name="payments")
    kind = models.CharField(max_length=20, choices=Kind.choices)
    amount = models.DecimalField(max_digits=14, decimal_places=4, help_text="Positive adds credits.")
    reason = models.CharField(max_length=255, help_text="Why, for the customer.")
    reference = models.CharField(
        max_length=100, blank=True, help_text="Of a payment or an invoice: a top-up with it is made once."
    )
    made_by = models.CharField(max_length=100, help_text="An operator or a member of staff.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["account", "reference"],
                condition=Q(kind="top_up") & ~Q(reference=""),
                name="one_top_up_per_reference",
            ),
            models.CheckConstraint(
                condition=Q(kind__in=["signup", "top_up", "refund"], amount__gt=0) | Q(kind="correction"),
                name="payments_give",
                violation_error_message="A top-up or a refund should be more than 0.",
            ),
        ]
        indexes = [models.Index(fields=["account", "-id"], name="payments_of_account")]
        triggers = [
            pgtrigger.Trigger(
                name="payments_are_append_only",
                when=pgtrigger.Before,
                operation=pgtrigger.Update | pgtrigger.Delete,
                func=_refuse("a line of the ledger is never changed or removed"),
            ),
            _balance_follows("balance_follows_payments"),
        ]

    def __str__(self) -> str:
        return f"{self.amount} ({self.kind})"


class Meter(models.Model):
    """One component of a subject (a server, its backups) that an account pays for by the hour.

    ``state`` and the price say what it costs now; its rates say since when.
    """

    account = models.ForeignKey(Account, models.PROTECT, related_name="meters")
    # No foreign key: billing does not know what it is told about.
    subject_kind = models.CharField(max_length=16, help_text="What is paid for: server.")
    subject_id = models.BigIntegerField()
    component = models.CharField(max_length=32, help_text="What of it: usage, backups.")
    label = models.CharField(max_length=100, help_text="The subject's name, for the customer.")
    state = models.CharField(max_length=16, choices=[(state.value, state.value) for state in MeterState])
    price_hourly = _credits("What a unit was sold at.")
    price_monthly = _credits("The most for a calendar month, of a unit.")
    quantity = models.DecimalField(max_digits=14, decimal_places=4, default=Decimal(1))
    began_at = models.DateTimeField(
        null=True, help_text="Its hours are counted from here: when the subject first cost something."
    )
    charged_until = models.DateTimeField(
        null=True, help_text="When the first hour begins that is not charged."
    )
    due_at = models.DateTimeField(
        null=True, help_text="When to charge next; none: there is nothing to charge before its next rate."
    )

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["subject_id", "component", "subject_kind"], name="one_meter_per_component"
            ),
            models.CheckConstraint(
                condition=Q(price_hourly__gte=0, price_monthly__gte=0, quantity__gte=0),
                name="prices_of_a_meter_are_not_negative",
            ),
        ]
        indexes = [models.Index(fields=["due_at"], condition=Q(due_at__isnull=False), name="due_meters")]
        triggers = [
            # By another beginning, or by a new meter, the same hours would be others and be charged again.
            pgtrigger.Trigger(
                name="hours_of_a_meter_stay",
                when=pgtrigger.Before,
                operation=pgtrigger.Update | pgtrigger.Delete,
                func=f"""
                    IF TG_OP = 'UPDATE'
                        AND (NEW.id, NEW.account_id, NEW.subject_kind, NEW.subject_id, NEW.component)
                            = (OLD.id, OLD.account_id, OLD.subject_kind, OLD.subject_id, OLD.component)
                        AND (OLD.began_at IS NULL
                            OR (NEW.began_at = OLD.began_at AND NEW.charged_until >= OLD.charged_until))
                    THEN
                        RETURN NEW;
                    END IF;
                    {_refuse("a meter is never removed, and its hours are counted from the same moment")}
                """,
            )
        ]

    def __str__(self) -> str:
        return f"{self.component} of {self.subject_kind} {self.subject_id}"

    @property
    def price(self) -> Price:
        return Price(self.price_hourly, self.price_monthly, self.quantity)


class Rate(models.Model):
    """What a meter charges from a moment on, until its next rate.  ``billing.meters`` writes them."""

    meter = models.ForeignKey(Meter, models.PROTECT, related_name="rates")
    since = models.DateTimeField()
    price_hourly = _credits("Of a unit. 0: nothing is charged.")
    price_monthly = _credits("The most for a calendar month, of a unit.")
    quantity = models.DecimalField(max_digits=14, decimal_places=4, default=Decimal(1))

    class Meta:
        ordering = ["-since"]
        constraints = [
            models.UniqueConstraint(fields=["meter", "since"], name="one_rate_at_a_time"),
            models.CheckConstraint(
                condition=Q(price_hourly__gte=0, price_monthly__gte=0, quantity__gte=0),
                name="prices_of_a_rate_are_not_negative",
            ),
        ]
        triggers = [
            # A rate that no hour has begun with yet may become the one that follows it: the newest of its
            # meter, before the same hour begins, and before that hour is charged.
            pgtrigger.Trigger(
                name="rates_are_append_only",
                when=pgtrigger.Before,
                operation=pgtrigger.Update | pgtrigger.Delete,
                func=f"""
                    IF TG_OP = 'UPDATE' AND (NEW.id, NEW.meter_id) = (OLD.id, OLD.meter_id)
                        AND NEW.since > OLD.since
                        AND NOT EXISTS (
                            SELECT FROM billing_rate WHERE meter_id = OLD.meter_id AND since > OLD.since
                        )
                        AND EXISTS (
                            SELECT FROM billing_meter WHERE id = OLD.meter_id
                            AND ceil(extract(epoch FROM OLD.since - began_at) / 3600)
                                = ceil(extract(epoch FROM NEW.since - began_at) / 3600)
                            AND (charged_until <= began_at OR charged_until - interval '1 hour' < NEW.since)
                        )
                    THEN
                        RETURN NEW;
                    END IF;
                    {_refuse("a rate is never changed or removed")}
                """,  # noqa: S608
            ),
            pgtrigger.Trigger(
                name="rates_come_in_order",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                func=f"""
                    IF EXISTS (
                            SELECT FROM billing_rate WHERE meter_id = NEW.meter_id AND since >= NEW.since
                        )
                        OR EXISTS (
                            SELECT FROM billing_meter WHERE id = NEW.meter_id
                            AND charged_until > began_at AND charged_until - interval '1 hour' >= NEW.since
                        )
                    THEN
                        {_refuse("a rate is younger than the one before and than the hours charged so far")}
                    END IF;
                    RETURN NEW;
                """,  # noqa: S608
            ),
        ]

    def __str__(self) -> str:
        return f"{self.price.per_hour} an hour since {self.since:%Y-%m-%d %H:%M}"

    @property
    def price(self) -> Price:
        return Price(self.price_hourly, self.price_monthly, self.quantity)


class Usage(PartitionedByMonth, models.Model):
    """One line of the ledger: the hours of one meter that began on one day (UTC) and were charged.

    It grows while the day's hours are charged and never shrinks: each bit of ``hours`` is set once, and with
    it the hour's credits are taken.  ``billing.metering`` is the only writer.
    """

    partition_by = "day"

    id = models.BigIntegerField(
        primary_key=True, help_text="From the sequence of the payments: lines have one order."
    )
    # No foreign keys in the database: a month is detached from it whole, and meters are never removed.
    account = models.ForeignKey(
        Account, models.PROTECT, related_name="usage_lines", db_constraint=False, db_index=False
    )
    meter = models.ForeignKey(
        Meter, models.PROTECT, related_name="usage_lines", db_constraint=False, db_index=False
    )
    day = models.DateField(help_text="UTC.")
    subject_kind = models.CharField(max_length=16)
    subject_id = models.BigIntegerField()
    component = models.CharField(max_length=32)
    hours = models.IntegerField(help_text="Bit n: the hour that began at n o'clock was charged.")
    amount = models.DecimalField(max_digits=14, decimal_places=4, help_text="Negative: it takes credits.")
    hour = models.DateTimeField(help_text="When the first of these hours began.")
    reason = models.CharField(max_length=255, help_text="For the customer.")
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "usage"
        constraints = [
            models.UniqueConstraint(fields=["meter", "day"], name="one_line_per_meter_and_day"),
            models.CheckConstraint(condition=Q(amount__lt=0), name="usage_takes"),
            models.CheckConstraint(
                condition=Q(hours__gte=1, hours__lte=DAY_FULL), name="usage_is_for_hours_of_a_day"
            ),
        ]
        indexes = [models.Index(fields=["account", "-id"], name="usage_of_account")]
        triggers = [
            pgtrigger.Trigger(
                name="usage_only_grows",
                when=pgtrigger.Before,
                operation=pgtrigger.Update | pgtrigger.Delete,
                func=f"""
                    IF TG_OP = 'UPDATE'
                        AND NEW.hours & OLD.hours = OLD.hours AND NEW.hours > OLD.hours
                        AND NEW.amount < OLD.amount AND NEW.hour <= OLD.hour
                        AND (NEW.id, NEW.meter_id, NEW.day, NEW.account_id, NEW.subject_kind, NEW.subject_id,
                            NEW.component, NEW.reason, NEW.created_at)
                            = (OLD.id, OLD.meter_id, OLD.day, OLD.account_id, OLD.subject_kind,
                            OLD.subject_id, OLD.component, OLD.reason, OLD.created_at)
                    THEN
                        RETURN NEW;
                    END IF;
                    {_refuse("a line of the ledger is never changed or removed: it grows by whole hours")}
                """,
            ),
            _balance_follows("balance_follows_usage"),
            pgtrigger.Trigger(
                name="balance_follows_growth",
                when=pgtrigger.After,
                operation=pgtrigger.Update,
                level=pgtrigger.Statement,
                referencing=pgtrigger.Referencing(old="before", new="lines"),
                func=_moves_balance(
                    "(SELECT account_id, amount FROM lines"
                    " UNION ALL SELECT account_id, -amount FROM before) moves"
                ),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount} ({self.component}, {self.day})"


class ArchivedUsage(models.Model):
    """The cost of one meter in a month whose lines were detached: balances and totals still need it."""

    meter = models.ForeignKey(Meter, models.PROTECT, related_name="archived_months")
    account = models.ForeignKey(Account, models.PROTECT)
    month = models.DateField()
    hours = models.PositiveIntegerField()
    amount = models.DecimalField(max_digits=14, decimal_places=4)

    class Meta:
        verbose_name_plural = "archived usage"
        constraints = [
            models.UniqueConstraint(fields=["meter", "month", "account"], name="one_sum_per_meter_and_month")
        ]
        triggers = [
            pgtrigger.Trigger(
                name="archived_usage_stays",
                when=pgtrigger.Before,
                operation=pgtrigger.Update | pgtrigger.Delete,
                func=_refuse("the sum of a detached month is never changed or removed"),
            )
        ]

    def __str__(self) -> str:
        return f"{self.amount} ({self.month:%Y-%m})"


class DetachedMonth(models.Model):
    """A month whose lines are no part of the ledger's table any more."""

    month = models.DateField(primary_key=True)
    detached_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"


class Proof(models.Model):
    """A closed month of an account of which the ledger audit has derived every charge and found all right.

    While the fingerprint of its lines, rates and corrections is the same, so is the result.
    """

    account = models.ForeignKey(Account, models.CASCADE)
    month = models.DateField()
    fingerprint = models.CharField(max_length=32)
    proven_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "month"], name="one_proof_per_month")]

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"


class Review(models.Model):
    """When the credits of an account are to be looked at: by those who act when they run out or come back."""

    account = models.OneToOneField(Account, models.CASCADE, primary_key=True)
    due_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"due {self.due_at:%Y-%m-%d %H:%M}"
