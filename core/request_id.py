"""The request id: one id in the answer, in the API's log and in the workers' logs.

``X-Request-ID`` is taken from the request if it is valid, else generated.  Messages to
workers carry it as a header, so that a customer's id finds the whole story.
"""

import logging
import re
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from uuid import uuid4

from celery.signals import before_task_publish, task_postrun, task_prerun
from django.core.signals import request_finished
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse

SOUND = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
HEADER = "request_id"
current: ContextVar[str] = ContextVar("request_id", default="-")


class RequestIdMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-ID", "")
        current.set(given if SOUND.fullmatch(given) else str(uuid4()))
        response = self.get_response(request)
        response["X-Request-ID"] = current.get()
        return response


class RequestIdFilter(logging.Filter):
    """Gives every line of the log its ``request_id``; ``-`` where there is none."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = current.get()
        return True


@before_task_publish.connect
def _send_along(headers: dict[str, Any], **kwargs: Any) -> None:
    headers[HEADER] = current.get()


@task_prerun.connect
def _take_over(task: Any, **kwargs: Any) -> None:
    current.set(getattr(task.request, HEADER, None) or "-")


# Not at the end of the middleware: Django logs a refusal (4xx) after it.
@receiver(request_finished)
@task_postrun.connect
def _forget(**kwargs: Any) -> None:
    current.set("-")
