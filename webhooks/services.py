"""Everything that can be done with webhooks, and ``announce``, which other rooms call to send an event."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

import orjson
from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now

from accounts.models import Account
from core import clock
from core.errors import NotFound, Refusal, TooManyRequests
from webhooks.addresses import (
    AddressRefused,
    HostNotFound,
    TooManyLookUps,
    parse,
    permitted_addresses,
)
from webhooks.delivery import PENDING, give_up_all, wake
from webhooks.events import ALL, Event
from webhooks.models import Webhook, WebhookDelivery
from webhooks.sealing import SecretUnreadable, is_sealed_with_an_old_key, seal, unseal
from webhooks.signing import new_secret

MAX_WEBHOOKS = 10
LOOK_UP_AGAIN_AFTER_S = 1  # most take milliseconds

TIME_FORMAT = 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'

# KEY SHARE: a webhook that is deleted meanwhile must not fail the transaction that announces, and
# transactions that announce at the same time must not wait for each other (the ORM's locks would).
ANNOUNCE = """
    INSERT INTO webhooks_webhookdelivery
        (webhook_id, event_id, event, body, status, attempts, due_at, created_at, error)
    SELECT id, %(event_id)s, %(event)s,
        %(head)s || to_char(statement_timestamp() AT TIME ZONE 'UTC', %(format)s) || %(tail)s,
        'pending', 0, statement_timestamp(), statement_timestamp(), ''
    FROM webhooks_webhook
    WHERE account_id = %(account_id)s AND is_active AND events ?| %(words)s
    FOR KEY SHARE
    RETURNING id
"""


def announce(*, account_id: int, event: Event, payload: Mapping[str, Any]) -> None:
    """Write an event for the account's webhooks, in the caller's transaction.

    One statement, which writes nothing if no webhook subscribes.  A rollback
    takes the messages back.
    """
    head, tail = _around_the_time(event, payload)
    about: dict[str, Any] = {
        "account_id": account_id,
        "event_id": uuid4(),
        "event": event,
        "words": [ALL, event],
        "head": head,
        "format": TIME_FORMAT,
        "tail": tail,
    }
    with connection.cursor() as cursor:
        cursor.execute(ANNOUNCE, about)
        for (delivery_id,) in cursor.fetchall():
            wake(delivery_id)


def require_permitted(*, account: Account, url: str) -> None:
    """Look the URL's host up, and refuse a URL that may not be reached.

    Takes up to LOOK_UP_WITHIN_S seconds, so it does not belong into a transaction.  Refuses an account that
    has no room for another webhook before it looks anything up.
    """
    _require_room(account)
    _require_permitted(url, account.pk)


@transaction.atomic
def create_webhook(*, account: Account, url: str, events: Sequence[str] = (ALL,)) -> tuple[Webhook, str]:
    """A new webhook and its secret, for a URL that ``require_permitted`` let pass.  The secret is shown once.

    Refuses more than MAX_WEBHOOKS.  Each delivery judges the URL's addresses again.
    """
    secret = new_secret()
    account = Account.objects.select_for_update().get(pk=account.pk)
    _require_room(account)
    webhook = Webhook.objects.create(
        account=account, url=url, events=list(events), sealed_secret=seal(secret)
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
    """A new secret in place of the old one, from the next attempt on.  It is shown once."""
    secret = new_secret()
    _write(webhook, sealed_secret=seal(secret))
    return secret


class Resealed(NamedTuple):
    """Numbers of secrets: sealed anew, and those that no key opens."""

    done: int
    unreadable: int


def reseal_secrets() -> Resealed:
    """Seal what an older key sealed with VPS_SECRET_KEY, so that the older ones are needed no more.

    The customers' secrets stay.  A secret that its customer replaces at the same moment stays replaced.  May
    be repeated.
    """
    done = unreadable = 0
    for webhook in Webhook.objects.only("sealed_secret").order_by("pk").iterator():
        before = webhook.sealed_secret
        if not is_sealed_with_an_old_key(before):
            continue
        try:
            anew = seal(unseal(before))
        except SecretUnreadable:
            unreadable += 1
            continue
        done += Webhook.objects.filter(pk=webhook.pk, sealed_secret=before).update(sealed_secret=anew)
    return Resealed(done, unreadable)


@transaction.atomic
def delete_webhook(*, webhook: Webhook) -> None:
    """Delete a webhook with its deliveries: nothing more is sent to it."""
    # Locked first: a message that is being written for it is there before its deliveries are deleted.
    Webhook.objects.select_for_update().filter(pk=webhook.pk).first()
    Webhook.objects.filter(pk=webhook.pk).delete()


@transaction.atomic
def send_ping(*, webhook: Webhook) -> WebhookDelivery:
    """Send a test event, with one attempt.  Refuses while the last ping is not yet delivered or given up."""
    locked = Webhook.objects.select_for_update(no_key=True).filter(pk=webhook.pk).first()
    if locked is None:
        raise NotFound("There is no such webhook in this account.")
    if not locked.is_active:
        raise Refusal("This webhook is switched off. Switch it on first.", code="webhook_off")
    if locked.deliveries.filter(event=Event.PING, status=PENDING).exists():
        raise Refusal("The last ping to this webhook is still on its way.", code="ping_in_progress")
    head, tail = _around_the_time(Event.PING, {})
    body = head + clock.now().strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z" + tail
    delivery = WebhookDelivery.objects.create(webhook=locked, event_id=uuid4(), event=Event.PING, body=body)
    wake(delivery.pk)
    return delivery


@transaction.atomic
def send_again(*, delivery: WebhookDelivery) -> None:
    """Send a delivery again that was accepted or given up, under the same id."""
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


def _around_the_time(event: Event, payload: Mapping[str, Any]) -> tuple[str, str]:
    """What stands before and after a message's time in its body: the time is Postgres's."""
    head, tail = orjson.dumps({"type": event, "timestamp": "TIME", "data": payload}).decode().split("TIME", 1)
    return head, tail
