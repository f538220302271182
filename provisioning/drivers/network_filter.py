"""The filter in front of every network card: a guest speaks with its own addresses, or is not heard.

libvirt brings ``clean-traffic``, which lets no IPv6 pass at all, so we define a filter of our own.
Libvirt carries it out with ebtables on the host, beyond the guest's reach.  Seen from
the guest: ``out`` leaves it, ``in`` reaches it.

What it cannot do: look into a neighbour advertisement, for ebtables cannot.  A guest can still claim a
neighbour's IPv6 address to the router and so cut it off; but it hears nothing of what is sent to that
address, since only its own addresses are let in.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from ipaddress import IPv6Address
from uuid import NAMESPACE_URL, uuid5

from .base import Nic

NAME = "vps-clean-traffic"
UUID = uuid5(NAMESPACE_URL, "urn:vpsorg:network-filter:1")

_NOBODY = "0.0.0.0"  # noqa: S104 (an address in a packet)

# (direction, action, protocol, what must match), tried from top to bottom.  A rule with
# a list of addresses ($IP, $IPV6) stands for one rule per address.
_RULES: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    ("out", "drop", "mac", {"match": "no", "srcmacaddr": "$MAC"}),
    # Packets that only routers and DHCP servers send.
    ("out", "drop", "ip", {"protocol": "udp", "srcportstart": "67", "dstportstart": "68"}),
    ("out", "drop", "ipv6", {"protocol": "udp", "srcportstart": "547", "dstportstart": "546"}),
    ("out", "drop", "ipv6", {"protocol": "icmpv6", "type": "134"}),  # router advertisement
    ("out", "drop", "ipv6", {"protocol": "icmpv6", "type": "137"}),  # redirect
    # These two ask whether an address is free before it is taken; they teach nobody anything.
    ("out", "accept", "arp", {"opcode": "Request", "arpsrcmacaddr": "$MAC", "arpsrcipaddr": _NOBODY}),
    ("out", "accept", "arp", {"arpsrcmacaddr": "$MAC", "arpsrcipaddr": "$IP"}),
    ("out", "accept", "ip", {"srcipaddr": "$IP"}),
    ("out", "accept", "ipv6", {"srcipaddr": "::", "protocol": "icmpv6", "type": "135"}),
    ("out", "accept", "ipv6", {"srcipaddr": "$IPV6"}),
    # Bridges flood what they have no port for: a guest must not read along.
    ("in", "accept", "arp", {}),
    ("in", "accept", "ip", {"dstipaddr": "$IP"}),
    ("in", "accept", "ip", {"dstipaddr": "224.0.0.0", "dstipmask": "4"}),
    ("in", "accept", "ipv6", {"dstipaddr": "$IPV6"}),
    ("in", "accept", "ipv6", {"dstipaddr": "ff00::", "dstipmask": "8"}),
    ("inout", "drop", "all", {}),
)


def filter_xml(uuid: str = str(UUID)) -> str:
    root = ET.Element("filter", name=NAME, chain="root")
    ET.SubElement(root, "uuid").text = uuid
    for number, (direction, action, protocol, match) in enumerate(_RULES):
        rule = ET.SubElement(root, "rule", action=action, direction=direction, priority=str(number))
        if protocol != "all":
            ET.SubElement(rule, protocol, match)
    return ET.tostring(root, encoding="unicode")


def parameters(nic: Nic) -> Iterator[tuple[str, str]]:
    """What the filter needs to know of one network card, the MAC apart, which libvirt knows."""
    ours = [address.ip for address in nic.addresses]
    # Without any IP libvirt would take the first address that the guest uses for the rightful one.
    yield from [("IP", str(ip)) for ip in ours if ip.version == 4] or [("IP", _NOBODY)]
    yield from [("IPV6", str(ip)) for ip in ours if ip.version == 6]
    yield "IPV6", str(link_local(nic.mac))


def link_local(mac: str) -> IPv6Address:
    """The link-local address that follows from the MAC (EUI-64): the one that no neighbour can have."""
    octets = bytes.fromhex(mac.replace(":", ""))
    suffix = bytes((octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]))
    return IPv6Address(b"\xfe\x80" + bytes(6) + suffix)
