"""Actions of the admin on chosen rows: asked first, at most 100 at once, and kept in each row's history."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from core.errors import Refusal

MOST = 100
# What is done to one row, given the admin of its model.
Deed = Callable[[Any, Any], object]
Action = Callable[[Any, HttpRequest, QuerySet[Any]], HttpResponse | None]


def action_on_each(
    label: str, *, permission: str, question: str | None, done: str
) -> Callable[[Deed], Action]:
    """Make a deed on one row an action on all that staff choose.

    Shows ``question`` with the number and the names of the rows, and acts when staff agree; without a
    question it acts at once.  ``done`` is told in the end, with the number put in for ``{count}``.  A row
    whose deed raises a Refusal is named with its sentence; the others are done.
    """

    def decorate(deed: Deed) -> Action:
        @admin.action(description=label, permissions=[permission])
        @wraps(deed)
        def act(self: Any, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
            rows = list(queryset[: MOST + 1])
            if len(rows) > MOST:
                self.message_user(
                    request, f"Nothing was done: choose at most {MOST} at once.", messages.ERROR
                )
                return None
            if question is not None and request.POST.get("agreed") != "yes":
                return _ask(self, request, label, question, rows)
            count = sum(_do(self, request, label, deed, row) for row in rows)
            if count:
                self.message_user(request, done.format(count=count))
            return None

        return act

    return decorate


def _ask(self: Any, request: HttpRequest, label: str, question: str, rows: list[Any]) -> HttpResponse:
    context = {
        **self.admin_site.each_context(request),
        "title": label,
        "question": question,
        "rows": rows,
        "opts": self.opts,
        "media": self.media,
        "action": request.POST["action"],
        "checkbox": ACTION_CHECKBOX_NAME,
    }
    return TemplateResponse(request, "admin/question.html", context)


def _do(self: Any, request: HttpRequest, label: str, deed: Deed, row: Any) -> bool:
    """Whether it was done.  It stands in the history if, and only if, it was."""
    try:
        with transaction.atomic():
            deed(self, row)
            self.log_change(request, row, label)
    except Refusal as refusal:
        self.message_user(request, f"{row}: {refusal.sentence}", messages.WARNING)
        return False
    return True
