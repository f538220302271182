"""Requests that wait, and requests that arrive slowly: they hold up nobody."""

import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from core.api.gunicorn_worker import ARRIVES_WITHIN_S, LEAVES_WITHIN_S
from tests.factories import AccountFactory, OperationFactory, ServerFactory, token_for
from tests.served import THREADS, served


@pytest.fixture
def port(transactional_db: None, tmp_path: Path) -> Iterator[int]:
    with served(tmp_path) as port:
        yield port


def ask(port: int, path: str, token: str, limit_s: float = 60) -> float:
    """Ask for it, and how long the answer took."""
    began = time.monotonic()
    url = f"http://127.0.0.1:{port}/api/v1{path}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=limit_s) as answer:
        assert answer.status == 200
        answer.read()
    return time.monotonic() - began


def slowest(port: int, token: str, limit_s: float = 60) -> float:
    """The longest time that one of several answers took: any process of the API may be the one held up."""
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(ask, port, "/account/me/", token, limit_s) for _ in range(8)]
        return max(one.result() for one in asked)


def test_requests_that_wait_hold_up_nobody(port: int) -> None:
    """Guard: the seats of ?wait=.  There are more waiting requests than the API has threads."""
    alice, bob = AccountFactory.create(), AccountFactory.create()
    operation = OperationFactory.create(server=ServerFactory.create(account=alice))
    hers, his = token_for(alice), token_for(bob)
    ask(port, "/account/me/", his)  # the processes are warm
    path = f"/operations/{operation.pk}/?wait=8"
    waiting = [threading.Thread(target=ask, args=[port, path, hers]) for _ in range(2 * THREADS)]
    for thread in waiting:
        thread.start()
    time.sleep(1)
    took_s = slowest(port, his)
    for thread in waiting:
        thread.join()

    assert took_s < 5


# One process may get all of them: four times as many as it has threads.
ROUNDS = 6
HEAD = b"POST /api/v1/servers/ HTTP/1.1\r\nHost: 127.0.0.1\r\n"
BODY = b"Authorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"


@pytest.mark.parametrize("beginning", [HEAD, HEAD + BODY], ids=["half a head", "half a body"])
def test_requests_that_are_sent_half_hold_nobody_up_for_long(port: int, beginning: bytes) -> None:
    """Guard: PatientSocket.recv.  There are more of them than the API has threads, and they never end."""
    token = token_for(AccountFactory.create())
    beginning = beginning.replace(b"%s", token.encode())
    ask(port, "/account/me/", token)
    with ExitStack() as halves:
        for _ in range(2 * THREADS):
            half = halves.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
            half.sendall(beginning)
        time.sleep(1)
        took_s = slowest(port, token, limit_s=10 * ARRIVES_WITHIN_S)

    assert took_s < ROUNDS * ARRIVES_WITHIN_S


LARGE = b"/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"  # and open to everybody


def test_answers_that_nobody_reads_hold_nobody_up_for_long(port: int) -> None:
    """Guard: PatientSocket.sendall.  Together they are more than the system takes for a client, 4 MiB."""
    token = token_for(AccountFactory.create())
    ask(port, "/account/me/", token)
    with ExitStack() as clients:
        for _ in range(2 * THREADS):
            client = clients.enter_context(closing(socket.socket()))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.connect(("127.0.0.1", port))
            client.sendall(6 * (b"GET " + LARGE + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"))
        time.sleep(4)
        took_s = slowest(port, token, limit_s=10 * LEAVES_WITHIN_S)

    assert took_s < ROUNDS * LEAVES_WITHIN_S
