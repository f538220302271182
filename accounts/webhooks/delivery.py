"""The outbox: a message is a row before anybody sends it, and sent until it is taken or given up.

At least once, in no promised order: a worker that dies between sending and
writing it down has it sent again, under the same id.  Every write of a worker
asks ``WHERE attempts = mine``.  Nothing depends on the broker: ``due_deliveries``
finds what a lost message would have told of.  Leases and due times are measured
by Postgres's clock alone: those of the workers may differ.
"""

import logging
import random
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from accounts.models import Webhook, WebhookDelivery
from accounts.webhooks.events import Event
from accounts.webhooks.sending import Fault, Outcome, post
from accounts.webhooks.signing import SecretUnreadable, signed_headers, unseal
from vpsorg.messages import send_on_commit

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)  # several times what an attempt may take
# After each failed attempt, seconds until the next; then it is given up: after nearly three days.
DELAYS_S = [10, 60, 5 * 60, 30 * 60, 2 * 3600, 6 * 3600, 12 * 3600, 24 * 3600, 24 * 3600]
KEPT_FOR = timedelta(days=30)
PENDING = WebhookDelivery.Status.PENDING


def wake(delivery_id: int, *, expires_s: float | None = None) -> None:
    """Have a worker look at a delivery.  To do so twice, or for nothing, does no harm."""
    send_on_commit("accounts.deliver_webhook", delivery_id, expires=expires_s)


def deliver(delivery_id: int) -> None:
    """Make one attempt, if it is due and nobody else is at it; then look for the webhook's next."""
    delivery = take(delivery_id)
    if delivery is None:
        return
    record(delivery, _attempt(delivery))
    if following := due_deliveries().filter(webhook=delivery.webhook_id).first():
        wake(following.pk)


def take(delivery_id: int) -> WebhookDelivery | None:
    """Take a delivery for one attempt.  None if it is not due, somebody is at it, or it is over.

    The WHERE clause is the guard: of two workers, one updates the row.  Nor is it
    taken while another message to the same webhook is on its way: a receiver that
    hangs holds one of us and not all.
    """
    others = WebhookDelivery.objects.filter(webhook=OuterRef("webhook"), lease_until__gt=Now())
    taken = WebhookDelivery.objects.filter(
        _free(), ~Exists(others), _is_wanted(), pk=delivery_id, status=PENDING, due_at__lte=Now()
    ).update(lease_until=Now() + LEASE, attempts=F("attempts") + 1)
    return WebhookDelivery.objects.select_related("webhook").get(pk=delivery_id) if taken else None


def record(delivery: WebhookDelivery, outcome: Outcome) -> None:
    """Write down how an attempt went, and when the next is due.  Too late, it changes nothing."""
    mine = WebhookDelivery.objects.filter(pk=delivery.pk, attempts=delivery.attempts, status=PENDING)
    told = {
        "lease_until": None,
        "response_status": outcome.status,
        "error": outcome.fault or "",
        "duration_ms": outcome.duration_ms,
    }
    log.info("%s to webhook %s: %s", delivery, delivery.webhook_id, outcome)
    if outcome.fault is None:
        mine.update(**told, status=WebhookDelivery.Status.DELIVERED, delivered_at=Now())
        return
    delays_s = [] if delivery.event == Event.PING else DELAYS_S
    if delivery.attempts <= len(delays_s):
        # Jittered, so that what failed together does not come back together.
        delay_s = delays_s[delivery.attempts - 1] * random.uniform(0.8, 1.2)  # noqa: S311
        mine.update(**told, due_at=Now() + timedelta(seconds=delay_s))
        return
    given_up = mine.update(**told, status=WebhookDelivery.Status.FAILED)
    if given_up and delivery.event != Event.PING:
        _switch_off_if_dead(delivery)


def due_deliveries() -> QuerySet[WebhookDelivery]:
    """What could be sent now, the oldest first."""
    due = WebhookDelivery.objects.filter(_free(), _is_wanted(), status=PENDING, due_at__lte=Now())
    return due.order_by("due_at", "pk")


def first_due_of_each_webhook() -> QuerySet[WebhookDelivery]:
    """One for each, the oldest first: the next of a webhook is woken when it is done."""
    firsts = due_deliveries().order_by("webhook_id", "due_at", "pk").distinct("webhook_id")
    return WebhookDelivery.objects.filter(pk__in=firsts.values("pk")).order_by("due_at", "pk")


def give_up_all(webhook_id: int) -> None:
    """Nothing that waits is sent any more: the webhook is switched off."""
    WebhookDelivery.objects.filter(webhook=webhook_id, status=PENDING).update(
        status=WebhookDelivery.Status.FAILED, error=Fault.SWITCHED_OFF, lease_until=None
    )


def remove_old_deliveries(at_most: int) -> None:
    old = WebhookDelivery.objects.filter(created_at__lt=Now() - KEPT_FOR).order_by("created_at")
    WebhookDelivery.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:at_most])).delete()


def _attempt(delivery: WebhookDelivery) -> Outcome:
    try:
        secret = unseal(delivery.webhook.sealed_secret, settings.SECRET_KEY)
    except SecretUnreadable:
        return Outcome(None, Fault.SECRET_UNREADABLE)
    return post(
        delivery.webhook.url,
        delivery.body,
        signed_headers(secret, delivery.event_id, timezone.now(), delivery.body),
        private_networks=settings.VPS_WEBHOOK_PRIVATE_NETWORKS,
    )


@transaction.atomic
def _switch_off_if_dead(delivery: WebhookDelivery) -> None:
    """A webhook that took nothing from this message's first attempt to its last takes nothing."""
    delivered_since = WebhookDelivery.objects.filter(
        webhook=OuterRef("pk"), delivered_at__gte=delivery.created_at
    )
    dead = Webhook.objects.filter(~Exists(delivered_since), pk=delivery.webhook_id, is_active=True)
    if dead.update(is_active=False, disabled_at=Now()):
        log.warning("webhook %s is switched off: it takes nothing", delivery.webhook_id)
        give_up_all(delivery.webhook_id)


def _free() -> Q:
    return Q(lease_until=None) | Q(lease_until__lt=Now())


def _is_wanted() -> Exists:
    # A condition, not a join: an UPDATE with a join asks a snapshot, and two workers could both take a row.
    return Exists(Webhook.objects.filter(pk=OuterRef("webhook"), is_active=True))
