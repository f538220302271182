"""What happens to a libvirtd: it hangs, or it crashes and is started again."""

import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.local.libvirtd import Libvirtd
from deploy.local.processes import as_root, wait_for


@contextmanager
def hanging(libvirtd: Libvirtd) -> Iterator[None]:
    """Stopped in its tracks: its sockets are open and it does nothing."""
    pid = process_id(libvirtd)
    _send(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        _send(pid, signal.SIGCONT)


def crash(libvirtd: Libvirtd) -> None:
    """Killed; it is back when this returns, and its guests have run on."""
    pid = process_id(libvirtd)
    _send(pid, signal.SIGKILL)
    assert wait_for(lambda: _is_another(libvirtd, pid), 30), "it did not come back"


def _is_another(libvirtd: Libvirtd, pid: int) -> bool:
    try:
        return process_id(libvirtd) != pid
    except OSError:
        return False


def process_id(libvirtd: Libvirtd) -> int:
    """Its process id as we see it; inside its namespace it has another."""
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(str(libvirtd.socket))
        credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])


def _send(pid: int, what: signal.Signals) -> None:
    subprocess.run(as_root("kill", f"-{what.value}", str(pid)), check=True)
