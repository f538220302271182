"""The answers of the webhooks' endpoints."""

from typing import Annotated

import msgspec

from core.api.answers import Answer, Id, Moment, Uuid, about, example, utc, utc_or_none, words
from webhooks.events import Event
from webhooks.models import Webhook as WebhookRow
from webhooks.models import WebhookDelivery as DeliveryRow
from webhooks.sending import Fault

WEBHOOK = {
    "id": 3,
    "uuid": "0b9d2f0e-4a52-4a0e-9d5c-2d4d8f7b1c12",
    "url": "https://hooks.example.com/vps",
    "events": ["*"],
    "is_active": True,
    "disabled_at": None,
    "created_at": "2025-01-10T14:30:00Z",
}
WITH_SECRET = WEBHOOK | {"secret": "whsec_1uYcYV7xJ1gVvTtKxq1rS0Q6m2n8b4eF3dZpLkHwA9I="}


@example("A webhook", WEBHOOK)
class Webhook(Answer):
    id: Id
    uuid: Uuid
    url: str
    events: Annotated[list[str], about("Names of events; `*` means all.")]
    is_active: bool
    disabled_at: Annotated[Moment | None, about("When we switched it off, after days without a success.")]
    created_at: Moment


@example("With its secret", WITH_SECRET)
class WebhookWithSecret(Webhook):
    secret: Annotated[
        str | None,
        about("Shown once. Null in an answer that is given again to the same `Idempotency-Key`."),
    ]


@example(
    "Tried twice",
    {
        "id": 17,
        "event_id": "5f0c1c53-8a0b-4f5e-9d7e-52b6a9a1c006",
        "event": "server.status_changed",
        "status": "pending",
        "attempts": 2,
        "response_status": 503,
        "error": "unsuccessful_status",
        "duration_ms": 84,
        "created_at": "2025-01-16T15:45:00Z",
        "due_at": "2025-01-16T15:46:12Z",
        "delivered_at": None,
    },
)
class WebhookDelivery(Answer):
    id: Id
    event_id: Annotated[Uuid, about("The `webhook-id` that every attempt carries.")]
    event: Annotated[str, words(Event)]
    status: Annotated[str, words(DeliveryRow.Status)]
    attempts: int
    response_status: Annotated[int | None, about("The HTTP status that the last attempt was answered with.")]
    error: Annotated[str, words(Fault, or_empty=True), about("Why the last attempt failed.")]
    duration_ms: int | None
    created_at: Moment
    due_at: Annotated[Moment | None, about("When the next attempt is due, while the delivery is pending.")]
    delivered_at: Moment | None


def webhook(row: WebhookRow) -> Webhook:
    return Webhook(
        id=row.pk,
        uuid=str(row.uuid),
        url=row.url,
        events=row.events,
        is_active=row.is_active,
        disabled_at=utc_or_none(row.disabled_at),
        created_at=utc(row.created_at),
    )


def webhook_with_secret(row: WebhookRow, secret: str) -> WebhookWithSecret:
    return WebhookWithSecret(**msgspec.structs.asdict(webhook(row)), secret=secret)


def delivery(row: DeliveryRow) -> WebhookDelivery:
    is_pending = row.status == DeliveryRow.Status.PENDING
    return WebhookDelivery(
        id=row.pk,
        event_id=str(row.event_id),
        event=row.event,
        status=row.status,
        attempts=row.attempts,
        response_status=row.response_status,
        error=row.error,
        duration_ms=row.duration_ms,
        created_at=utc(row.created_at),
        due_at=utc(row.due_at) if is_pending else None,
        delivered_at=utc_or_none(row.delivered_at),
    )
