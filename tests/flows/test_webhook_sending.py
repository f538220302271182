"""One attempt at a receiver, over real sockets: what is taken, what is refused, and how long it may take."""

import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.receiver import LOOPBACK, Receiver, Resolver, receiving
from webhooks.sending import Fault, Outcome, post


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Resolver]:
    def install(*answers: str | list[str]) -> Resolver:
        resolver = Resolver(*answers)
        monkeypatch.setattr(socket, "getaddrinfo", resolver)
        return resolver

    return install


# Time and size have limits, whatever the receiver does.


def _send(receiver: Receiver, limit_s: float = 1.0) -> tuple[Outcome, float]:
    began = time.monotonic()
    outcome = post(receiver.url(), "{}", {}, private_networks=LOOPBACK, limit_s=limit_s)
    return outcome, time.monotonic() - began


def _says_nothing(request: BaseHTTPRequestHandler) -> None:
    time.sleep(6)


def drips(request: BaseHTTPRequestHandler) -> None:
    """A byte now and then: each read is in time, the whole never ends."""
    for _ in range(120):
        request.wfile.write(b"X")
        request.wfile.flush()
        time.sleep(0.05)


def _drips_interim_answers(request: BaseHTTPRequestHandler) -> None:
    for _ in range(120):
        request.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        request.wfile.flush()
        time.sleep(0.05)


@pytest.mark.parametrize("answer", [_says_nothing, drips, _drips_interim_answers])
def test_nobody_is_waited_for_longer_than_the_limit(
    receiver: Receiver, answer: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    """Guard: ``settimeout(_left(until))`` before each read in ``_status``."""
    receiver.answers = [answer]

    outcome, took_s = _send(receiver)

    assert (outcome.status, outcome.fault) == (None, Fault.TIMEOUT)
    assert took_s < 4
    assert 900 < outcome.duration_ms < 4000


def _floods(request: BaseHTTPRequestHandler) -> None:
    for _ in range(1000):
        request.wfile.write(b"x" * 2**20)


def _answers_and_floods(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    _floods(request)


def _hangs_up(request: BaseHTTPRequestHandler) -> None:
    request.connection.shutdown(socket.SHUT_RDWR)


def _hints_first(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
    request.wfile.write(b"HTTP/1.1 202 Accepted\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "status", "fault"),
    [
        (_floods, None, Fault.INVALID_ANSWER),
        (_answers_and_floods, 200, None),
        (_hangs_up, None, Fault.INVALID_ANSWER),
        (_hints_first, 202, None),
        (
            lambda request: request.wfile.write(b"220 mail.example.com ESMTP\r\n" * 200),
            None,
            "invalid_answer",
        ),
        (lambda request: request.wfile.write(b"HTTP/1.1 999 Odd\r\n\r\n"), None, Fault.INVALID_ANSWER),
        (lambda request: request.wfile.write(b"HTTP/1.1 2000 OK\r\n\r\n"), None, Fault.INVALID_ANSWER),
        (lambda request: request.wfile.write(b"HTTP/2 200 OK\r\n\r\n"), None, Fault.INVALID_ANSWER),
    ],
)
def test_of_an_answer_its_status_counts_and_no_more_is_read(
    receiver: Receiver, answer: Any, status: int | None, fault: Fault | None
) -> None:
    receiver.answers = [answer]

    outcome, took_s = _send(receiver, limit_s=5)

    assert (outcome.status, outcome.fault) == (status, fault)
    assert took_s < 4


def test_where_nobody_listens_it_is_said_at_once() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/"
        outcome = post(url, "{}", {}, private_networks=LOOPBACK)

    assert (outcome.status, outcome.fault) == (None, Fault.CONNECTION_FAILED)


# It goes where it was judged to go.


def test_the_connection_goes_to_the_address_that_was_judged(
    receiver: Receiver, resolver: Callable[..., Resolver]
) -> None:
    """Guard: ``_connected`` is given addresses, not the name.  Asked twice, this one would lie."""
    asked = resolver("127.0.0.1", "127.0.0.99")

    outcome = post(receiver.url(host="hooks.example.com"), "{}", {}, private_networks=LOOPBACK)

    assert outcome.status == 204
    assert asked.asked == ["hooks.example.com"]
    assert receiver.heard[0].headers["host"] == f"hooks.example.com:{receiver.port}"


def test_when_its_first_address_is_dead_the_next_is_tried(
    receiver: Receiver, resolver: Callable[..., Resolver]
) -> None:
    resolver(["127.0.0.99", "127.0.0.1"])

    outcome = post(receiver.url(host="hooks.example.com"), "{}", {}, private_networks=LOOPBACK)

    assert outcome.status == 204


def certificate(folder: Path, host: str) -> Path:
    """A certificate for a host, signed by itself, with its key."""
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]),
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.TraditionalOpenSSL
    secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    path = folder / f"{host}.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


@pytest.mark.parametrize(
    ("certified", "trusted", "fault"),
    [
        ("hooks.example.com", True, None),
        ("hooks.example.com", False, Fault.TLS_FAILED),
        ("evil.example.com", True, Fault.TLS_FAILED),
    ],
)
def test_a_certificate_is_for_the_host_of_the_url_and_by_somebody_trusted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    resolver: Callable[..., Resolver],
    certified: str,
    trusted: bool,
    fault: Fault | None,
) -> None:
    """Guard: ``create_default_context`` and ``server_hostname``."""
    resolver("127.0.0.1")
    made = certificate(tmp_path, certified)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(made))

    with receiving(made) as receiver:
        outcome = post(receiver.url(host="hooks.example.com"), "{}", {}, private_networks=LOOPBACK)

        assert outcome.fault == fault
        assert [heard.body for heard in receiver.heard] == ([] if fault else [b"{}"])


def test_a_host_that_speaks_no_tls_is_not_waited_for(receiver: Receiver) -> None:
    url = receiver.url().replace("http", "https")

    assert post(url, "{}", {}, private_networks=LOOPBACK, limit_s=5).fault == Fault.TLS_FAILED


def test_a_host_that_never_ends_its_handshake_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        began = time.monotonic()
        outcome = post(url, "{}", {}, private_networks=LOOPBACK, limit_s=0.5)

    assert outcome.fault == Fault.TIMEOUT
    assert time.monotonic() - began < 2
