"""The one place where errors become answers.

One error: ``{"detail": "a sentence", "code": "stable_word"}``.  A body that does
not validate: ``{"field": ["a sentence", ...]}``.  A refusal that concerns one
field has all three keys.
"""

import logging
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.db import OperationalError
from django.http import HttpRequest, JsonResponse
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.response import Response
from rest_framework.views import set_rollback

from vpsorg.errors import Refusal

log = logging.getLogger(__name__)


def render(error: Exception, context: dict[str, Any]) -> Response | None:
    """Django REST framework's EXCEPTION_HANDLER.  None (a bug) becomes a logged 500."""
    set_rollback()
    if isinstance(error, Refusal):
        body: dict[str, Any] = {"detail": error.sentence, "code": error.code, **error.facts}
        if error.field:
            body[error.field] = [error.sentence]
        return Response(body, status=error.status, headers=dict(error.headers))
    if isinstance(error, ValidationError):
        return Response(_told(error.detail), status=400)
    if isinstance(error, APIException):
        body = {"detail": str(error.detail), "code": str(getattr(error.detail, "code", error.default_code))}
        return Response(body, status=error.status_code)
    if isinstance(error, OperationalError):
        log.exception("the database did not answer")
        body = {"detail": "The service is not available at the moment.", "code": "unavailable"}
        return Response(body, status=503, headers={"Retry-After": "5"})
    return None


def bad_request(request: HttpRequest, exception: Exception) -> JsonResponse:
    if isinstance(exception, RequestDataTooBig):
        return _answer(400, "body_too_large", "The body is too large.")
    return _answer(400, "bad_request", "The request is malformed: check its Host header and its encoding.")


def forbidden(request: HttpRequest, exception: Exception) -> JsonResponse:
    return _answer(403, "permission_denied", "You may not do this.")


def not_found(request: HttpRequest, exception: Exception) -> JsonResponse:
    hint = "" if request.path.endswith("/") else " Every path of this API ends in a slash."
    return _answer(404, "not_found", f"There is nothing at this path.{hint}")


def server_error(request: HttpRequest) -> JsonResponse:
    return _answer(500, "internal", "Something went wrong on our side. It has been logged.")


def _told(complaint: Any) -> Any:
    """What is wrong with the items of a list stands under their numbers, and JSON's keys are texts."""
    if isinstance(complaint, dict):
        return {str(about): _told(inner) for about, inner in complaint.items()}
    return complaint


def _answer(status: int, code: str, sentence: str) -> JsonResponse:
    return JsonResponse({"detail": sentence, "code": code}, status=status)
