"""Reads a machine back out of libvirt's words: the other way round than ``domain_xml``."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from uuid import UUID

from . import network_filter
from .base import Card, Machine, Power
from .domain_xml import NAMESPACE, domain_name


def machine_of(xml: str, power: Power) -> Machine:
    """The machine that a definition, as libvirt gives it back, describes."""
    domain = ET.fromstring(xml)  # noqa: S314 (libvirt's own words)
    name, uuid = domain.findtext("name", ""), UUID(domain.findtext("uuid"))
    return Machine(
        uuid=uuid,
        name=name,
        is_ours=name == domain_name(uuid),
        server=_server_of(domain),
        power=power,
        vcpus=int(domain.findtext("vcpu", "1")),
        memory_mib=int(domain.findtext("memory", "0")) // 1024,
        cards=tuple(map(_card_of, domain.iterfind("devices/interface"))),
    )


def _server_of(domain: ET.Element) -> UUID | None:
    ours = domain.find(f"metadata/{{{NAMESPACE}}}server")
    try:
        return UUID(ours.get("uuid", "")) if ours is not None else None
    except ValueError:
        return None  # somebody has edited it


def _card_of(interface: ET.Element) -> Card:
    mac, filterref = interface.find("mac"), interface.find("filterref")
    return Card(
        mac="" if mac is None else mac.get("address", ""),
        is_filtered=filterref is not None and filterref.get("filter") == network_filter.NAME,
        addresses=() if filterref is None else tuple(_addresses_in(filterref)),
    )


def _addresses_in(filterref: ET.Element) -> Iterator[IPv4Address | IPv6Address]:
    for parameter in filterref.iterfind("parameter"):
        if parameter.get("name") in {"IP", "IPV6"}:
            try:
                address = ip_address(parameter.get("value", ""))
            except ValueError:
                continue  # of a filter that is not ours: a network, or what its author liked
            if not (address.is_link_local or address.is_unspecified):
                yield address
