"""The endpoints of an account's webhooks and their deliveries."""

from functools import cached_property
from typing import Any

from django.db.models import QuerySet
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from accounts.access.authentication import account_of
from accounts.access.idempotency import IdempotentPosts, require_made
from core.api.fields import NoFields, ignored_fields
from core.api.references import named_by
from core.errors import NotFound
from webhooks import services
from webhooks.api import answers
from webhooks.api.schema import of_webhooks
from webhooks.api.serializers import NewWebhook, UpdateWebhook
from webhooks.models import Webhook


@of_webhooks
class WebhookViewSet(IdempotentPosts, GenericViewSet[Webhook]):
    resource = "webhooks"
    list_actions = ("deliveries",)
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
        return self.get_paginated_response([answers.webhook(webhook) for webhook in webhooks])

    @cached_property
    def asked(self) -> NewWebhook:
        asked = NewWebhook(data=self.request.data)
        asked.is_valid(raise_exception=True)
        return asked

    def prepare(self, request: Request) -> None:
        if self.action == "create":
            self.check_object_permissions(request, None)
            services.require_permitted(account=account_of(request), url=self.asked.validated_data["url"])

    def require_still_true(self, answer: dict[str, Any]) -> None:
        if self.action == "create":
            require_made(self.get_queryset(), answer, "webhook")

    def create(self, request: Request) -> Response:
        webhook, secret = services.create_webhook(account=account_of(request), **self.asked.validated_data)
        answer = answers.webhook_with_secret(webhook, secret)
        return Response(answer, status=status.HTTP_201_CREATED, headers=ignored_fields(self.asked))

    def retrieve(self, request: Request, webhook_id: str) -> Response:
        return Response(answers.webhook(self.webhook))

    def partial_update(self, request: Request, webhook_id: str) -> Response:
        webhook = self.webhook
        asked = UpdateWebhook(data=request.data, partial=True)
        asked.is_valid(raise_exception=True)
        services.update_webhook(webhook=webhook, **asked.validated_data)
        return Response(answers.webhook(webhook))

    def destroy(self, request: Request, webhook_id: str) -> Response:
        services.delete_webhook(webhook=self.webhook)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @action(detail=True, methods=["post"], url_path="rotate-secret")
    def rotate_secret(self, request: Request, webhook_id: str) -> Response:
        webhook = self.webhook  # whether it is there comes first
        NoFields(data=request.data).is_valid(raise_exception=True)
        secret = services.rotate_secret(webhook=webhook)
        return Response(answers.webhook_with_secret(webhook, secret))

    @action(detail=True, methods=["post"])
    def test(self, request: Request, webhook_id: str) -> Response:
        webhook = self.webhook
        NoFields(data=request.data).is_valid(raise_exception=True)
        delivery = services.send_ping(webhook=webhook)
        return Response(answers.delivery(delivery), status=status.HTTP_201_CREATED)

    @action(detail=True, methods=["get"])
    def deliveries(self, request: Request, webhook_id: str) -> Response:
        sent: Any = self.webhook.deliveries.order_by("-pk").defer("body")
        page: list[Any] = self.paginate_queryset(sent) or []
        return self.get_paginated_response([answers.delivery(delivery) for delivery in page])
