"""A private Redis.  It carries messages only: nothing in it needs to survive a restart."""

import socket
from pathlib import Path
from urllib.parse import quote

from deploy.local.folder import socket_path
from deploy.local.processes import Service


class Redis(Service):
    """A private Redis under VAR, on a socket that only we may open."""

    def __init__(self, var: Path) -> None:
        super().__init__("redis", var)
        self.socket = self.folder / "redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self.socket))}"

    def start(self) -> None:
        socket_path(self.socket)
        self._process.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        listen = ["--port", "0", "--unixsocket", "redis.sock", "--unixsocketperm", "700"]
        forget = ["--save", "", "--appendonly", "no"]
        self._process.start(["redis-server", *listen, *forget, "--daemonize", "no"], cwd=self.folder)
        self._process.wait_until(self._answers, 30)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            try:
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"
            except OSError:
                return False
