"""What a customer may see of operations: receipts, with how far they got and why they failed."""

import time
from typing import Any

from django.db.models import QuerySet
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from accounts.authentication import account_of
from servers.api.schema import of_operations
from servers.models import Operation
from servers.selectors import operations_of
from servers.states import OPEN_OPERATION
from vpsorg.api.references import named_by
from vpsorg.api.times import utc
from vpsorg.errors import NotFound

LONGEST_WAIT_S = 30
LOOK_EVERY_S = 0.25


@of_operations
class OperationViewSet(GenericViewSet[Operation]):
    """One operation.  ``?wait=30`` holds the answer until it has ended, so many seconds at most."""

    resource = "servers"
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
        give_up_at = time.monotonic() + _seconds(request)
        while operation.status in OPEN_OPERATION and time.monotonic() < give_up_at:
            time.sleep(LOOK_EVERY_S)
            operation.refresh_from_db()
        headers = {"Retry-After": "2"} if operation.status in OPEN_OPERATION else {}
        return Response(representation(operation), headers=headers)


def representation(operation: Operation) -> dict[str, Any]:
    error = {"code": operation.error_code, "message": operation.message} if operation.error_code else None
    return {
        "id": operation.pk,
        "uuid": str(operation.uuid),
        "server_id": operation.server_id,
        "kind": operation.kind,
        "status": operation.status,
        "step": operation.step,
        "progress": operation.progress,
        "message": "" if error else operation.message,
        "error": error,
        "created_at": utc(operation.created_at),
        "started_at": operation.started_at and utc(operation.started_at),
        "finished_at": operation.finished_at and utc(operation.finished_at),
    }


def _seconds(request: Request) -> int:
    text = request.query_params.get("wait", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text) <= LONGEST_WAIT_S):
        raise ValidationError({"wait": [f"Should be a whole number of seconds, 0 to {LONGEST_WAIT_S}."]})
    return int(text)
