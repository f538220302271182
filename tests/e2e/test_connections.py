"""How the API's connections behave, seen from outside: through gunicorn, as customers' programs meet it."""

import http.client
import json
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import Product

IDLE_S = 4  # twice gunicorn's own default


@pytest.fixture
def connection(product: Product) -> Iterator[http.client.HTTPConnection]:
    url = urlsplit(product.url)
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=30)
    yield connection
    connection.close()


def headers_of(product: Product) -> dict[str, str]:
    return {"Authorization": f"Bearer {product.token}", "Content-Type": "application/json"}


def test_a_body_in_chunks_is_read(product: Product, connection: http.client.HTTPConnection) -> None:
    body = [b'{"name": "chunk', b'ed", "url": 1}']
    path = f"{urlsplit(product.url).path}/webhooks/"
    connection.request("POST", path, iter(body), headers_of(product), encode_chunked=True)
    answer = connection.getresponse()

    assert answer.status == 400
    assert json.loads(answer.read()) == {"url": ["Should be a string."]}


def test_a_client_that_comes_back_finds_its_connection_open(
    product: Product, connection: http.client.HTTPConnection
) -> None:
    """Guard: keepalive in vpsorg/gunicorn.py: longer than any pause that Retry-After advises."""
    connection.auto_open = 0  # a new connection would hide that the old one was closed
    connection.connect()
    for pause_s in (IDLE_S, 0):
        connection.request("GET", f"{urlsplit(product.url).path}/servers/", headers=headers_of(product))
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (200, True)
        time.sleep(pause_s)
