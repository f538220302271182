"""Bodies that come in chunks (``Transfer-Encoding: chunked``), as Go, Node and proxies send them.

Django reads as many bytes as Content-Length says.  A chunked request has no such header: its body would be
taken for empty, and a PATCH would answer 200 and change nothing.
"""

from collections.abc import Callable, Iterable
from io import BytesIO
from typing import IO, Any

from core.api.parsing import MAX_BODY_BYTES

Environment = dict[str, Any]
Application = Callable[[Environment, Callable[..., Any]], Iterable[bytes]]


class ChunkedBodies:
    """A WSGI application that gives a chunked body its length before Django sees the request.

    Reads one byte more than a body may have: the parser refuses a body that is too large.
    """

    def __init__(self, application: Application) -> None:
        self._application = application

    def __call__(self, environment: Environment, start_response: Callable[..., Any]) -> Iterable[bytes]:
        is_chunked = "chunked" in environment.get("HTTP_TRANSFER_ENCODING", "").lower()
        if is_chunked and environment.get("wsgi.input_terminated"):
            body = _read(environment["wsgi.input"], MAX_BODY_BYTES + 1)
            environment["wsgi.input"] = BytesIO(body)
            environment["CONTENT_LENGTH"] = str(len(body))
        return self._application(environment, start_response)


def _read(body: IO[bytes], most: int) -> bytes:
    """All of a body up to ``most`` bytes; a server may give less at a time than it is asked for."""
    parts: list[bytes] = []
    while most > 0 and (part := body.read(most)):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)
