"""S3 for tests: moto's server, and a proxy in front of it that fails when it is told to."""

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

from backups.store import S3Access, Store
from deploy.local.processes import Process
from tests.private_services import VAR
from tests.served import free_port, listens

BIN = Path(sys.executable).parent
# What happens to a request instead of being passed on; False: nothing.
Fault = Callable[[BaseHTTPRequestHandler], bool]


class S3:
    """A server with any number of buckets."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def access(self) -> S3Access:
        return S3Access(f"http://127.0.0.1:{self.port}", "us-east-1", "an id", "a secret")

    def new_bucket(self) -> str:
        bucket = f"b-{uuid4()}"
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("PUT", f"/{bucket}")
        assert connection.getresponse().status == 200
        connection.close()
        return bucket

    def new_store(self, **options: Any) -> Store:
        return Store(f"s3://{self.new_bucket()}/some/prefix", self.access, **options)


@contextmanager
def serving_s3() -> Iterator[S3]:
    port = free_port()
    process = Process("moto", VAR)
    process.start([BIN / "moto_server", "-H", "127.0.0.1", "-p", str(port)])
    try:
        process.wait_until(lambda: listens(port), 60)
        yield S3(port)
    finally:
        process.stop()


class Proxy(S3):
    """In front of a server.  ``fault`` decides about each request."""

    def __init__(self, behind: S3, port: int) -> None:
        super().__init__(port)
        self.behind = behind
        self.fault: Fault = lambda request: False

    def new_store(self, **options: Any) -> Store:
        return Store(f"s3://{self.behind.new_bucket()}", self.access, **options)


@contextmanager
def proxying(behind: S3) -> Iterator[Proxy]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    proxy = Proxy(behind, server.server_port)
    server.proxy = proxy  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refusing(status: int, code: str) -> Fault:
    """Every request that is asked about gets this S3 error."""

    def refuse(request: BaseHTTPRequestHandler) -> bool:
        _answer(request, status, f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode())
        return True

    return refuse


def hanging_up(request: BaseHTTPRequestHandler) -> bool:
    request.close_connection = True
    with suppress(OSError):
        request.connection.shutdown(socket.SHUT_RDWR)
    return True


def when(question: Callable[[BaseHTTPRequestHandler], bool], fault: Fault) -> Fault:
    return lambda request: question(request) and fault(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        proxy: Proxy = self.server.proxy  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if proxy.fault(self):
            return
        connection = HTTPConnection("127.0.0.1", proxy.behind.port, timeout=60)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            _answer(self, answer.status, answer.read(), dict(answer.getheaders()))
        finally:
            connection.close()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

    def handle(self) -> None:
        with suppress(OSError):  # it hung up
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _answer(
    request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None
) -> None:
    request.send_response_only(status)
    for name, value in (headers or {}).items():
        if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
            request.send_header(name, value)
    length = (headers or {}).get("Content-Length") if request.command == "HEAD" else None
    request.send_header("Content-Length", length or str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
