"""What the endpoints of credits answer, for the documentation; tests hold real answers against it."""

from typing import Any

from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    extend_schema,
    extend_schema_serializer,
    extend_schema_view,
)
from rest_framework import serializers

from billing.models import Payment
from servers.prices import BACKUPS, USAGE

KINDS = [
    Payment.Kind.SIGNUP,
    Payment.Kind.TOP_UP,
    USAGE,
    BACKUPS,
    Payment.Kind.REFUND,
    Payment.Kind.CORRECTION,
]
BALANCE = {
    "balance": 98.5,
    "spend_per_hour": 0.028,
    "runs_out_at": "2025-06-06T04:15:42Z",
    "below_zero_since": None,
    "suspends_at": None,
}
TRANSACTION = {
    "id": 1017,
    "kind": "usage",
    "amount": -0.14,
    "reason": "web-server-01: usage",
    "reference": "",
    "server_id": 12345,
    "hour": "2025-01-10T14:31:07Z",
    "created_at": "2025-01-10T14:32:00Z",
    "hours": 10,
}
A_SERVERS_COST = {
    "server_id": 12345,
    "price_hourly": 0.014,
    "price_monthly": 10.0,
    "backups_hourly": 0.0028,
    "backups_monthly": 2.0,
    "charged_from": "2025-01-10T14:31:07Z",
    "charged_until": "2025-01-10T16:31:07Z",
    "total": 0.0336,
    "months": [{"month": "2025-01", "hours": 2, "usage": 0.028, "backups": 0.0056, "total": 0.0336}],
}


@extend_schema_serializer(component_name="Balance", examples=[OpenApiExample("A balance", BALANCE)])
class BalanceAnswer(serializers.Serializer[Any]):
    balance = serializers.FloatField(help_text="Credits. Below zero you owe them.")
    spend_per_hour = serializers.FloatField(help_text="What all your servers cost for an hour, with backups.")
    runs_out_at = serializers.DateTimeField(
        allow_null=True, help_text="When it is used up at this rate; the limits of a month may make it later."
    )
    below_zero_since = serializers.DateTimeField(allow_null=True)
    suspends_at = serializers.DateTimeField(
        allow_null=True, help_text="When your servers are suspended unless you top up."
    )


@extend_schema_serializer(
    component_name="Transaction", examples=[OpenApiExample("The hours of a server on one day", TRANSACTION)]
)
class TransactionAnswer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    kind = serializers.ChoiceField(choices=[str(kind) for kind in KINDS])
    amount = serializers.FloatField(help_text="Positive adds credits.")
    reason = serializers.CharField(allow_blank=True)
    reference = serializers.CharField(allow_blank=True)
    server_id = serializers.IntegerField(allow_null=True)
    hour = serializers.DateTimeField(
        allow_null=True, help_text="Of usage: when the first of its hours began."
    )
    created_at = serializers.DateTimeField()
    hours = serializers.IntegerField(
        allow_null=True,
        help_text="Of usage: so many hours of the day (UTC) were charged. The line grows until the day ends.",
    )


class MonthOfUsage(serializers.Serializer[Any]):
    month = serializers.CharField(help_text="Of UTC, `2025-01`.")
    hours = serializers.IntegerField(help_text="So many were charged.")
    usage = serializers.FloatField(help_text="Credits for the server.")
    backups = serializers.FloatField(help_text="Credits for its backups.")
    total = serializers.FloatField()


@extend_schema_serializer(
    component_name="Usage", examples=[OpenApiExample("A server's cost", A_SERVERS_COST)]
)
class UsageAnswer(serializers.Serializer[Any]):
    server_id = serializers.IntegerField()
    price_hourly = serializers.FloatField(help_text="What it was sold at.")
    price_monthly = serializers.FloatField(help_text="The most for a calendar month.")
    backups_hourly = serializers.FloatField(help_text="0 without backups.")
    backups_monthly = serializers.FloatField()
    charged_from = serializers.DateTimeField(allow_null=True, help_text="When it was first active.")
    charged_until = serializers.DateTimeField(allow_null=True, help_text="When its next hour begins.")
    total = serializers.FloatField(help_text="All that it has cost.")
    months = MonthOfUsage(many=True)


of_balance = extend_schema_view(
    get=extend_schema(
        summary="Read the balance",
        description="Your credits, what your servers spend, and how long that lasts.",
        responses=BalanceAnswer,
    )
)
of_transactions = extend_schema_view(
    list=extend_schema(
        summary="List transactions",
        description="Every line of the account, newest first: payments, and a line a day for each server.",
        filters=False,  # said here: the filter set would want a database
        parameters=[
            OpenApiParameter(
                "server",
                {"type": "string", "maxLength": 36},
                description="Only lines of this server, by its id or uuid, deleted or not. Empty: all.",
            ),
            OpenApiParameter(
                "since", {"type": "string"}, description="Only from this day (UTC), `2025-01-10`."
            ),
            OpenApiParameter("until", {"type": "string"}, description="Only up to this day (UTC), included."),
        ],
        responses=TransactionAnswer(many=True),
    )
)
usage_of_server = extend_schema(
    summary="Read what a server costs",
    description="Its prices, and what it has cost in each calendar month, newest first.",
    responses=UsageAnswer,
)
