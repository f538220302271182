"""Decides which addresses a webhook may connect to: public ones, and networks that the operator allows.

A name is looked up and every address that it has is judged.  The sender must
connect to an address that was judged: the same name, looked up again, may have
another.  URLs are parsed here only, for judging and for connecting.
"""

import re
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from threading import Lock, Thread
from typing import Any

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_LENGTH = 2048
LOOK_UP_WITHIN_S = 5.0
ASKERS_AT_ONCE = 4  # half the threads of an API process: the others stay free for other requests
URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[[0-9a-f:.]{2,45}\]|[a-z0-9.-]{1,253})"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>[/?][a-z0-9._~!$&'()*+,;=:@%/?-]*)?",
    re.ASCII | re.IGNORECASE,
)
# The last label of an IPv4 address however it is spelt: 127.1, 0x7f.1, 0177.0.0.1, 2130706433.
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII | re.IGNORECASE)
DEFAULT_PORTS = {"http": 80, "https": 443}
FIRST_FREE_PORT = 1024  # lower ports serve other protocols, which might understand a POST

# Ranges that ``is_global`` calls public in some version of Python, but that are no host's own address.
NOT_A_HOST = [
    ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address inside
        "3fff::/20",  # documentation
    )
]
# The rest of IPv6 is loopback, local, multicast, reserved, or an IPv4 address in disguise
# (mapped ::ffff:0:0/96, translated 64:ff9b::/96).
GLOBAL_UNICAST = ip_network("2000::/3")


class HostNotFound(Exception):
    """The name has no address, or the resolver did not answer in time."""


class AddressRefused(Exception):
    """The host has an address to which webhooks may not connect."""


class TooManyLookUps(Exception):
    """The asker's last look-up, or those of too many others, have not ended."""


_asking: set[int] = set()
_counting = Lock()


@dataclass(frozen=True)
class Target:
    scheme: str
    host: str  # an IPv6 address without its brackets
    port: int
    path: str

    @property
    def is_https(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse(url: str) -> Target:
    """The parts of a URL.  Raises ValueError with a sentence that says what it should be."""
    found = URL.fullmatch(url) if len(url) <= MAX_LENGTH else None
    if found is None:
        raise ValueError(
            "Should be https://HOST/PATH: ASCII, without user, password or fragment, "
            f"at most {MAX_LENGTH} characters."
        )
    scheme = found["scheme"].lower()
    path = found["path"] or "/"
    return Target(
        scheme=scheme,
        host=_host(found["host"].lower()),
        port=_port(found["port"], DEFAULT_PORTS[scheme]),
        path=path if path.startswith("/") else f"/{path}",
    )


def permitted_addresses(
    target: Target,
    private_networks: Sequence[Network],
    within_s: float = LOOK_UP_WITHIN_S,
    *,
    asker: int | None = None,
) -> list[Address]:
    """All addresses of the target's host, when all of them may be connected to.

    Raises HostNotFound or AddressRefused.  Plain http is for the operator's own
    ``private_networks`` only.  An ``asker`` has one look-up at a time, and
    ASKERS_AT_ONCE have one in this process; else it raises TooManyLookUps, at once.
    """
    addresses = _look_up(target.host, within_s, asker)
    if not addresses:
        raise HostNotFound(target.host)
    for address in addresses:
        allowed = any(address in network for network in private_networks)
        if not (allowed or (target.is_https and is_public(address))):
            raise AddressRefused(str(address))
    return addresses


def is_public(address: Address) -> bool:
    """Whether this is a public address outside all special-purpose ranges."""
    if any(address in network for network in NOT_A_HOST):
        return False
    return address.is_global and (address.version == 4 or address in GLOBAL_UNICAST)


def _host(host: str) -> str:
    try:
        if host.startswith("["):
            return str(IPv6Address(host[1:-1]))
        if NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
            return str(IPv4Address(host))
    except ValueError:
        raise ValueError("Should name its host, or give its IP address in the usual way.") from None
    return host


def _port(text: str | None, default: int) -> int:
    port = default if text is None else int(text)
    if port not in DEFAULT_PORTS.values() and not FIRST_FREE_PORT <= port < 2**16:
        raise ValueError("Should have no port, or 80, 443, or one from 1024 to 65535.")
    return port


def _look_up(host: str, within_s: float, asker: int | None) -> list[Address]:
    """What the resolver says of a host; nothing if it does not answer in time.

    getaddrinfo knows no time limit, and a stranger's name server can be slow on
    purpose: a thread waits for it, as long as it may, and we do not.
    """
    heard: Future[list[Any]] = Future()

    def ask() -> None:
        try:
            with _place(asker):
                answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except Exception as error:
            heard.set_exception(error)
        else:
            heard.set_result(answers)

    Thread(target=ask, name="look-up", daemon=True).start()
    try:
        answers = heard.result(within_s)
    except (OSError, UnicodeError):  # a TimeoutError too
        return []
    return list(dict.fromkeys(ip_address(answer[4][0]) for answer in answers))


@contextmanager
def _place(asker: int | None) -> Iterator[None]:
    """Hold one of the limited look-ups until the resolver gives up.  Workers have no asker and no limit."""
    if asker is None:
        yield
        return
    with _counting:
        if asker in _asking or len(_asking) >= ASKERS_AT_ONCE:
            raise TooManyLookUps
        _asking.add(asker)
    try:
        yield
    finally:
        _asking.discard(asker)
