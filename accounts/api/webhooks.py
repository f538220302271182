"""An account's webhooks and what was sent to them."""

from functools import cached_property
from typing import Any

from django.db.models import QuerySet
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from accounts.api.serializers import NewWebhook, UpdateWebhook
from accounts.api.webhooks_schema import of_webhooks
from accounts.authentication import account_of
from accounts.idempotency import IdempotentPosts
from accounts.models import Webhook, WebhookDelivery
from accounts.webhooks import services
from vpsorg.api.references import named_by
from vpsorg.api.times import utc
from vpsorg.errors import NotFound


@of_webhooks
class WebhookViewSet(IdempotentPosts, GenericViewSet[Webhook]):
    resource = "webhooks"
    filter_backends: list[Any] = []
    lookup_url_kwarg = "webhook_id"
    lookup_value_regex = "[^/]+"

    def get_queryset(self) -> QuerySet[Webhook]:
        return Webhook.objects.filter(account=account_of(self.request))

    def get_object(self) -> Webhook:
        webhook = self.get_queryset().filter(named_by(self.kwargs["webhook_id"])).first()
        if webhook is None:
            raise NotFound("There is no such webhook in this account.")
        self.check_object_permissions(self.request, webhook)
        return webhook

    @cached_property
    def webhook(self) -> Webhook:
        return self.get_object()

    def list(self, request: Request) -> Response:
        webhooks = self.paginate_queryset(self.get_queryset()) or []
        return self.get_paginated_response([_representation(webhook) for webhook in webhooks])

    def create(self, request: Request) -> Response:
        asked = NewWebhook(data=request.data)
        asked.is_valid(raise_exception=True)
        webhook, secret = services.create_webhook(account=account_of(request), **asked.validated_data)
        return Response(_with_secret(webhook, secret), status=status.HTTP_201_CREATED)

    def retrieve(self, request: Request, webhook_id: str) -> Response:
        return Response(_representation(self.webhook))

    def partial_update(self, request: Request, webhook_id: str) -> Response:
        webhook = self.webhook
        asked = UpdateWebhook(data=request.data, partial=True)
        asked.is_valid(raise_exception=True)
        services.update_webhook(webhook=webhook, **asked.validated_data)
        return Response(_representation(webhook))

    def destroy(self, request: Request, webhook_id: str) -> Response:
        services.delete_webhook(webhook=self.webhook)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @action(detail=True, methods=["post"], url_path="rotate-secret")
    def rotate_secret(self, request: Request, webhook_id: str) -> Response:
        secret = services.rotate_secret(webhook=self.webhook)
        return Response(_with_secret(self.webhook, secret))

    @action(detail=True, methods=["post"])
    def test(self, request: Request, webhook_id: str) -> Response:
        delivery = services.send_ping(webhook=self.webhook)
        return Response(_delivery(delivery), status=status.HTTP_201_CREATED)

    @action(detail=True, methods=["get"])
    def deliveries(self, request: Request, webhook_id: str) -> Response:
        sent: Any = self.webhook.deliveries.order_by("-pk").defer("body")
        page: list[Any] = self.paginate_queryset(sent) or []
        return self.get_paginated_response([_delivery(delivery) for delivery in page])


def _representation(webhook: Webhook) -> dict[str, Any]:
    return {
        "id": webhook.pk,
        "uuid": str(webhook.uuid),
        "url": webhook.url,
        "events": webhook.events,
        "is_active": webhook.is_active,
        "disabled_at": webhook.disabled_at and utc(webhook.disabled_at),
        "created_at": utc(webhook.created_at),
    }


def _with_secret(webhook: Webhook, secret: str) -> dict[str, Any]:
    return _representation(webhook) | {"secret": secret}


def _delivery(delivery: WebhookDelivery) -> dict[str, Any]:
    is_pending = delivery.status == WebhookDelivery.Status.PENDING
    return {
        "id": delivery.pk,
        "event_id": str(delivery.event_id),
        "event": delivery.event,
        "status": delivery.status,
        "attempts": delivery.attempts,
        "response_status": delivery.response_status,
        "error": delivery.error,
        "duration_ms": delivery.duration_ms,
        "created_at": utc(delivery.created_at),
        "due_at": utc(delivery.due_at) if is_pending else None,
        "delivered_at": delivery.delivered_at and utc(delivery.delivered_at),
    }
