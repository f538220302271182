"""What staff see of credits, and the payments that they add."""

from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from billing import ledger
from billing.models import ArchivedUsage, DetachedMonth, Meter, Payment, Proof, Rate, Review, Usage
from core.admin import ReadOnlyAdmin

BY_HAND = {
    Payment.Kind.TOP_UP: ledger.top_up,
    Payment.Kind.REFUND: ledger.refund,
    Payment.Kind.CORRECTION: ledger.correct,
}


class PaymentByHand(forms.ModelForm[Payment]):
    def clean_amount(self) -> Decimal:
        amount: Decimal = self.cleaned_data["amount"]
        if not amount:
            raise ValidationError("Should not be 0.")
        return amount


@admin.register(Payment)
class PaymentAdmin(ReadOnlyAdmin[Payment]):
    """Staff add payments; none is ever changed."""

    form = PaymentByHand
    list_display = ["account", "kind", "amount", "reason", "reference", "made_by", "created_at"]
    list_filter = ["kind", "created_at"]
    list_select_related = ["account"]
    search_fields = ["account__email", "reason", "reference"]
    autocomplete_fields = ["account"]

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("billing.add_payment")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        by_hand = ["account", "kind", "amount", "reason", "reference"]
        return super().get_fields(request, obj) if obj else by_hand

    def formfield_for_choice_field(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "kind":
            kwargs["choices"] = [(kind.value, kind.label) for kind in BY_HAND]
        return super().formfield_for_choice_field(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: Payment, form: Any, change: bool) -> None:
        line = BY_HAND[Payment.Kind(obj.kind)](
            account=obj.account,
            amount=obj.amount,
            reason=obj.reason,
            reference=obj.reference,
            made_by=f"staff {request.user}",
        )
        obj.pk = line.pk


@admin.register(Usage)
class UsageAdmin(ReadOnlyAdmin[Usage]):
    list_display = [
        "id",
        "account",
        "day",
        "component",
        "subject_kind",
        "subject_id",
        "hours_charged",
        "amount",
    ]
    list_filter = ["day"]
    list_select_related = ["account"]
    search_fields = ["account__email", "reason", "=subject_id", "=id"]

    @admin.display(description="hours")
    def hours_charged(self, line: Usage) -> int:
        return line.hours.bit_count()


@admin.register(Meter)
class MeterAdmin(ReadOnlyAdmin[Meter]):
    list_display = [
        "account",
        "label",
        "subject_kind",
        "subject_id",
        "component",
        "state",
        "price_hourly",
        "price_monthly",
        "quantity",
        "due_at",
    ]
    list_filter = ["state", "due_at"]
    list_select_related = ["account"]
    search_fields = ["account__email", "label", "=subject_id"]


@admin.register(Rate)
class RateAdmin(ReadOnlyAdmin[Rate]):
    list_display = ["meter", "since", "price_hourly", "price_monthly", "quantity"]
    list_filter = ["since"]
    list_select_related = ["meter"]
    search_fields = ["meter__label", "=meter__subject_id", "meter__account__email"]


@admin.register(ArchivedUsage)
class ArchivedUsageAdmin(ReadOnlyAdmin[ArchivedUsage]):
    list_display = ["account", "meter", "month", "hours", "amount"]
    list_filter = ["month"]
    list_select_related = ["account", "meter"]
    search_fields = ["account__email", "=meter__subject_id"]


@admin.register(DetachedMonth)
class DetachedMonthAdmin(ReadOnlyAdmin[DetachedMonth]):
    list_display = ["month", "detached_at"]
    list_filter = ["detached_at"]
    search_fields = ["month"]


@admin.register(Proof)
class ProofAdmin(ReadOnlyAdmin[Proof]):
    list_display = ["account", "month", "proven_at"]
    list_filter = ["month"]
    list_select_related = ["account"]
    search_fields = ["account__email"]


@admin.register(Review)
class ReviewAdmin(ReadOnlyAdmin[Review]):
    list_display = ["account", "due_at"]
    list_filter = ["due_at"]
    list_select_related = ["account"]
    search_fields = ["account__email"]
