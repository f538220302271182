"""What the webhooks' endpoints are asked and answer; tests hold real answers against it."""

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer, extend_schema_view
from rest_framework import serializers

from accounts.api.serializers import NewWebhook, UpdateWebhook
from accounts.models import WebhookDelivery
from accounts.webhooks.events import ALL, SUBSCRIBABLE, Event
from accounts.webhooks.sending import Fault


class EventNameSchema(OpenApiSerializerFieldExtension):
    target_class = "accounts.api.serializers.EventName"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        return {"type": "string", "enum": [ALL, *map(str, SUBSCRIBABLE)]}


class _Webhook(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    uuid = serializers.UUIDField()
    url = serializers.CharField()
    events = serializers.ListField(child=serializers.CharField(), help_text="`*`: all.")
    is_active = serializers.BooleanField()
    disabled_at = serializers.DateTimeField(
        allow_null=True, help_text="When we switched it off, after days in which it took nothing."
    )
    created_at = serializers.DateTimeField()


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
DELIVERY = {
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
}


@extend_schema_serializer(component_name="Webhook", examples=[OpenApiExample("A webhook", WEBHOOK)])
class WebhookAnswer(_Webhook):
    pass


@extend_schema_serializer(component_name="WebhookWithSecret", examples=[OpenApiExample("New", WITH_SECRET)])
class WebhookWithSecretAnswer(_Webhook):
    secret = serializers.CharField(
        allow_null=True,
        help_text="Shown this once. Null in an answer that is given again to the same `Idempotency-Key`.",
    )


@extend_schema_serializer(component_name="WebhookDelivery", examples=[OpenApiExample("Tried", DELIVERY)])
class DeliveryAnswer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    event_id = serializers.UUIDField(help_text="The `webhook-id` that every attempt carries.")
    event = serializers.ChoiceField(choices=[str(event) for event in Event])
    status = serializers.ChoiceField(choices=[str(status) for status in WebhookDelivery.Status])
    attempts = serializers.IntegerField()
    response_status = serializers.IntegerField(
        allow_null=True, help_text="What the last attempt was answered."
    )
    error = serializers.ChoiceField(
        choices=["", *(str(fault) for fault in Fault)], help_text="Why the last attempt came to nothing."
    )
    duration_ms = serializers.IntegerField(allow_null=True)
    created_at = serializers.DateTimeField()
    due_at = serializers.DateTimeField(allow_null=True, help_text="The next attempt, while it is pending.")
    delivered_at = serializers.DateTimeField(allow_null=True)


NEW = {"url": "https://hooks.example.com/vps", "events": ["server.status_changed", "balance.low"]}

of_webhooks = extend_schema_view(
    list=extend_schema(summary="List webhooks", responses=WebhookAnswer(many=True)),
    create=extend_schema(
        summary="Add a webhook",
        description="Messages are POSTed to its URL, signed by the scheme Standard Webhooks. The URL leads "
        "over https to public addresses. The secret is shown in this answer only.",
        request=NewWebhook,
        responses={201: WebhookWithSecretAnswer},
        examples=[
            OpenApiExample("A new webhook", NEW, request_only=True),
            OpenApiExample("New", WITH_SECRET, response_only=True, status_codes=["201"]),
        ],
    ),
    retrieve=extend_schema(summary="Read a webhook", responses=WebhookAnswer),
    partial_update=extend_schema(
        summary="Change a webhook",
        description="Any of the three fields. Switched off, what waits to be sent is given up.",
        request=UpdateWebhook,
        responses=WebhookAnswer,
        examples=[
            OpenApiExample("Off", {"is_active": False}, request_only=True),
            OpenApiExample("A webhook", WEBHOOK, response_only=True),
        ],
    ),
    destroy=extend_schema(
        summary="Delete a webhook", description="With the log of its deliveries.", responses={204: None}
    ),
    rotate_secret=extend_schema(
        summary="Replace a webhook's secret",
        description="The old one signs nothing from now on. The new one is shown in this answer only.",
        request=None,
        responses=WebhookWithSecretAnswer,
    ),
    test=extend_schema(
        summary="Test a webhook",
        description="Sends a `ping`, once. Its deliveries say how it went.",
        request=None,
        responses={201: DeliveryAnswer},
    ),
    deliveries=extend_schema(
        summary="List what was sent to a webhook",
        description="Newest first, of the last 30 days.",
        filters=False,
        responses=DeliveryAnswer(many=True),
    ),
)
