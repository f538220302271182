from django.contrib import admin
from django.http import HttpRequest

from core.admin import FilterByWord, ReadOnlyAdmin
from core.admin_actions import action_on_each
from webhooks.events import Event
from webhooks.models import Webhook, WebhookDelivery
from webhooks.sending import Fault
from webhooks.services import send_again


@admin.register(Webhook)
class WebhookAdmin(ReadOnlyAdmin[Webhook]):
    list_display = ["id", "url", "account", "events", "is_active", "disabled_at", "created_at"]
    list_filter = ["is_active", "disabled_at", "created_at"]
    list_select_related = ["account"]
    search_fields = ["url", "uuid", "account__email"]
    exclude = ["sealed_secret"]


class FilterByEvent(FilterByWord):
    title = parameter_name = "event"
    words = Event


class FilterByFault(FilterByWord):
    title = parameter_name = "error"
    words = Fault


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnlyAdmin[WebhookDelivery]):
    list_display = [
        "id",
        "event",
        "webhook",
        "status",
        "attempts",
        "response_status",
        "error",
        "duration_ms",
        "created_at",
        "due_at",
        "delivered_at",
    ]
    list_filter = ["status", FilterByEvent, FilterByFault, "created_at"]
    list_select_related = ["webhook"]
    search_fields = ["webhook__url", "webhook__account__email", "event_id"]
    actions = ["send_again"]

    def has_send_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("webhooks.change_webhookdelivery")

    @action_on_each(
        "Send again what is over",
        permission="send",
        question="Send these messages again, where they were taken or given up?",
        done="{count} messages: those that had been taken or given up are sent again.",
    )
    def send_again(self, delivery: WebhookDelivery) -> None:
        send_again(delivery=delivery)
