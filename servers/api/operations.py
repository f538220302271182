"""The operations of a customer: their progress, and why they failed."""

import time
from typing import Any

from django.db.models import QuerySet
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from accounts.access.authentication import account_of
from core.api.references import named_by
from core.api.views import StrictView
from core.api.waiting import Seats
from core.errors import NotFound
from servers.api import answers
from servers.api.schema import of_operations
from servers.models import Operation
from servers.selectors import operations_of
from servers.states import OPEN_OPERATION

LONGEST_WAIT_S = 30
LOOK_EVERY_S = 0.25
# Half of an API process's threads at most wait; a request that finds no seat is answered at once.
SEATS = Seats(total=4, per_holder=2)


@of_operations
class OperationViewSet(StrictView, GenericViewSet[Operation]):
    """One operation.  ``?wait=30`` holds the answer until the operation has ended, for 30 seconds at most.

    When too many wait already, the answer comes at once, and its Retry-After says when to ask again.
    """

    resource = "servers"
    query_parameters = {"retrieve": frozenset({"wait"})}
    filter_backends: list[Any] = []
    lookup_url_kwarg = "operation_id"
    lookup_value_regex = "[^/]+"

    def get_queryset(self) -> QuerySet[Operation]:
        return operations_of(account_of(self.request))

    def get_object(self) -> Operation:
        operation = self.get_queryset().filter(named_by(self.kwargs["operation_id"])).first()
        if operation is None:
            raise NotFound("There is no such operation in this account.")
        self.check_object_permissions(self.request, operation)
        return operation

    def retrieve(self, request: Request, operation_id: str) -> Response:
        operation = self.get_object()
        seconds = _seconds(request)
        if seconds and operation.status in OPEN_OPERATION:
            with SEATS.taken(account_of(request).pk) as is_seated:
                if is_seated:
                    _wait(operation, seconds)
        headers = {"Retry-After": "2"} if operation.status in OPEN_OPERATION else {}
        return Response(answers.operation(operation), headers=headers)


def _wait(operation: Operation, seconds: int) -> None:
    give_up_at = time.monotonic() + seconds
    while operation.status in OPEN_OPERATION and time.monotonic() < give_up_at:
        time.sleep(LOOK_EVERY_S)
        operation.refresh_from_db()


def _seconds(request: Request) -> int:
    text = request.query_params.get("wait", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text) <= LONGEST_WAIT_S):
        raise ValidationError({"wait": [f"Should be a whole number of seconds, 0 to {LONGEST_WAIT_S}."]})
    return int(text)
