"""The one place where errors become answers.

One error: ``{"detail": "a sentence", "code": "stable_word"}``.  A body that does
not validate: ``{"field": ["a sentence", ...]}``.  A refusal that concerns one
field has all three keys.
"""

import logging
from collections.abc import Iterator
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, JsonResponse
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.response import Response
from rest_framework.views import set_rollback

from core.database import is_unavailable
from core.errors import Refusal

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
        return Response(_by_field(error.detail), status=400)
    if isinstance(error, APIException):
        body = {"detail": str(error.detail), "code": str(getattr(error.detail, "code", error.default_code))}
        return Response(body, status=error.status_code)
    if is_unavailable(error):
        log.exception("Postgres could not answer now")
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


def _by_field(detail: Any) -> dict[str, list[str]]:
    """The contract's shape: a list of sentences for each field.  A fault in a list names the item."""
    told = detail if isinstance(detail, dict) else {"non_field_errors": detail}
    return {str(field): list(_sentences(inner)) for field, inner in told.items()}


def _sentences(detail: Any) -> Iterator[str]:
    if isinstance(detail, dict):
        for number, inner in detail.items():
            yield from (f"Item {number}: {sentence}" for sentence in _sentences(inner))
    elif isinstance(detail, list):
        for inner in detail:
            yield from _sentences(inner)
    else:
        yield str(detail)


def _answer(status: int, code: str, sentence: str) -> JsonResponse:
    return JsonResponse({"detail": sentence, "code": code}, status=status)
