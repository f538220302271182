"""The proxy that is shipped in front of the API: it waits for slow clients, and refuses in JSON."""

import http.client
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import pytest

from deploy.local.folder import PROJECT
from deploy.local.processes import Process
from tests.factories import AccountFactory, token_for
from tests.flows.test_waiting import BODY, HEAD
from tests.served import THREADS, free_port, listens, served

TEMPLATE = PROJECT / "deploy" / "proxy" / "api.conf.template"
NGINX = """
daemon off; error_log stderr; pid {folder}/pid; events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    include {folder}/api.conf;
}}
"""


@dataclass
class Proxied:
    """The API behind the proxy."""

    port: int
    token: str

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, Any, Any]:
        """The status, the headers and the JSON of an answer."""
        where = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=CLIENT)
        with closing(where) as connection:
            connection.request(method, path, body, {"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            return answer.status, answer.headers, json.loads(answer.read())

    def say(self, text: bytes) -> tuple[int, bytes]:
        """The status and the body that any bytes are answered with."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        with CLIENT.wrap_socket(plain) as connection:
            with suppress(OSError):  # the answer may come before all is sent
                connection.sendall(text)
            with closing(http.client.HTTPResponse(connection)) as answer:
                answer.begin()
                return answer.status, answer.read()


CLIENT = ssl.create_default_context()
CLIENT.check_hostname, CLIENT.verify_mode = False, ssl.CERT_NONE


def certificate(folder: Path) -> str:
    """A certificate for this test alone, in nginx's words."""
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*make, "-days", "1", "-keyout", key, "-out", cert], check=True, capture_output=True)
    return f"ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;"


@pytest.fixture
def proxied(transactional_db: None, tmp_path: Path) -> Iterator[Proxied]:
    with served(tmp_path, VPS_HTTPS="true") as upstream:
        port = free_port()
        words = {
            "API_UPSTREAM": f"127.0.0.1:{upstream}",
            "LISTEN": f"127.0.0.1:{port} ssl",
            "TLS": certificate(tmp_path),
        }
        (tmp_path / "api.conf").write_text(Template(TEMPLATE.read_text()).safe_substitute(words))
        (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path))
        nginx = Process("nginx", tmp_path)
        nginx.start(["/usr/sbin/nginx", "-p", tmp_path, "-c", tmp_path / "nginx.conf"])
        try:
            nginx.wait_until(lambda: listens(port), 30)
            yield Proxied(port, token_for(AccountFactory.create()))
        finally:
            nginx.stop()


def test_the_proxy_refuses_in_json_and_waits_for_slow_clients(proxied: Proxied) -> None:
    """One story: each start of the API and of the proxy costs seconds."""
    status, headers, _ = proxied.ask("GET", "/api/v1/account/me/")
    assert status == 200, "over TLS, and not redirected to it"
    assert headers["Strict-Transport-Security"]

    for head, status, code in (
        (b"GET /api/v1/servers/?status=" + b"a" * 70_000 + b" HTTP/1.1\r\n", 414, "uri_too_long"),
        (b"GET /api/v1/servers/ HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET /api/v1/servers/ HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "bad_request"),
        (HEAD + b"Content-Length: 9999999\r\n\r\n", 413, "body_too_large"),
    ):
        answered, body = proxied.say(head)
        assert (answered, json.loads(body)["code"]) == (status, code)
    status, _, told = proxied.ask("POST", "/api/v1/servers/", b'{"name": "' + b"a" * 2**19 + b'"}')
    assert (status, told["code"]) == (400, "body_too_large"), "the API's own"

    with ExitStack() as halves:
        for beginning in [HEAD, HEAD + BODY.replace(b"%s", proxied.token.encode())] * THREADS:
            plain = socket.create_connection(("127.0.0.1", proxied.port))
            half = halves.enter_context(closing(CLIENT.wrap_socket(plain)))
            half.sendall(beginning)
        began = time.monotonic()
        assert proxied.ask("GET", "/api/v1/account/me/")[0] == 200
        assert time.monotonic() - began < 5
