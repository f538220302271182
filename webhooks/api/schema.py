"""Publishes the webhooks' endpoints."""

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view

from webhooks.api.answers import WEBHOOK, WITH_SECRET, Webhook, WebhookDelivery, WebhookWithSecret
from webhooks.api.serializers import NewWebhook, UpdateWebhook
from webhooks.events import ALL, SUBSCRIBABLE


class EventNameSchema(OpenApiSerializerFieldExtension):
    target_class = "webhooks.api.serializers.EventName"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        return {"type": "string", "enum": [ALL, *map(str, SUBSCRIBABLE)]}


NEW = {"url": "https://hooks.example.com/vps", "events": ["server.status_changed", "balance.low"]}

of_webhooks = extend_schema_view(
    list=extend_schema(summary="List webhooks", responses=Webhook),
    create=extend_schema(
        summary="Add a webhook",
        description="Messages are POSTed to the URL and signed by the scheme Standard Webhooks. "
        "The URL should lead over https to public addresses. Only this answer shows the secret.",
        request=NewWebhook,
        responses={201: WebhookWithSecret},
        examples=[
            OpenApiExample("A new webhook", NEW, request_only=True),
            OpenApiExample("New", WITH_SECRET, response_only=True, status_codes=["201"]),
        ],
    ),
    retrieve=extend_schema(summary="Read a webhook", responses=Webhook),
    partial_update=extend_schema(
        summary="Change a webhook",
        description="Any of the three fields. Switching a webhook off drops its pending messages.",
        request=UpdateWebhook,
        responses=Webhook,
        examples=[
            OpenApiExample("Off", {"is_active": False}, request_only=True),
            OpenApiExample("A webhook", WEBHOOK, response_only=True),
        ],
    ),
    destroy=extend_schema(
        summary="Delete a webhook",
        description="The log of its deliveries is deleted, too.",
        responses={204: None},
    ),
    rotate_secret=extend_schema(
        summary="Replace a webhook's secret",
        description="The old secret is no longer used. Only this answer shows the new one.",
        request=None,
        responses=WebhookWithSecret,
    ),
    test=extend_schema(
        summary="Test a webhook",
        description="Sends a `ping`, once. The webhook's deliveries show the result.",
        request=None,
        responses={201: WebhookDelivery},
    ),
    deliveries=extend_schema(
        summary="List a webhook's deliveries",
        description="Newest first, of the last 30 days.",
        filters=False,
        responses=WebhookDelivery,
    ),
)
