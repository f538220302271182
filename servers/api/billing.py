"""What a customer may see of credits: the balance, the ledger's lines, and what one server has cost."""

from decimal import Decimal
from typing import Any

import django_filters
from django.core.exceptions import ValidationError
from django_filters.utils import translate_validation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from accounts.access.authentication import account_of
from billing import totals
from billing.lines import LineRow, Lines
from billing.models import Meter, Payment
from billing.prices import FREE
from billing.runway import runs_out_at, spend_per_hour, suspends_at
from core import clock
from core.api.answers import utc
from core.api.references import key_of, named_by
from core.api.views import StrictView
from servers.api.billing_schema import of_balance, of_transactions
from servers.models import Server
from servers.prices import BACKUPS, SUBJECT, USAGE


@of_balance
class BalanceView(StrictView):
    resource = "billing"

    def get(self, request: Request) -> Response:
        account = account_of(request)
        per_hour = spend_per_hour(account)
        out_at = runs_out_at(account.balance, per_hour, clock.now())
        due_at = suspends_at(account)
        return Response(
            {
                "balance": account.balance,
                "spend_per_hour": per_hour,
                "runs_out_at": out_at and utc(out_at),
                "below_zero_since": account.below_zero_since and utc(account.below_zero_since),
                "suspends_at": due_at and utc(due_at),
            }
        )


def _require_reference(text: str) -> None:
    if key_of(text) is None:
        raise ValidationError("Should be a server's id or its uuid.")


class TransactionFilter(django_filters.FilterSet):  # type: ignore[misc]
    """The filters of a list that is no queryset: they are checked here, and applied by the view."""

    server = django_filters.CharFilter(validators=[_require_reference])
    since = django_filters.DateFilter()
    until = django_filters.DateFilter()

    class Meta:
        model = Payment
        fields: list[Any] = []


@of_transactions
class TransactionViewSet(StrictView, GenericViewSet[Payment]):
    """The lines of the account's ledger, newest first."""

    resource = "billing"
    query_parameters = {"list": frozenset({"server", "since", "until"})}
    queryset = Payment.objects.none()  # for the documentation
    filter_backends = []

    def list(self, request: Request) -> Response:
        lines: Any = self._asked(request)
        page = self.paginate_queryset(lines) or []
        return self.get_paginated_response([_line(row) for row in page])

    def _asked(self, request: Request) -> Lines:
        lines = Lines(account_of(request).pk)
        asked = TransactionFilter(request.query_params, request=request)
        if not asked.is_valid():
            raise translate_validation(asked.errors)
        words = asked.form.cleaned_data
        if words["server"]:
            # Also one that is deleted: its lines stay.  The lines are the account's own, whatever it names.
            named = Server.objects.filter(named_by(words["server"]))
            lines = lines.of_subjects(SUBJECT, list(named.values_list("pk", flat=True)))
        return lines.between(words["since"], words["until"])


def _line(row: LineRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "kind": row.kind,
        "amount": row.amount,
        "reason": row.reason,
        "reference": row.reference,
        "server_id": row.subject_id if row.subject_kind == SUBJECT else None,
        "hour": row.hour and utc(row.hour),
        "created_at": utc(row.created_at),
        "hours": row.hours,
    }


def usage_of(server: Server) -> dict[str, Any]:
    """What a server costs, and what it has cost in each month, the newest first."""
    metered = list(Meter.objects.filter(subject_kind=SUBJECT, subject_id=server.pk))
    prices = {meter.component: meter.price for meter in metered}
    usage, backups = prices.get(USAGE, FREE), prices.get(BACKUPS, FREE)
    began_at, next_at = totals.charged_between(metered)
    months = _months(server, metered)
    return {
        "server_id": server.pk,
        "price_hourly": usage.hourly,
        "price_monthly": usage.monthly,
        "backups_hourly": backups.hourly,
        "backups_monthly": backups.monthly,
        "charged_from": began_at and utc(began_at),
        "charged_until": next_at and utc(next_at),
        "total": sum(month["total"] for month in months),
        "months": months,
    }


def _months(server: Server, metered: list[Meter]) -> list[dict[str, Any]]:
    months: dict[str, dict[str, Any]] = {}
    for told in totals.months_of(server.account_id, metered):
        nothing = {
            "month": told.month,
            "hours": 0,
            USAGE: Decimal(0),
            BACKUPS: Decimal(0),
            "total": Decimal(0),
        }
        month = months.setdefault(told.month, nothing)
        month[told.component] = told.amount
        month["total"] += told.amount
        if told.component == USAGE:
            month["hours"] = told.hours
    return list(months.values())
