"""Webhooks (a customer's endpoints) and the deliveries to them."""

from uuid import uuid4

from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from accounts.models import Account
from core.leases import LeasedWork, under_way


class Webhook(models.Model):
    """A customer's endpoint that receives events.  Its secret is stored encrypted and shown once."""

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    account = models.ForeignKey(Account, models.CASCADE, related_name="webhooks")
    url = models.CharField(max_length=2048)
    events = models.JSONField(default=list, help_text='Names of events, or "*" for all.')
    sealed_secret = models.TextField(editable=False)
    is_active = models.BooleanField(default=True)
    disabled_at = models.DateTimeField(
        null=True, editable=False, help_text="Switched off by us: for days it took nothing."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.url


class WebhookDelivery(LeasedWork):
    """One message to one webhook: written with what it tells of, then sent until it is taken or given up."""

    class Status(models.TextChoices):
        PENDING = "pending"
        DELIVERED = "delivered"
        FAILED = "failed"

    OPEN = Q(status=Status.PENDING)

    webhook = models.ForeignKey(Webhook, models.CASCADE, related_name="deliveries")
    event_id = models.UUIDField(help_text="The same at every attempt, and for every webhook that is told.")
    event = models.CharField(max_length=50)
    body = models.TextField(help_text="What is sent, to the byte: it is signed.")
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.PENDING)
    attempts = models.PositiveSmallIntegerField(
        default=0, help_text="Since it was made, or sent again by staff."
    )
    created_at = models.DateTimeField(db_default=Now(), db_index=True)
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
                condition=Q(status="pending"),
                name="pending_deliveries",
            ),
            models.Index(
                fields=["webhook"],
                condition=Q(lease_until__isnull=False),
                name="deliveries_under_way",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event} #{self.pk}"

    @classmethod
    def may_begin(cls) -> Q:
        """The webhook is on and no other delivery to it is under way: a hung receiver holds one worker."""
        others = under_way(cls.objects.filter(webhook=OuterRef("webhook"))).exclude(pk=OuterRef("pk"))
        # A condition, not a join: an UPDATE with a join asks a snapshot, and two workers could take one row.
        is_on = Webhook.objects.filter(pk=OuterRef("webhook"), is_active=True)
        return Q(~Exists(others), Exists(is_on))
