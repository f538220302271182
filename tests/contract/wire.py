"""The wire to a libvirtd, which can be cut or go silent: what happens to hosts, without touching the host.

It also counts the calls that pass: each is a round trip, and the host may be far away.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

# libvirt's src/rpc/virnetprotocol.x: a message begins with its length, then program, version, procedure and
# type, of four bytes each.
_HEADER = 20
_DRIVERS, _CALL = 0x20008086, 0


class Wire:
    """A socket of its own that leads to the libvirtd of a URI."""

    def __init__(self, path: Path, uri: str) -> None:
        [self._target] = parse_qs(urlsplit(uri).query)["socket"]
        self.uri = f"qemu+unix:///system?socket={path}"
        self._flows = threading.Event()
        self._flows.set()
        self._lost: list[threading.Event] = []
        self._allowance: int | None = None
        self.calls = 0
        self._ends: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads: list[threading.Thread] = []
        self._acceptor = self._run(self._accept)

    def cut(self) -> None:
        """Hang up every connection; new ones get through."""
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut_after(self, size: int) -> None:
        """Hang up when this many bytes more have passed towards libvirtd, and let no new connection live."""
        self._allowance = size

    def silence(self) -> None:
        """Connections stay, and nothing passes: the other host lost its power."""
        self._flows.clear()

    def lose(self) -> None:
        """The other host is back and remembers nothing: silent connections stay so, new ones get through."""
        self._lost.append(self._flows)
        self._flows = threading.Event()
        self._flows.set()

    def mend(self) -> None:
        self._allowance = None
        self._flows.set()

    @property
    def opened(self) -> int:
        """How many connections came through."""
        return len(self._ends) // 2

    def close(self) -> None:
        self.mend()
        self._listener.shutdown(socket.SHUT_RDWR)  # a close alone would not wake its thread
        self._acceptor.join()
        self.cut()
        for flows in self._lost:
            flows.set()
        for thread in self._threads:
            thread.join()
        for end in (*self._ends, self._listener):
            end.close()

    def _run(self, target: Callable[..., None], *args: Any) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                self._ends += [near, far]
                for way in ((near, far, True), (far, near, False)):
                    self._run(self._carry, *way)

    def _carry(self, source: socket.socket, sink: socket.socket, is_outward: bool) -> None:
        heard = b""
        with suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                if is_outward and self._is_spent(len(data)):
                    break
                if is_outward:
                    heard = self._count(heard + data)
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _is_spent(self, size: int) -> bool:
        if self._allowance is None:
            return False
        self._allowance -= size
        return self._allowance < 0

    def _count(self, heard: bytes) -> bytes:
        """Count the calls in what was heard; what is left is the beginning of a message."""
        while len(heard) >= _HEADER and len(heard) >= (length := int.from_bytes(heard[:4], "big")):
            program, kind = (int.from_bytes(heard[at : at + 4], "big") for at in (4, 16))
            self.calls += program == _DRIVERS and kind == _CALL
            heard = heard[length:]
        return heard
