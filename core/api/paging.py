"""Paging as the contract has it.

Without paging parameters: ``{count, results}`` and nothing else, at most 100
rows, and an RFC 8288 ``Link`` header when there are more.  With ``page``,
``page_size`` or ``cursor``: ``next`` and ``previous`` stand in the body too.

Links carry a cursor: a client that follows them meets each row that exists all the
while exactly once, whatever is made or deleted meanwhile.  A page's number
counts the rows that there are at that moment.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any
from urllib.parse import urlencode

from django.db.models import QuerySet
from rest_framework.exceptions import ValidationError
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from core.api.references import MAX_ID
from core.api.windows import END, Window, Windowed, WindowedQuerySet

MAX_PAGE_SIZE = 100
DEFAULT_PAGE_SIZE = 20
MAX_PAGE = 1_000_000_000
MAX_CURSOR = 40  # characters


class ContractPagination(BasePagination):
    PARAMETERS = frozenset({"page", "page_size", "cursor"})

    def paginate_queryset(self, queryset: Any, request: Request, view: APIView | None = None) -> list[Any]:
        listed: Windowed = WindowedQuerySet(queryset) if isinstance(queryset, QuerySet) else queryset
        self.request = request
        self.asked = not self.PARAMETERS.isdisjoint(request.query_params)
        page = _whole_number(request, "page", 1, MAX_PAGE)
        default = DEFAULT_PAGE_SIZE if self.asked else MAX_PAGE_SIZE
        self.size = _whole_number(request, "page_size", default, MAX_PAGE_SIZE)
        window = _window(request, page, self.size)
        rows = listed.rows(window)
        more, rows = len(rows) > self.size, rows[: self.size]
        if window.before is not None:
            rows.reverse()
            self.following = _cursor("a", rows[-1].id) if rows and window.before != END else None
            self.preceding = _cursor("b", rows[0].id) if more else None
        else:
            self.following = _cursor("a", rows[-1].id) if more else None
            is_first = page == 1 and window.after is None
            self.preceding = None if is_first else _cursor("b", rows[0].id if rows else END)
        # The last page of those by number tells the count by itself; one past the end does not.
        told = not more and "cursor" not in request.query_params and (rows or page == 1)
        self.count = window.offset + len(rows) if told else listed.count()
        return rows

    def get_paginated_response(self, data: Any) -> Response:
        following, preceding = self._url(self.following), self._url(self.preceding)
        links = [f'<{url}>; rel="{rel}"' for rel, url in (("next", following), ("prev", preceding)) if url]
        body: dict[str, Any] = {"count": self.count}
        if self.asked:
            body |= {"next": following, "previous": preceding}
        return Response(body | {"results": data}, headers={"Link": ", ".join(links)} if links else {})

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        size = f"Rows of a page; {DEFAULT_PAGE_SIZE} if you ask for pages."
        cursor = "Where a page begins. Take it from a `next` or a `previous`."
        text = {"type": "string", "minLength": 1, "maxLength": MAX_CURSOR}
        return [
            {"name": name, "in": "query", "description": description, "schema": schema}
            for name, description, schema in (
                ("page", "Which page, from 1. To read a whole list, follow `next`.", _numbers_to(MAX_PAGE)),
                ("page_size", size, _numbers_to(MAX_PAGE_SIZE)),
                ("cursor", cursor, text),
            )
        ]

    def get_paginated_response_schema(self, schema: Any) -> dict[str, Any]:
        page = {"type": ["string", "null"], "format": "uri", "description": "Only if pages were asked for."}
        return {
            "type": "object",
            "properties": {
                "count": {"type": "integer", "minimum": 0, "example": 1},
                "next": page | {"example": None},
                "previous": page | {"example": None},
                "results": schema,
            },
            "required": ["count", "results"],
        }

    def _url(self, cursor: str | None) -> str | None:
        """Where the page of a cursor is: the same path and filters."""
        if cursor is None:
            return None
        asked = self.request.query_params.lists()
        filters = [(name, values) for name, values in asked if name not in self.PARAMETERS]
        query = urlencode([*filters, ("page_size", self.size), ("cursor", cursor)], doseq=True)
        return self.request.build_absolute_uri(f"{self.request.path}?{query}")


def _window(request: Request, page: int, size: int) -> Window:
    """What to read: one row more than the page has, which tells whether there is another page."""
    text = request.query_params.get("cursor")
    if text is None:
        return Window(size + 1, offset=(page - 1) * size)
    if "page" in request.query_params:
        raise ValidationError({"cursor": ["Should not be given together with page."]})
    side, key = _place(text)
    return Window(size + 1, after=key) if side == "a" else Window(size + 1, before=key)


def _cursor(side: str, key: int) -> str:
    """The place after (a) or before (b) the row with this id."""
    return urlsafe_b64encode(f"{side}{key}".encode()).decode().rstrip("=")


def _place(cursor: str) -> tuple[str, int]:
    try:
        text = urlsafe_b64decode(cursor[:MAX_CURSOR] + "=" * (-len(cursor) % 4)).decode()
        side, key = text[:1], int(text[1:])
    except ValueError:
        side, key = "", END
    least = 1 if side == "a" else END
    if side not in {"a", "b"} or not least <= key <= MAX_ID or _cursor(side, key) != cursor:
        raise ValidationError({"cursor": ["Should be taken from a next or a previous of this list."]})
    return side, key


def _numbers_to(maximum: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1, "maximum": maximum}


def _whole_number(request: Request, name: str, default: int, maximum: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 12 and 1 <= int(text) <= maximum):
        raise ValidationError({name: [f"Should be a whole number from 1 to {maximum}."]})
    return int(text)
