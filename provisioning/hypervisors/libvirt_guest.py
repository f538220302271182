"""What the guest agent says.  The guest is the customer's: its answers are measured before they are used."""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import libvirt

from .base import Guest
from .libvirt_errors import is_about_the_host

logger = logging.getLogger(__name__)

_ANSWER_LIMIT_S = 2
_MOST_ADDRESSES = 32
_LONGEST_HOSTNAME = 253


def guest(domain: Any) -> Guest | None:
    """None while the agent does not answer."""
    interfaces = _ask(domain, _interfaces)
    if interfaces is None:
        return None
    hostname = str(_ask(domain, _hostname) or "")[:_LONGEST_HOSTNAME]
    return Guest(hostname=hostname or None, addresses=addresses_of(interfaces))


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


def addresses_of(interfaces: Mapping[str, Any]) -> tuple[IPv4Address | IPv6Address, ...]:
    """What others may reach the guest at: neither loopback nor link-local, each once, and not without end."""
    found: dict[IPv4Address | IPv6Address, None] = {}
    for interface in interfaces.values():
        for entry in interface["addrs"] or ():
            with suppress(ValueError):
                found[ip_address(entry["addr"])] = None
    reachable = [address for address in found if not (address.is_loopback or address.is_link_local)]
    return tuple(reachable[:_MOST_ADDRESSES])
