"""Parses request bodies: JSON, whatever the Content-Type says."""

from collections.abc import Mapping
from typing import IO, Any

import orjson
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

MAX_BODY_BYTES = 256 * 1024


class JSONParser(BaseParser):
    """A JSON object.  An empty body is an empty object: some clients send JSON's type with no body.

    orjson refuses invalid UTF-8, lone surrogates, NaN and very deep nesting.
    """

    media_type = "*/*"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        body = stream.read(MAX_BODY_BYTES + 1)
        if len(body) > MAX_BODY_BYTES:
            raise ParseError(f"The body is larger than {MAX_BODY_BYTES} bytes.", code="body_too_large")
        if not body.strip():
            return {}
        try:
            data = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            raise ParseError(f"The body is not valid JSON ({where}).", code="parse_error") from None
        if not isinstance(data, dict):
            raise ParseError("The body should be a JSON object.", code="parse_error")
        return data
