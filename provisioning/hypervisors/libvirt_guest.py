"""What the guest agent says.  The guest is the customer's: its answers are measured before they are used."""

import logging
from collections.abc import Iterator, Mapping
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
    """None while the agent does not answer, which libvirt says in many ways."""
    try:
        domain.agentSetResponseTimeout(_ANSWER_LIMIT_S)
        interfaces = domain.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT)
        hostname = domain.hostname(libvirt.VIR_DOMAIN_GET_HOSTNAME_AGENT)
    except libvirt.libvirtError as error:
        if is_about_the_host(error) or error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            raise
        logger.debug("no answer from the agent of %s: %s", domain.name(), error)
        return None
    addresses = tuple(dict.fromkeys(_addresses(interfaces)))
    return Guest(hostname=hostname[:_LONGEST_HOSTNAME] or None, addresses=addresses[:_MOST_ADDRESSES])


def _addresses(interfaces: Mapping[str, Any]) -> Iterator[IPv4Address | IPv6Address]:
    for interface in interfaces.values():
        for entry in interface["addrs"] or ():
            with suppress(ValueError):
                address = ip_address(entry["addr"])
                if not (address.is_loopback or address.is_link_local):
                    yield address
