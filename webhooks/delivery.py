"""The outbox: a message is a row before anybody sends it, and sent until it is taken or given up.

At least once, in no promised order: a worker that dies between sending and
writing it down has it sent again, under the same id.  Every write of a worker
asks ``WHERE attempt = mine`` (``core.leases``).  Nothing depends on the broker: ``due_deliveries``
finds what a lost message would have told of.  Leases and due times are measured
by Postgres's clock alone: those of the workers may differ.
"""

import logging
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef, QuerySet
from django.db.models.functions import Now

from core import clock, leases
from core.backoff import jittered_s
from core.broker import send_on_commit
from core.leases import Lane
from core.locks import deliveries_of_account
from webhooks.events import Event
from webhooks.models import Webhook, WebhookDelivery
from webhooks.sealing import SecretUnreadable, unseal
from webhooks.sending import Fault, Outcome, post
from webhooks.signing import signed_headers

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)  # several times what an attempt may take
AT_ONCE = 2  # messages to one account: fewer than any installation has workers for webhooks
# After each failed attempt, seconds until the next; then it is given up: after nearly three days.
DELAYS_S = [10, 60, 5 * 60, 30 * 60, 2 * 3600, 6 * 3600, 12 * 3600, 24 * 3600, 24 * 3600]
KEPT_FOR = timedelta(days=30)
PENDING = WebhookDelivery.Status.PENDING


def wake(delivery_id: int, *, sent_at: str | None = None) -> None:
    """Have a worker look at a delivery.  May be repeated.  ``sent_at``: not if the message waits for long."""
    send_on_commit("webhooks.deliver", delivery_id, kwargs={"sent_at": sent_at} if sent_at else None)


def deliver(delivery_id: int) -> None:
    """Make one attempt, if the delivery is due and no other worker has it; then wake the account's next."""
    delivery = take(delivery_id)
    if delivery is None:
        return
    record(delivery, _attempt(delivery))
    if waiting := leases.next_waiting(_deliveries_of(delivery.webhook.account_id)):
        wake(waiting.pk)


def lane_of(account_id: int) -> Lane[WebhookDelivery]:
    """The lane of an account: its hung receivers hold at most AT_ONCE workers."""
    return Lane(deliveries_of_account(account_id), _deliveries_of(account_id), AT_ONCE)


def _deliveries_of(account_id: int) -> QuerySet[WebhookDelivery]:
    return WebhookDelivery.objects.filter(webhook__account=account_id).order_by("due_at", "pk")


def take(delivery_id: int) -> WebhookDelivery | None:
    """Take a delivery for one attempt.  None if it is not due, a worker has it, it is over, or it must wait.

    It waits while another message to the same webhook is on its way, and while AT_ONCE
    messages to the same account are.
    """
    delivery = WebhookDelivery.objects.select_related("webhook").filter(_is_wanted(), pk=delivery_id).first()
    if delivery is None:
        return None
    lane = lane_of(delivery.webhook.account_id)
    if not leases.take(delivery, lease=LEASE, lane=lane, attempts=F("attempts") + 1):
        return None
    return WebhookDelivery.objects.select_related("webhook").get(pk=delivery_id)


def record(delivery: WebhookDelivery, outcome: Outcome) -> None:
    """Write down how an attempt went, and when the next is due.  Too late, it changes nothing."""
    told = {
        "response_status": outcome.status,
        "error": outcome.fault or "",
        "duration_ms": outcome.duration_ms,
    }
    log.info("%s to webhook %s: %s", delivery, delivery.webhook_id, outcome)
    delays_s = [] if delivery.event == Event.PING else DELAYS_S
    try:
        if outcome.fault is None:
            leases.finish(delivery, **told, status=WebhookDelivery.Status.DELIVERED, delivered_at=Now())
        elif delivery.attempts <= len(delays_s):
            # Jittered, so that deliveries that failed together are not retried together.
            delay_s = jittered_s(delays_s[delivery.attempts - 1], least=0.8, most=1.2)
            leases.postpone(delivery, delay_s, **told)
        else:
            leases.finish(delivery, **told, status=WebhookDelivery.Status.FAILED)
            if delivery.event != Event.PING:
                _switch_off_if_dead(delivery)
    except leases.LeaseLost as lost:
        log.info("%s", lost)


def due_deliveries() -> QuerySet[WebhookDelivery]:
    """Deliveries that a worker could send now, the oldest first."""
    return leases.due(WebhookDelivery.objects.filter(_is_wanted())).order_by("due_at", "pk")


def first_due_of_each_webhook() -> QuerySet[WebhookDelivery]:
    """One for each, the oldest first: the next of a webhook is woken when it is done."""
    firsts = due_deliveries().order_by("webhook_id", "due_at", "pk").distinct("webhook_id")
    return WebhookDelivery.objects.filter(pk__in=firsts.values("pk")).order_by("due_at", "pk")


def give_up_all(webhook_id: int) -> None:
    """Give up all waiting deliveries of a webhook that was switched off."""
    WebhookDelivery.objects.filter(webhook=webhook_id, status=PENDING).update(
        status=WebhookDelivery.Status.FAILED, error=Fault.SWITCHED_OFF, lease_until=None
    )


def remove_old_deliveries(at_most: int) -> None:
    old = WebhookDelivery.objects.filter(created_at__lt=Now() - KEPT_FOR).order_by("created_at")
    WebhookDelivery.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:at_most])).delete()


def _attempt(delivery: WebhookDelivery) -> Outcome:
    try:
        secret = unseal(delivery.webhook.sealed_secret)
    except SecretUnreadable:
        return Outcome(None, Fault.SECRET_UNREADABLE)
    return post(
        delivery.webhook.url,
        delivery.body,
        signed_headers(secret, delivery.event_id, clock.now(), delivery.body),
        private_networks=settings.VPS_WEBHOOK_PRIVATE_NETWORKS,
    )


@transaction.atomic
def _switch_off_if_dead(delivery: WebhookDelivery) -> None:
    """Switch a webhook off that accepted no delivery from the first attempt of this one to its last."""
    delivered_since = WebhookDelivery.objects.filter(
        webhook=OuterRef("pk"), delivered_at__gte=delivery.created_at
    )
    dead = Webhook.objects.filter(~Exists(delivered_since), pk=delivery.webhook_id, is_active=True)
    if dead.update(is_active=False, disabled_at=Now()):
        log.warning("webhook %s is switched off: it takes nothing", delivery.webhook_id)
        give_up_all(delivery.webhook_id)


def _is_wanted() -> Exists:
    # A condition, not a join: an UPDATE with a join asks a snapshot, and two workers could both take a row.
    return Exists(Webhook.objects.filter(pk=OuterRef("webhook"), is_active=True))
