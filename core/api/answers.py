"""One typed description of each answer: what a view sends, its published schema and its example.

A view builds an ``Answer`` and returns it.  ``core.api.rendering`` encodes it, and ``core.api.schema``
publishes its class.  The name of the class is the name of the schema's component: customers' generated
clients carry it.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import msgspec
from drf_spectacular.utils import OpenApiExample, extend_schema_serializer
from msgspec import Meta

from core.api.references import MAX_ID


class Answer(msgspec.Struct, kw_only=True):
    """The base of all answers.  Fields are sent in the order of their definition."""


A = TypeVar("A", bound=type[Answer])

# The types that fields have in common.  ``Annotated[..., Meta(description=...)]`` may be put around them.
Id = Annotated[int, Meta(ge=1, le=MAX_ID, extra_json_schema={"format": "int64"})]
Uuid = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Moment = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
IPv4 = Annotated[str, Meta(extra_json_schema={"format": "ipv4"})]
IPv6 = Annotated[str, Meta(extra_json_schema={"format": "ipv6"})]
Amount = Annotated[Decimal, Meta(description="Credits.")]


def about(description: str) -> Meta:
    """The description of a field: ``name: Annotated[str, about("What you call it.")]``."""
    return Meta(description=description)


def words(chosen: Iterable[StrEnum], *, or_empty: bool = False) -> Meta:
    """The words that a text field may have, where these are not all words of an enumeration."""
    return Meta(extra_json_schema={"enum": [*([""] if or_empty else []), *map(str, chosen)]})


def component(name: str) -> Meta:
    """A text field whose words are a component of their own (``APPEND_COMPONENTS`` in the settings)."""
    return Meta(extra_json_schema={"$ref": f"#/components/schemas/{name}"})


def example(name: str, shown: dict[str, Any], *, status: int | None = None) -> Callable[[A], A]:
    """Publish an example of an answer.  An example that does not fit the class stops the program at start."""

    def decorate(answer: A) -> A:
        msgspec.convert(shown, answer, strict=False)
        statuses = [str(status)] if status else None
        shown_as = OpenApiExample(name, shown, response_only=True, status_codes=statuses)
        return extend_schema_serializer(examples=[shown_as])(answer)

    return decorate


def utc(moment: datetime) -> str:
    """The contract's form of a time: ``2025-01-10T14:30:00Z``, in UTC, without a fraction of a second."""
    return f"{moment.isoformat()[:19]}Z"


def utc_or_none(moment: datetime | None) -> str | None:
    return None if moment is None else utc(moment)
