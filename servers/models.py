"""What is owned.  Fields and constraints; the verbs are in ``lifecycle`` and ``services``."""

from decimal import Decimal
from enum import StrEnum
from uuid import uuid4

from django.db import models
from django.db.models import Q
from django.utils import timezone

from accounts.models import Account
from inventory.models import Placement
from plans.models import Location, OsVersion, Plan
from servers.prices import Price
from servers.states import (
    OPEN_OPERATION,
    OperationKind,
    OperationStatus,
    PowerState,
    ServerStatus,
    SuspensionReason,
)
from vpsorg.errors import NotAllowedNow


def _choices(words: type[StrEnum]) -> list[tuple[str, str]]:
    return [(word.value, word.value) for word in words]


def _credits(help_text: str) -> "models.DecimalField[Decimal, Decimal]":
    return models.DecimalField(
        max_digits=14, decimal_places=4, default=Decimal(0), editable=False, help_text=help_text
    )


def _not_negative(name: str) -> models.CheckConstraint:
    """Of the four prices: a negative one would stop the meter, for it gives where a charge takes."""
    return models.CheckConstraint(condition=Q(**{f"{field}__gte": 0 for field in Price._fields}), name=name)


class Server(models.Model):
    """A customer's machine.

    Three questions, three columns: what was promised (``status``), what is being
    done (the open operation), what the host last said (``power_state``).
    Only ``lifecycle`` writes them.
    """

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    account = models.ForeignKey(Account, models.PROTECT, related_name="servers")
    name = models.CharField(max_length=63)
    hostname = models.CharField(max_length=253)
    plan = models.ForeignKey(Plan, models.PROTECT)
    os_version = models.ForeignKey(OsVersion, models.PROTECT)
    location = models.ForeignKey(Location, models.PROTECT)
    placement = models.OneToOneField(Placement, models.PROTECT, null=True, editable=False)
    authorized_keys = models.JSONField(default=list, editable=False)
    backups_enabled = models.BooleanField(default=False)

    status = models.CharField(max_length=16, choices=_choices(ServerStatus), editable=False)
    power_state = models.CharField(
        max_length=16, choices=_choices(PowerState), default=PowerState.UNKNOWN, editable=False
    )
    observed_at = models.DateTimeField(null=True, editable=False)
    settled_at = models.DateTimeField(
        default=timezone.now, editable=False, help_text="When lifecycle last wrote: older news is no news."
    )
    suspended_for = models.CharField(
        max_length=16, choices=_choices(SuspensionReason), blank=True, editable=False
    )
    suspended_from = models.CharField(
        max_length=16, blank=True, editable=False, help_text="Its status before the suspension."
    )
    suspended_at = models.DateTimeField(null=True, editable=False, help_text="Its guest is off since.")
    price_hourly = _credits("What it was sold at.")
    price_monthly = _credits("The most for a calendar month.")
    backups_hourly = _credits("Of its backups, while it has them.")
    backups_monthly = _credits("The most for a calendar month.")
    ip_address = models.GenericIPAddressField(null=True, editable=False)
    ipv6_address = models.GenericIPAddressField(null=True, editable=False)

    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)
    deleted_at = models.DateTimeField(null=True, editable=False, help_text="Gone for the customer since.")

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["account", "-id"], condition=Q(deleted_at=None), name="servers_of_account"),
        ]
        constraints = [_not_negative("prices_of_a_server_are_not_negative")]

    def __str__(self) -> str:
        return f"{self.name} (#{self.pk})"

    @property
    def price(self) -> Price:
        return Price._make(getattr(self, field) for field in Price._fields)

    @property
    def claim(self) -> Placement:
        """What it holds on its host.  Raises NotAllowedNow for one that failed, or is gone."""
        if self.placement is None:
            raise NotAllowedNow("This server holds no place on a host.", code="no_placement")
        return self.placement


class Operation(models.Model):
    """One thing asked of one server: the customer's receipt, the worker's order.

    Operations are never edited back or deleted; together they are the history of
    a server.  The constraint is the lock: a server does one thing at a time.
    """

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    server = models.ForeignKey(Server, models.PROTECT, related_name="operations")
    kind = models.CharField(max_length=16, choices=_choices(OperationKind))
    status = models.CharField(
        max_length=16, choices=_choices(OperationStatus), default=OperationStatus.QUEUED
    )
    requested_by = models.CharField(max_length=100, help_text="A token, a member of staff, or reconcile.")
    plan = models.ForeignKey(Plan, models.PROTECT, null=True, help_text="Of a resize: the plan to be.")
    price_hourly = models.DecimalField(max_digits=10, decimal_places=4, null=True)
    price_monthly = models.DecimalField(
        max_digits=10,
        decimal_places=2,
        null=True,
        help_text="Of a resize: what the plan cost when it was ordered.",
    )
    os_version = models.ForeignKey(
        OsVersion, models.PROTECT, null=True, help_text="Of a rebuild: the system to be."
    )
    status_before = models.CharField(max_length=16, choices=_choices(ServerStatus))

    step = models.CharField(max_length=50, blank=True)
    step_since = models.DateTimeField(null=True)
    progress = models.PositiveSmallIntegerField(default=0, help_text="Percent of its steps.")
    attempt = models.PositiveIntegerField(
        default=0, help_text="Of several workers, the last to begin may write."
    )
    retries = models.PositiveIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, help_text="A worker is at it until then.")
    due_at = models.DateTimeField(default=timezone.now, help_text="Not before.")
    deadline_at = models.DateTimeField(null=True)

    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    error_code = models.CharField(max_length=50, blank=True)
    message = models.CharField(max_length=255, blank=True, help_text="A sentence the customer may read.")
    error_detail = models.TextField(blank=True, help_text="For staff.")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["server"],
                condition=Q(status__in=sorted(OPEN_OPERATION)),
                name="one_open_operation_per_server",
            )
        ]
        indexes = [
            models.Index(
                fields=["due_at"], condition=Q(status__in=sorted(OPEN_OPERATION)), name="open_operations"
            ),
            models.Index(
                fields=["lease_until"], condition=Q(lease_until__isnull=False), name="held_operations"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} #{self.pk}"


class Rate(models.Model):
    """What a server costs from a moment on, until its next rate.  ``servers.rates`` writes them."""

    server = models.ForeignKey(Server, models.PROTECT, related_name="rates")
    since = models.DateTimeField()
    price_hourly = _credits("0: free, for it is suspended or deleted.")
    price_monthly = _credits("The most for a calendar month.")
    backups_hourly = _credits("Of its backups.")
    backups_monthly = _credits("The most for a calendar month.")

    class Meta:
        ordering = ["-since"]
        constraints = [
            models.UniqueConstraint(fields=["server", "since"], name="one_rate_at_a_time"),
            _not_negative("prices_of_a_rate_are_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.price.hourly} an hour since {self.since:%Y-%m-%d %H:%M}"

    @property
    def price(self) -> Price:
        return Price._make(getattr(self, field) for field in Price._fields)


class Meter(models.Model):
    """How far a server's hours are charged.  Hours are counted from ``began_at``."""

    server = models.OneToOneField(Server, models.PROTECT, related_name="meter")
    began_at = models.DateTimeField(help_text="When it was first active.")
    next_at = models.DateTimeField(
        null=True, db_index=True, help_text="When the next hour to be charged begins; none: all are."
    )

    def __str__(self) -> str:
        return f"charged until {self.next_at:%Y-%m-%d %H:%M}" if self.next_at else "all charged"


class ResourceUsage(models.Model):
    """A server's last sample, and what it has moved this month.  Written often, so in a table of its own."""

    server = models.OneToOneField(Server, models.CASCADE, related_name="usage")
    sampled_at = models.DateTimeField(null=True)
    cpu_percent = models.FloatField(default=0.0)
    memory_used_mib = models.PositiveIntegerField(default=0)
    disk_used_gib = models.PositiveIntegerField(default=0)
    month = models.DateField(null=True, help_text="The month that the two sums belong to.")
    received_bytes = models.PositiveBigIntegerField(default=0)
    sent_bytes = models.PositiveBigIntegerField(default=0)
    last_cpu_time_ns = models.PositiveBigIntegerField(default=0)
    last_received_bytes = models.PositiveBigIntegerField(default=0)
    last_sent_bytes = models.PositiveBigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "resource usage"

    def __str__(self) -> str:
        return f"{self.cpu_percent:.1f} % CPU, {self.memory_used_mib} MiB"

    @property
    def bandwidth_used_gb(self) -> int:
        return bandwidth_gb(self.received_bytes, self.sent_bytes)


def bandwidth_gb(received_bytes: int, sent_bytes: int) -> int:
    """What counts of a month's traffic: the larger of the two, in whole GB (the provider's rule)."""
    return max(received_bytes, sent_bytes) // 10**9
