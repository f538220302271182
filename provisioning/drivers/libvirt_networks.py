"""Whether the network cards of machines that run still hang on their network, and bringing them back.

Stopping a network (``virsh net-destroy``) removes its bridge, and every guest's card with it; starting the
network again makes a new, empty bridge.  The definition of a machine does not show this: it still names the
network.  But libvirt keeps a port for each card of a network, and a network that was stopped has lost them.
"""

import xml.etree.ElementTree as ET
from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

import libvirt

from core.one_by_one import read_each

from .definition import cards_off_network
from .domain_xml import domain_name
from .libvirt_errors import is_fatal


def ports(connection: Any, networks: Sequence[str]) -> set[str] | None:
    """The UUIDs of all ports of these networks.  None: this libvirt counts no ports."""
    try:
        listed = [connection.networkLookupByName(name).listAllPorts() for name in networks]
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return None
    return {port.UUIDString() for found in listed for port in found}


def off_network(connection: Any, networks: Sequence[str]) -> list[UUID]:
    """Our machines that run and have a card without a port.

    While there is a port for each machine, none is looked at: that would be a call for each, twice a minute.
    """
    known = ports(connection, networks)
    running = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    ours = [domain for domain in running if domain.name() == domain_name(domain.UUIDString())]
    if known is None or len(known) >= len(ours):
        return []

    def look(domain: Any) -> UUID | None:
        return UUID(domain.UUIDString()) if _cards_off(domain, known) else None

    return list(filter(None, read_each("machine", ours, look, concerns_all=is_fatal)))


def reattach(domain: Any, known: Collection[str] | None) -> None:
    """Put the cards that have no port back onto their network, while the machine runs.

    libvirt takes a card for changed only when it has another source: so first the bridge by its own name,
    where the card is plugged in, and then the network, which counts a new port.
    """
    for card in _cards_off(domain, known):
        source = card.find("source")
        assert source is not None  # noqa: S101  (those without have no port to lose)
        network, bridge = source.get("network", ""), source.get("bridge", "")
        for kind, name in (("bridge", bridge), ("network", network)):
            card.set("type", kind)
            source.attrib.clear()
            source.set(kind, name)
            domain.updateDeviceFlags(ET.tostring(card, encoding="unicode"), libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _cards_off(domain: Any, known: Collection[str] | None) -> list[ET.Element]:
    return cards_off_network(ET.fromstring(domain.XMLDesc()), known)  # noqa: S314 (libvirt's own words)
