"""Parts of the published schema: where an order can be followed, and examples of requests."""

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter


def told(name: str, description: str, *statuses: int) -> OpenApiParameter:
    """A header of answers with these statuses."""
    kind = OpenApiTypes.INT if name == "Retry-After" else OpenApiTypes.STR
    return OpenApiParameter(
        name, kind, OpenApiParameter.HEADER, response=list(statuses), description=description
    )


def body(shown: dict[str, Any]) -> OpenApiExample:
    return OpenApiExample("A request", shown, request_only=True)


LOOK_AGAIN = "Seconds after which a look makes sense."
RECEIPT = [told("Location", "The operation: how it goes.", 200), told("Retry-After", LOOK_AGAIN, 200)]
