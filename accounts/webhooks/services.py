"""What can be done with webhooks, and ``announce``: what everybody calls who has something to tell."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson
from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from accounts.models import Account, Webhook, WebhookDelivery
from accounts.webhooks.addresses import (
    AddressRefused,
    HostNotFound,
    TooManyLookUps,
    parse,
    permitted_addresses,
)
from accounts.webhooks.delivery import PENDING, give_up_all, wake
from accounts.webhooks.events import ALL, Event
from accounts.webhooks.signing import new_secret, seal
from vpsorg.errors import NotFound, Refusal, TooManyRequests

MAX_WEBHOOKS = 10
LOOK_UP_AGAIN_AFTER_S = 1  # most take milliseconds

# KEY SHARE: a webhook that is deleted meanwhile must not fail what is told of, and those who
# tell of something at the same time must not wait for each other (the ORM's locks would).
ANNOUNCE = """
    INSERT INTO accounts_webhookdelivery
        (webhook_id, event_id, event, body, status, attempts, due_at, created_at, error)
    SELECT id, %(event_id)s, %(event)s, %(body)s, 'pending', 0, statement_timestamp(), %(now)s, ''
    FROM accounts_webhook
    WHERE account_id = %(account_id)s AND is_active AND events ?| %(words)s
    FOR KEY SHARE
    RETURNING id
"""


def announce(*, account_id: int, event: Event, payload: Mapping[str, Any]) -> None:
    """Tell the account's webhooks of something, as part of the caller's transaction.

    One statement, which writes nothing where nobody wants to know.  A rollback
    takes the messages back.
    """
    now = timezone.now()
    about: dict[str, Any] = {
        "account_id": account_id,
        "event_id": uuid4(),
        "event": event,
        "words": [ALL, event],
        "body": _body(event, payload, now),
        "now": now,
    }
    with connection.cursor() as cursor:
        cursor.execute(ANNOUNCE, about)
        for (delivery_id,) in cursor.fetchall():
            wake(delivery_id)


def create_webhook(*, account: Account, url: str, events: Sequence[str]) -> tuple[Webhook, str]:
    """A new webhook and its secret.  The secret is shown now or never.

    Refuses an address that may not be reached, and more than MAX_WEBHOOKS.
    """
    _require_room(account)  # before the look-up, which may take long; what counts is the second time
    _require_permitted(url, account.pk)
    secret = new_secret()
    with transaction.atomic():
        account = Account.objects.select_for_update().get(pk=account.pk)
        _require_room(account)
        webhook = Webhook.objects.create(
            account=account, url=url, events=list(events), sealed_secret=seal(secret, settings.SECRET_KEY)
        )
    return webhook, secret


def update_webhook(
    *,
    webhook: Webhook,
    url: str | None = None,
    events: Sequence[str] | None = None,
    is_active: bool | None = None,
) -> None:
    """Change what is given.  Switched off, what waits to be sent is given up."""
    if url is not None:
        _require_permitted(url, webhook.account_id)
    given = {"url": url, "events": events, "is_active": is_active}
    changes: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    if is_active:
        changes["disabled_at"] = None
    with transaction.atomic():
        _write(webhook, **changes)
        if is_active is False:
            give_up_all(webhook.pk)


def rotate_secret(*, webhook: Webhook) -> str:
    """A new secret in place of the old one, from the next attempt on.  It is shown now or never."""
    secret = new_secret()
    _write(webhook, sealed_secret=seal(secret, settings.SECRET_KEY))
    return secret


@transaction.atomic
def delete_webhook(*, webhook: Webhook) -> None:
    """Nothing is sent to it any more, and its deliveries are forgotten."""
    # Locked first: a message that is being written for it is there before its deliveries are deleted.
    Webhook.objects.select_for_update().filter(pk=webhook.pk).first()
    Webhook.objects.filter(pk=webhook.pk).delete()


@transaction.atomic
def send_ping(*, webhook: Webhook) -> WebhookDelivery:
    """Send a message that tells of nothing, once.  Refuses while the last one is on its way."""
    locked = Webhook.objects.select_for_update(no_key=True).filter(pk=webhook.pk).first()
    if locked is None:
        raise NotFound("There is no such webhook in this account.")
    if not locked.is_active:
        raise Refusal("This webhook is switched off. Switch it on first.", code="webhook_off")
    if locked.deliveries.filter(event=Event.PING, status=PENDING).exists():
        raise Refusal("The last ping to this webhook is still on its way.", code="ping_in_progress")
    now = timezone.now()
    delivery = WebhookDelivery.objects.create(
        webhook=locked, event_id=uuid4(), event=Event.PING, body=_body(Event.PING, {}, now), created_at=now
    )
    wake(delivery.pk)
    return delivery


@transaction.atomic
def send_again(*, delivery: WebhookDelivery) -> None:
    """Begin anew with a message that was taken or given up, under the same id."""
    over = WebhookDelivery.objects.filter(pk=delivery.pk).exclude(status=PENDING)
    if over.update(status=PENDING, attempts=0, due_at=Now(), delivered_at=None, error=""):
        wake(delivery.pk)


def _write(webhook: Webhook, **changes: Any) -> None:
    if changes and not Webhook.objects.filter(pk=webhook.pk).update(**changes):
        raise NotFound("There is no such webhook in this account.")
    for field, value in changes.items():
        setattr(webhook, field, value)


def _require_room(account: Account) -> None:
    if account.webhooks.count() >= MAX_WEBHOOKS:
        raise Refusal(f"An account has at most {MAX_WEBHOOKS} webhooks.", code="too_many_webhooks")


def _require_permitted(url: str, account_id: int) -> None:
    target = parse(url)
    try:
        permitted_addresses(target, settings.VPS_WEBHOOK_PRIVATE_NETWORKS, asker=account_id)
    except TooManyLookUps:
        raise TooManyRequests(
            "Another webhook's host is being looked up. Try again in a moment.",
            retry_after_s=LOOK_UP_AGAIN_AFTER_S,
        ) from None
    except HostNotFound:
        raise Refusal(
            f"No address was found for {target.host}.", code="host_not_found", field="url"
        ) from None
    except AddressRefused:
        raise Refusal(
            "Should lead over https to a public address.", code="address_refused", field="url"
        ) from None


def _body(event: Event, payload: Mapping[str, Any], at: datetime) -> str:
    timestamp = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return orjson.dumps({"type": event, "timestamp": timestamp, "data": payload}).decode()
