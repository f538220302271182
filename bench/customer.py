"""An API client that opens a new connection for each request, as curl does."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from deploy.local.errors import LocalError

PATIENCE_S = 120


class Customer:
    def __init__(self, url: str, token: str) -> None:
        self._url = urlsplit(url)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The body of the answer.  Raises LocalError for a status that is no success."""
        connection = http.client.HTTPConnection(self._url.netloc, timeout=PATIENCE_S)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, f"{self._url.path}{path}", sent, self._headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise LocalError(f"{method} {path} was answered {answer.status}: {text[:300].decode()}")
        return json.loads(text) if text else None
