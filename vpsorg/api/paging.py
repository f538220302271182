"""Paging as the contract has it.

Without paging parameters: ``{count, results}`` and nothing else, at most 100
rows, and an RFC 8288 ``Link`` header when there are more.  With ``page`` or
``page_size``: ``next`` and ``previous`` stand in the body too.
"""

from typing import Any

from rest_framework.exceptions import ValidationError
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param
from rest_framework.views import APIView

MAX_PAGE_SIZE = 100
DEFAULT_PAGE_SIZE = 20
MAX_PAGE = 1_000_000_000


class ContractPagination(BasePagination):
    def paginate_queryset(self, queryset: Any, request: Request, view: APIView | None = None) -> list[Any]:
        self.url = request.build_absolute_uri()
        self.asked = "page" in request.query_params or "page_size" in request.query_params
        self.page = _whole_number(request, "page", 1, MAX_PAGE)
        default = DEFAULT_PAGE_SIZE if self.asked else MAX_PAGE_SIZE
        self.size = _whole_number(request, "page_size", default, MAX_PAGE_SIZE)
        first = (self.page - 1) * self.size
        rows = list(queryset[first : first + self.size + 1])
        self.more = len(rows) > self.size
        rows = rows[: self.size]
        # The last page tells the count by itself; a page past the end does not.
        told = not self.more and (rows or self.page == 1)
        self.count = first + len(rows) if told else queryset.count()
        return rows

    def get_paginated_response(self, data: Any) -> Response:
        following = self._page_url(self.page + 1) if self.more else None
        before = self._page_url(self.page - 1) if self.page > 1 else None
        links = [f'<{url}>; rel="{rel}"' for rel, url in (("next", following), ("prev", before)) if url]
        body: dict[str, Any] = {"count": self.count}
        if self.asked:
            body |= {"next": following, "previous": before}
        return Response(body | {"results": data}, headers={"Link": ", ".join(links)} if links else {})

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        return [
            {"name": name, "in": "query", "description": description, "schema": schema}
            for name, description, schema in (
                ("page", "Which page, from 1.", _numbers_to(MAX_PAGE)),
                (
                    "page_size",
                    f"Rows of a page; {DEFAULT_PAGE_SIZE} if you ask for pages.",
                    _numbers_to(MAX_PAGE_SIZE),
                ),
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

    def _page_url(self, number: int) -> str:
        return replace_query_param(replace_query_param(self.url, "page_size", self.size), "page", number)


def _numbers_to(maximum: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1, "maximum": maximum}


def _whole_number(request: Request, name: str, default: int, maximum: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 12 and 1 <= int(text) <= maximum):
        raise ValidationError({name: [f"Should be a whole number from 1 to {maximum}."]})
    return int(text)
