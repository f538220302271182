"""Who buys: accounts, their tokens and keys, and the ledger of credits."""

from decimal import Decimal
from uuid import uuid4

from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils import timezone


class Account(models.Model):
    """A customer.  Staff are Django's users; customers are these.

    ``balance`` and ``below_zero_since`` are written by the database itself, with
    each line of the ledger; it refuses whoever else would write them.
    """

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    email = models.EmailField()
    first_name = models.CharField(max_length=100, blank=True)
    last_name = models.CharField(max_length=100, blank=True)
    company_name = models.CharField(max_length=200, blank=True)
    is_active = models.BooleanField(default=True, help_text="Off: none of its tokens is accepted.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    balance = models.DecimalField(
        max_digits=20, decimal_places=4, default=Decimal(0), editable=False, help_text="The sum of its lines."
    )
    below_zero_since = models.DateTimeField(null=True, editable=False, db_index=True)
    warned_at = models.DateTimeField(
        null=True, editable=False, help_text="When it was told that its credits run out."
    )

    # Django REST framework asks this of whatever an authenticator returns.
    is_authenticated = True

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(Lower("email"), name="one_account_per_email")]

    def __str__(self) -> str:
        return self.email


class ApiToken(models.Model):
    """A bearer token.  Only its SHA-256 is kept: the secret is shown once, when it is made."""

    account = models.ForeignKey(Account, models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=12, help_text="How it begins, so that a leaked one can be found.")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    permissions = models.JSONField(
        default=list, help_text='Words such as "servers:read", "ssh_keys:*", "*:*".'
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class SshKey(models.Model):
    """A public key that can be installed on a new server."""

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    account = models.ForeignKey(Account, models.CASCADE, related_name="ssh_keys")
    name = models.CharField(max_length=100)
    public_key = models.TextField()
    fingerprint = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False, help_text="Last put on a new server.")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["account", "fingerprint"], name="one_ssh_key_per_account")
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.fingerprint})"


class CreditEntry(models.Model):
    """One line of an account's ledger.  ``accounts.ledger`` adds them, and nobody changes one."""

    class Kind(models.TextChoices):
        SIGNUP = "signup"
        TOP_UP = "top_up"
        USAGE = "usage"
        BACKUPS = "backups"
        REFUND = "refund"
        CORRECTION = "correction"

    account = models.ForeignKey(Account, models.PROTECT, related_name="credit_entries")
    kind = models.CharField(max_length=20, choices=Kind.choices)
    amount = models.DecimalField(max_digits=14, decimal_places=4, help_text="Positive adds credits.")
    reason = models.CharField(max_length=255, help_text="Why, for the customer.")
    reference = models.CharField(
        max_length=100, blank=True, help_text="Of a payment or an invoice: a top-up with it is made once."
    )
    made_by = models.CharField(max_length=100, help_text="The meter, an operator or a member of staff.")
    # No foreign key: accounts do not know servers.
    server_id = models.BigIntegerField(null=True, help_text="Of a charge: the server.")
    hour = models.DateTimeField(null=True, help_text="Of a charge: when the hour began.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "credit entries"
        constraints = [
            models.UniqueConstraint(fields=["server_id", "hour", "kind"], name="one_charge_per_hour"),
            models.UniqueConstraint(
                fields=["account", "reference"],
                condition=Q(kind="top_up") & ~Q(reference=""),
                name="one_top_up_per_reference",
            ),
            models.CheckConstraint(
                condition=Q(kind__in=["signup", "top_up", "refund"], amount__gt=0)
                | Q(kind__in=["usage", "backups"], amount__lt=0)
                | Q(kind="correction"),
                name="charges_take_and_payments_give",
                violation_error_message="A top-up or a refund should be more than 0.",
            ),
            models.CheckConstraint(
                condition=Q(kind__in=["usage", "backups"], server_id__isnull=False, hour__isnull=False)
                | Q(~Q(kind__in=["usage", "backups"]), hour__isnull=True),
                name="charges_are_for_an_hour_of_a_server",
            ),
        ]
        indexes = [models.Index(fields=["account", "-id"], name="lines_of_account")]

    def __str__(self) -> str:
        return f"{self.amount} ({self.kind})"


class IdempotentAnswer(models.Model):
    """The first answer to a POST with an Idempotency-Key.  ``accounts.idempotency`` says when it counts."""

    account = models.ForeignKey(Account, models.CASCADE)
    key = models.CharField(max_length=255)
    request = models.CharField(max_length=64, help_text="SHA-256 of method, path and body.")
    status = models.PositiveSmallIntegerField()
    body = models.TextField()
    headers = models.JSONField(default=dict)
    created_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "key"], name="one_answer_per_key")]

    def __str__(self) -> str:
        return f"{self.status} to {self.key}"


class Webhook(models.Model):
    """An address of a customer's that is told of events.  Its secret is kept sealed and shown once."""

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    account = models.ForeignKey(Account, models.CASCADE, related_name="webhooks")
    url = models.CharField(max_length=2048)
    events = models.JSONField(default=list, help_text='Names of events, or "*" for all.')
    sealed_secret = models.TextField(editable=False)
    is_active = models.BooleanField(default=True)
    disabled_at = models.DateTimeField(
        null=True, editable=False, help_text="Switched off by us: for days it took nothing."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.url


class WebhookDelivery(models.Model):
    """One message to one webhook: written with what it tells of, then sent until it is taken or given up."""

    class Status(models.TextChoices):
        PENDING = "pending"
        DELIVERED = "delivered"
        FAILED = "failed"

    webhook = models.ForeignKey(Webhook, models.CASCADE, related_name="deliveries")
    event_id = models.UUIDField(help_text="The same at every attempt, and for every webhook that is told.")
    event = models.CharField(max_length=50)
    body = models.TextField(help_text="What is sent, to the byte: it is signed.")
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    due_at = models.DateTimeField(default=timezone.now, help_text="Not before.")
    lease_until = models.DateTimeField(null=True, help_text="A worker is at it until then.")
    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    delivered_at = models.DateTimeField(null=True)
    response_status = models.PositiveSmallIntegerField(null=True, help_text="Of the last attempt.")
    error = models.CharField(max_length=50, blank=True, help_text="Of the last attempt.")
    duration_ms = models.PositiveIntegerField(null=True, help_text="Of the last attempt.")

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "webhook deliveries"
        constraints = [
            models.UniqueConstraint(fields=["webhook", "event_id"], name="one_delivery_per_event_and_webhook")
        ]
        indexes = [
            models.Index(fields=["webhook", "-id"], name="deliveries_of_webhook"),
            models.Index(
                fields=["webhook", "due_at"],
                condition=models.Q(status="pending"),
                name="pending_deliveries",
            ),
            models.Index(
                fields=["webhook"],
                condition=models.Q(lease_until__isnull=False),
                name="deliveries_under_way",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event} #{self.pk}"
