from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest

from accounts import ledger
from accounts.models import (
    Account,
    ApiToken,
    CreditEntry,
    IdempotentAnswer,
    SshKey,
    Webhook,
    WebhookDelivery,
)
from accounts.services import revoke_token
from accounts.webhooks.events import Event
from accounts.webhooks.sending import Fault
from accounts.webhooks.services import send_again
from vpsorg.admin_site import FilterByWord, ReadOnlyAdmin


@admin.register(Account)
class AccountAdmin(admin.ModelAdmin[Account]):
    list_display = ["email", "company_name", "balance", "below_zero_since", "is_active", "created_at"]
    list_filter = ["is_active", ("below_zero_since", admin.EmptyFieldListFilter), "created_at"]
    search_fields = ["email", "company_name", "first_name", "last_name"]
    readonly_fields = ["uuid", "created_at", "balance", "below_zero_since", "warned_at"]

    def save_model(self, request: HttpRequest, obj: Account, form: Any, change: bool) -> None:
        # Only what was changed: the balance may have moved since the page was opened.
        obj.save(update_fields=form.changed_data if change else None)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # an account is closed (is_active), its history stays


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnlyAdmin[ApiToken]):
    list_display = ["prefix", "name", "account", "permissions", "last_used_at", "expires_at", "revoked_at"]
    list_filter = ["revoked_at", "expires_at", "last_used_at"]
    list_select_related = ["account"]
    search_fields = ["prefix", "name", "account__email"]
    exclude = ["digest"]
    actions = ["revoke"]

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.change_apitoken")

    @admin.action(description="Revoke the chosen tokens", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        for token in queryset:
            revoke_token(token=token)
        self.message_user(request, "The chosen tokens are refused from now on.")


@admin.register(SshKey)
class SshKeyAdmin(ReadOnlyAdmin[SshKey]):
    list_display = ["name", "account", "fingerprint", "created_at"]
    list_filter = ["created_at"]
    list_select_related = ["account"]
    search_fields = ["name", "fingerprint", "account__email"]


@admin.register(IdempotentAnswer)
class IdempotentAnswerAdmin(ReadOnlyAdmin[IdempotentAnswer]):
    list_display = ["key", "account", "status", "created_at"]
    list_filter = ["created_at"]
    list_select_related = ["account"]
    search_fields = ["key", "account__email"]


BY_HAND = {
    CreditEntry.Kind.TOP_UP: ledger.top_up,
    CreditEntry.Kind.REFUND: ledger.refund,
    CreditEntry.Kind.CORRECTION: ledger.correct,
}


class LineByHand(forms.ModelForm[CreditEntry]):
    def clean_amount(self) -> Decimal:
        amount: Decimal = self.cleaned_data["amount"]
        if not amount:
            raise ValidationError("Should not be 0.")
        return amount


@admin.register(CreditEntry)
class CreditEntryAdmin(ReadOnlyAdmin[CreditEntry]):
    """Staff add lines; nobody changes one."""

    form = LineByHand
    list_display = ["account", "kind", "amount", "reason", "server_id", "hour", "made_by", "created_at"]
    list_filter = ["kind", "created_at"]
    list_select_related = ["account"]
    search_fields = ["account__email", "reason", "reference", "=server_id"]
    autocomplete_fields = ["account"]

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("accounts.add_creditentry")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        by_hand = ["account", "kind", "amount", "reason", "reference"]
        return super().get_fields(request, obj) if obj else by_hand

    def formfield_for_choice_field(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "kind":
            kwargs["choices"] = [(kind.value, kind.label) for kind in BY_HAND]
        return super().formfield_for_choice_field(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: CreditEntry, form: Any, change: bool) -> None:
        line = BY_HAND[CreditEntry.Kind(obj.kind)](
            account=obj.account,
            amount=obj.amount,
            reason=obj.reason,
            reference=obj.reference,
            made_by=f"staff {request.user}",
        )
        obj.pk = line.pk


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
        return request.user.has_perm("accounts.change_webhookdelivery")

    @admin.action(description="Send again what is over", permissions=["send"])
    def send_again(self, request: HttpRequest, queryset: QuerySet[WebhookDelivery]) -> None:
        for delivery in queryset:
            send_again(delivery=delivery)
        self.message_user(request, "What had been taken or given up is sent again.")
