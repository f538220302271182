"""The wire to a libvirtd, which can be cut or go silent: what happens to hosts, without touching the host."""

import socket
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class Wire:
    """A socket of its own that leads to the libvirtd of a URI."""

    def __init__(self, path: Path, uri: str) -> None:
        [self._target] = parse_qs(urlsplit(uri).query)["socket"]
        self.uri = f"qemu+unix:///system?socket={path}"
        self._flows = threading.Event()
        self._flows.set()
        self._allowance: int | None = None
        self._ends: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

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

    def mend(self) -> None:
        self._allowance = None
        self._flows.set()

    def close(self) -> None:
        self.mend()
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                self._ends += [near, far]
                for way in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self._carry, args=way, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, is_outward: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                if is_outward and self._is_spent(len(data)):
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _is_spent(self, size: int) -> bool:
        if self._allowance is None:
            return False
        self._allowance -= size
        return self._allowance < 0
