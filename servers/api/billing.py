"""What a customer may see of credits: the balance, the ledger's lines, and what one server has cost."""

from typing import Any

import django_filters
from django.core.exceptions import ValidationError
from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import TruncMonth
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet

from accounts.authentication import account_of
from accounts.models import CreditEntry
from servers.api.billing_schema import of_balance, of_transactions
from servers.credits import runs_out_at, spend_per_hour, suspends_at
from servers.models import Meter, Server
from vpsorg import clock
from vpsorg.api.references import key_of, named_by
from vpsorg.api.times import utc


@of_balance
class BalanceView(APIView):
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
    server = django_filters.CharFilter(method="of_server", validators=[_require_reference])
    since = django_filters.DateFilter(field_name="created_at", lookup_expr="date__gte")
    until = django_filters.DateFilter(field_name="created_at", lookup_expr="date__lte")

    class Meta:
        model = CreditEntry
        fields: list[Any] = []

    def of_server(self, lines: QuerySet[CreditEntry], name: str, reference: str) -> QuerySet[CreditEntry]:
        """Also of one that is deleted: its lines stay.  The lines are one's own, whatever it names."""
        named = Server.objects.filter(named_by(reference))
        return lines.filter(server_id__in=named.values("pk"))


@of_transactions
class TransactionViewSet(GenericViewSet[CreditEntry]):
    """The lines of the account's ledger, newest first."""

    resource = "billing"
    filter_backends = [DjangoFilterBackend]
    filterset_class = TransactionFilter

    def get_queryset(self) -> QuerySet[CreditEntry]:
        return CreditEntry.objects.filter(account=account_of(self.request)).order_by("-pk")

    def list(self, request: Request) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        return self.get_paginated_response([_line(entry) for entry in page])


def _line(entry: CreditEntry) -> dict[str, Any]:
    return {
        "id": entry.pk,
        "kind": entry.kind,
        "amount": entry.amount,
        "reason": entry.reason,
        "reference": entry.reference,
        "server_id": entry.server_id,
        "hour": entry.hour and utc(entry.hour),
        "created_at": utc(entry.created_at),
    }


def usage_of(server: Server) -> dict[str, Any]:
    """What a server costs, and what it has cost in each month, the newest first."""
    meter = Meter.objects.filter(server=server).first()
    months = _months(server)
    return {
        "server_id": server.pk,
        **server.price._asdict(),
        "charged_from": meter and utc(meter.began_at),
        "charged_until": meter and meter.next_at and utc(meter.next_at),
        "total": sum(month["total"] for month in months),
        "months": months,
    }


def _months(server: Server) -> list[dict[str, Any]]:
    kinds = CreditEntry.Kind
    hours = CreditEntry.objects.filter(account=server.account_id, server_id=server.pk, hour__isnull=False)
    sums = hours.values(month=TruncMonth("hour")).annotate(
        hours=Count("pk", filter=Q(kind=kinds.USAGE)),
        usage=-Sum("amount", filter=Q(kind=kinds.USAGE), default=0),
        backups=-Sum("amount", filter=Q(kind=kinds.BACKUPS), default=0),
        total=-Sum("amount"),
    )
    return [{**month, "month": f"{month['month']:%Y-%m}"} for month in sums.order_by("-month")]
