"""What the guest agent says.  The guest is the customer's: its answers are checked before they are used."""

import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from typing import Any

import libvirt

from .base import Guest
from .libvirt_errors import is_about_the_host

logger = logging.getLogger(__name__)

_ANSWER_LIMIT_S = 2
_MOST_ADDRESSES = 32
_HOSTNAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")


def guest(domain: Any) -> Guest | None:
    """None while the agent does not answer."""
    interfaces = _ask(domain, _interfaces)
    if interfaces is None:
        return None
    return Guest(hostname=hostname_of(_ask(domain, _hostname)), addresses=addresses_of(interfaces))


def _interfaces(domain: Any) -> Any:
    domain.agentSetResponseTimeout(_ANSWER_LIMIT_S)
    return domain.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT)


def _hostname(domain: Any) -> Any:
    return domain.hostname(libvirt.VIR_DOMAIN_GET_HOSTNAME_AGENT)


def _ask(domain: Any, question: Callable[[Any], Any]) -> Any | None:
    """The agent's answer; None if there is none, which libvirt says in many ways."""
    try:
        return question(domain)
    except libvirt.libvirtError as error:
        if is_about_the_host(error) or error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            raise
        logger.debug("no answer from the agent of %s: %s", domain.name(), error)
        return None
    except UnicodeError as error:
        logger.debug("the agent of %s answers nonsense: %s", domain.name(), error)
        return None


def hostname_of(told: object) -> str | None:
    """A name that is one, of at most 253 characters; anything else is none."""
    return told if isinstance(told, str) and _HOSTNAME.fullmatch(told) else None


def addresses_of(interfaces: Mapping[str, Any]) -> tuple[IPv4Address | IPv6Address, ...]:
    """The addresses at which others may reach the guest: each once, without scope ids, a bounded number."""
    found: dict[IPv4Address | IPv6Address, None] = {}
    for interface in interfaces.values():
        for entry in interface.get("addrs") or ():
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                found[ip_address(entry["addr"].partition("%")[0])] = None
    return tuple(islice(filter(_is_reachable, found), _MOST_ADDRESSES))


def _is_reachable(address: IPv4Address | IPv6Address) -> bool:
    """Whether it can be an address of one machine that others speak to."""
    is_mapped = address.version == 6 and address.ipv4_mapped is not None
    return not (
        is_mapped
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
    )
