"""Serves the schema and the pages to try it, to everybody.  The pages load no file from elsewhere."""

from functools import cache
from threading import Lock
from typing import Any

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

_making = Lock()


def published() -> dict[str, Any]:
    """The schema; generated once per process."""
    with _making:  # drf-spectacular cannot generate it in two threads at once
        return _made()


@cache
def _made() -> dict[str, Any]:
    schema: dict[str, Any] = SchemaGenerator().get_schema(public=True)
    return schema


class SchemaView(APIView):
    schema = None
    authentication_classes: list[Any] = []
    permission_classes = [AllowAny]

    def get(self, request: Request) -> Response:
        return Response(published())


class DocsView(SpectacularSwaggerSplitView):
    authentication_classes: list[Any] = []
    permission_classes = [AllowAny]
    throttle_classes: list[Any] = []
