"""A private libvirtd with its guests, in network, mount and process namespaces of its own.

It has one storage pool and one network, both called ``vps``.  The network is a bridge
without an uplink: its addresses, from ranges kept for documentation, exist only in the
namespace, and ``enter`` leads there.
"""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, tostring

import libvirt

from deploy.local.errors import LocalError
from deploy.local.folder import socket_path
from deploy.local.processes import Service, as_root, wait_for

Address = IPv4Interface | IPv6Interface

POOL = NETWORK = "vps"
BRIDGE = "vpsbr0"
# The host's own addresses on the bridge, and so the guests' gateways.
IPV4, IPV6 = "203.0.113.1/24", "2001:db8:113::1/64"
SCRIPT = Path(__file__).with_name("libvirtd.sh")
# The first call makes libvirt probe QEMU: seconds, or a minute on a busy machine.
READY_S = 180


class Libvirtd(Service):
    """One private libvirtd under VAR.  Several with different names live side by side."""

    def __init__(self, var: Path, name: str = "libvirt", ipv4: str = IPV4, ipv6: str = IPV6) -> None:
        super().__init__(name, var, stop_signal=signal.SIGKILL)  # a signal that its processes do not ignore
        self.addresses: list[Address] = [ip_interface(ipv4), ip_interface(ipv6)]
        self._lifeline: int | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "libvirt-sock"

    @property
    def url(self) -> str:
        """The libvirt URI of this daemon."""
        return f"qemu+unix:///system?socket={quote(os.fspath(self.socket))}"

    def start(self) -> None:
        """Start it, with no guest running, and wait until it can boot one."""
        socket_path(self.socket)
        self._process.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        inner = self.folder / "pid"
        inner.unlink(missing_ok=True)
        self._spawn()
        self._process.wait_until(lambda: inner.exists() and inner.read_text() != "", 30)
        self._process.record(int(inner.read_text()))
        self._process.wait_until(self._listens, READY_S)
        self._furnish()

    def stop(self, patience_s: float = 5) -> None:
        """Ask the guests to shut down, cut what still runs after a while, and end everything."""
        if self.pid is not None and self.socket.exists():
            self._shut_down_guests(patience_s)
        self._cut_lifeline()
        self._process.stop()

    def enter(self, *command: str) -> list[str]:
        """The command line that runs a command as this user inside the network namespace."""
        if self.pid is None:
            raise LocalError(f"No {self.name} runs in {self.folder.parent}. Start it with: make run")
        inside = as_root("nsenter", f"--net=/proc/{self.pid}/ns/net", "--")
        if os.geteuid() != 0:
            inside += ["setpriv", f"--reuid={os.getuid()}", f"--regid={os.getgid()}", "--init-groups", "--"]
        return [*inside, *command]

    def _spawn(self) -> None:
        end, self._lifeline = os.pipe()
        with os.fdopen(end, "rb") as stdin:
            # Not tied to us by a signal, which sudo could not be: the pipe does that.
            self._process.start(
                as_root("unshare", "--mount", "--net", "sh", SCRIPT, self.folder),
                stdin=stdin,
                dies_with_us=False,
            )

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(os.fspath(self.socket)) == 0

    def _cut_lifeline(self) -> None:
        if self._lifeline is None:
            return
        with suppress(BrokenPipeError):
            # A line first: a child forked meanwhile may hold the pipe open too.
            os.write(self._lifeline, b"\n")
        os.close(self._lifeline)
        self._lifeline = None
        self._process.wait_gone(5)

    def _furnish(self) -> None:
        # A libvirt call has no deadline, but it ends when its server does.
        guard = threading.Timer(READY_S, self._process.stop)
        guard.start()
        try:
            with _connected(self.url) as connection:
                connection.getCapabilities()
                _furnish_pool(connection, self.folder / "pool")
                _furnish_network(connection, self.addresses)
        except libvirt.libvirtError as error:
            raise LocalError(f"{self.name} does not work: {error}. {self._process.last_lines()}") from None
        finally:
            guard.cancel()

    def _shut_down_guests(self, patience_s: float) -> None:
        # A daemon that does not answer is killed, with its guests.
        with suppress(libvirt.libvirtError), _connected(self.url) as connection:
            for guest in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                with suppress(libvirt.libvirtError):
                    guest.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
            wait_for(lambda: connection.numOfDomains() == 0, patience_s)


@contextmanager
def _connected(url: str) -> Iterator[Any]:
    connection = libvirt.open(url)
    try:
        yield connection
    finally:
        connection.close()


def _furnish_pool(connection: Any, folder: Path) -> None:
    """Define the pool at this folder: VAR may have moved since the last start."""
    for old in connection.listAllStoragePools():
        if old.name() == POOL:
            if old.isActive():
                old.destroy()  # libvirt's word for "deactivate"; the volumes stay
            old.undefine()
    pool = Element("pool", type="dir")
    SubElement(pool, "name").text = POOL
    SubElement(SubElement(pool, "target"), "path").text = os.fspath(folder)
    made = connection.storagePoolDefineXML(tostring(pool, encoding="unicode"))
    made.setAutostart(1)
    made.create()


def _furnish_network(connection: Any, addresses: list[Address]) -> None:
    """Define the network with these addresses on the host's side."""
    for old in connection.listAllNetworks():
        if old.name() == NETWORK:
            if old.isActive():
                old.destroy()
            old.undefine()
    network = Element("network")
    SubElement(network, "name").text = NETWORK
    SubElement(network, "forward", mode="open")  # libvirt adds no firewall and no NAT
    SubElement(network, "bridge", name=BRIDGE, stp="off", delay="0")
    SubElement(network, "dns", enable="no")
    for address in addresses:
        prefix = str(address.network.prefixlen)
        SubElement(network, "ip", family=f"ipv{address.version}", address=str(address.ip), prefix=prefix)
    made = connection.networkDefineXML(tostring(network, encoding="unicode"))
    made.setAutostart(1)
    made.create()
