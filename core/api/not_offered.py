"""The provider's sections that this product does not offer: lists are empty, the rest is refused by name."""

from typing import Any

from django.urls import re_path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from core.errors import NotOffered

# The words of a path, and how a list of it answers.
EMPTY_PAGE: Any = {"count": 0, "results": []}
SECTIONS: dict[str, Any] = {
    "domains": EMPTY_PAGE,
    "dns-zones": [],
    "dns-records": [],
    "deploy-configs": EMPTY_PAGE,
    "deployments": EMPTY_PAGE,
}


class NotOfferedView(APIView):
    """Open to any active token: without it the answer would look as if an id were wrong."""

    schema = None
    resource = None

    def get(self, request: Request, section: str, rest: str = "") -> Response:
        if rest:
            raise self._refusal(section)
        return Response(SECTIONS[section])

    def post(self, request: Request, section: str, rest: str = "") -> Response:
        raise self._refusal(section)

    put = patch = delete = post

    @staticmethod
    def _refusal(section: str) -> NotOffered:
        return NotOffered(f"This installation does not offer {section.replace('-', ' ')}.")


urlpatterns = [
    re_path(
        rf"^(?P<section>{'|'.join(SECTIONS)})/(?P<rest>.*)$", NotOfferedView.as_view(), name="not-offered"
    )
]
