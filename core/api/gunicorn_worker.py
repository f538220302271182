"""gunicorn's threads, with limits on the time that a request may take to arrive, and its answer to leave.

A request that is sent half, or a byte at a time, holds a thread.  So does an answer that its client does not
read.  A proxy in front of the API reads both whole (deploy/proxy).  Without a proxy, these limits free the
thread.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

ARRIVES_WITHIN_S = 10.0
LEAVES_WITHIN_S = 10.0
_BLOCK = 64 * 1024


class PatientSocket(socket.socket):
    """A client's socket.  Its calls fail, as on a lost connection, when the request's time is over."""

    _arrives_until = 0.0
    _leaves_until: float | None = None

    def begin_request(self) -> None:
        self._arrives_until, self._leaves_until = monotonic() + ARRIVES_WITHIN_S, None

    def recv(self, *args: Any) -> bytes:
        with self._limited(self._arrives_until, "the request took too long to arrive"):
            return super().recv(*args)

    def sendall(self, *args: Any) -> None:
        with self._leaving():
            super().sendall(*args)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """As the method of the base does, which has no limit on the whole."""
        file.seek(offset)
        left = count
        while data := file.read(_BLOCK if left is None else min(_BLOCK, left)):
            self.sendall(data)
            left = None if left is None else left - len(data)
        return int(file.tell() - offset)

    def _leaving(self) -> AbstractContextManager[None]:
        # The time begins with the answer's first byte: the work itself may take long.
        self._leaves_until = self._leaves_until or monotonic() + LEAVES_WITHIN_S
        return self._limited(self._leaves_until, "the client took too long to read the answer")

    @contextmanager
    def _limited(self, until: float, fault: str) -> Iterator[None]:
        left_s = until - monotonic()
        if left_s <= 0:
            raise ConnectionResetError(errno.ECONNRESET, fault)
        self.settimeout(left_s)
        try:
            yield
        except TimeoutError:
            raise ConnectionResetError(errno.ECONNRESET, fault) from None
        finally:
            self.settimeout(None)


class PatientWorker(ThreadWorker):  # type: ignore[misc]
    def enqueue_req(self, conn: TConn) -> None:
        if not isinstance(conn.sock, PatientSocket):
            conn.sock = PatientSocket(fileno=conn.sock.detach())
        super().enqueue_req(conn)

    def handle(self, conn: TConn) -> Any:
        conn.sock.begin_request()
        return super().handle(conn)
