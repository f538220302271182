"""One attempt to deliver a message.  It is told values and gives back a value; no database, no Django.

The receiver is a stranger: the address that is connected to is the one that was
judged, redirects are not followed, and neither time nor answer is unlimited.
"""

import re
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from http.client import HTTPConnection
from typing import NamedTuple

from webhooks.addresses import (
    LOOK_UP_WITHIN_S,
    Address,
    AddressRefused,
    HostNotFound,
    Network,
    Target,
    parse,
    permitted_addresses,
)

LIMIT_S = 10.0
CONNECT_WITHIN_S = 4.0  # so that there is time to try a second address
MAX_ANSWER = 4096
USER_AGENT = "VPS-Webhooks/1"  # some receivers refuse a request without a User-Agent
# The status, behind what a server may say before it (1xx).
ANSWER = re.compile(
    rb"(?:HTTP/1\.[01] 1\d\d[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n)*HTTP/1\.[01] (?P<status>[2-5]\d\d)[ \r\n]"
)


class Fault(StrEnum):
    """Why an attempt failed.  These words are part of the API."""

    HOST_NOT_FOUND = "host_not_found"
    ADDRESS_REFUSED = "address_refused"
    CONNECTION_FAILED = "connection_failed"
    TLS_FAILED = "tls_failed"
    TIMEOUT = "timeout"
    INVALID_ANSWER = "invalid_answer"
    UNSUCCESSFUL_STATUS = "unsuccessful_status"
    SECRET_UNREADABLE = "secret_unreadable"  # noqa: S105
    SWITCHED_OFF = "switched_off"


class Outcome(NamedTuple):
    status: int | None  # what the receiver answered
    fault: Fault | None
    duration_ms: int = 0


class _InvalidAnswer(Exception):
    """The answer was not HTTP, or not in its first bytes."""


def post(
    url: str,
    body: str,
    headers: Mapping[str, str],
    *,
    private_networks: Sequence[Network],
    limit_s: float = LIMIT_S,
) -> Outcome:
    """Hand a body over, within the limit whatever the receiver does.  Never raises for what a receiver does.

    An answer of 2xx is a success.  Nothing of the answer but its status is read.
    """
    began = time.monotonic()
    status, fault = None, None
    try:
        status = _exchange(parse(url), body.encode(), headers, private_networks, began + limit_s)
        fault = None if 200 <= status < 300 else Fault.UNSUCCESSFUL_STATUS
    except HostNotFound:
        fault = Fault.HOST_NOT_FOUND
    except AddressRefused:
        fault = Fault.ADDRESS_REFUSED
    except _InvalidAnswer:
        fault = Fault.INVALID_ANSWER
    except TimeoutError:
        fault = Fault.TIMEOUT
    except ssl.SSLError:
        fault = Fault.TLS_FAILED
    except OSError:
        fault = Fault.CONNECTION_FAILED
    except ValueError:  # a URL that was accepted under older rules
        fault = Fault.ADDRESS_REFUSED
    return Outcome(status, fault, round((time.monotonic() - began) * 1000))


def _exchange(
    target: Target, body: bytes, headers: Mapping[str, str], private_networks: Sequence[Network], until: float
) -> int:
    addresses = permitted_addresses(target, private_networks, min(LOOK_UP_WITHIN_S, _left(until)))
    with _secured(_connected(addresses, target.port, until), target, until) as connection:
        http = HTTPConnection(target.host, target.port)
        http.sock = connection
        about = {
            "Host": target.authority,
            "User-Agent": USER_AGENT,
            "Content-Type": "application/json",
            "Connection": "close",
        }
        connection.settimeout(_left(until))
        http.request("POST", target.path, body, about | dict(headers))
        return _status(connection, until)


def _connected(addresses: Sequence[Address], port: int, until: float) -> socket.socket:
    """A connection to the first address that accepts one."""
    failure = OSError("no address")
    for address in addresses:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            # Head and body are two writes; without this the second waits for the first one's acknowledgement.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(min(CONNECT_WITHIN_S, _left(until)))
            connection.connect((str(address), port))
            return connection
        except OSError as error:
            connection.close()
            failure = error
    raise failure


def _secured(connection: socket.socket, target: Target, until: float) -> socket.socket:
    """TLS over it for https, with a certificate for the host that the URL names."""
    if not target.is_https:
        return connection
    connection.settimeout(_left(until))
    return ssl.create_default_context().wrap_socket(connection, server_hostname=target.host)


def _status(connection: socket.socket, until: float) -> int:
    heard = b""
    while len(heard) < MAX_ANSWER:
        # By hand: http.client has a time limit for each read, and a receiver that drips stays within it.
        connection.settimeout(_left(until))
        more = connection.recv(MAX_ANSWER)
        heard += more
        if told := ANSWER.match(heard):
            return int(told["status"])
        if not more:
            break
    raise _InvalidAnswer


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
