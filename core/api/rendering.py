"""Renders answers: JSON, whatever the Accept header says."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request


class JSONRenderer(BaseRenderer):
    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        return b"" if data is None else encode(data)


def encode(data: Any) -> bytes:
    """JSON of an ``Answer`` or of plain values.  Amounts are exact JSON numbers, lazy texts are texts."""
    return ENCODER.encode(data)


ENCODER = msgspec.json.Encoder(decimal_format="number", enc_hook=str)


class AlwaysJSON(BaseContentNegotiation):
    """Content negotiation with one format: no Accept header is refused."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser:
        return next(iter(parsers))

    def select_renderer(  # type: ignore[override]
        self, request: Request, renderers: Sequence[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type
