"""Reads a machine back out of libvirt's words: the other way round than ``domain_xml``."""

import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from uuid import UUID

from . import network_filter, storage_names
from .base import Card, Machine, Power
from .domain_xml import NAMESPACE, domain_name

# The devices that domain_xml gives, and those that libvirt adds to them by itself.
_OUR_KINDS = {"disk", "interface", "serial", "channel", "memballoon", "rng"}
_LIBVIRTS_KINDS = {"emulator", "controller", "input", "console", "audio", "watchdog"}


def machine_of(
    xml: str, power: Power, changes: Iterable[str] = (), off_network: Collection[str] = ()
) -> Machine:
    """The machine that a definition, as libvirt gives it back, describes.

    ``off_network``: the MACs of its cards that hang on no network.
    """
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
        cards=tuple(_card_of(card, off_network) for card in domain.iterfind("devices/interface")),
        changes=tuple(changes),
    )


def cards_off_network(live: ET.Element, ports: Collection[str] | None) -> list[ET.Element]:
    """The network cards of a running machine that have lost their port on a libvirt network.

    ``ports`` None: this libvirt does not list ports.  A card on no bridge (macvtap) cannot fall off one.
    """
    cards = [] if ports is None else live.findall("devices/interface[@type='network']")
    return [card for card in cards if (port := _port_of(card)) and port not in (ports or ())]


def _port_of(card: ET.Element) -> str | None:
    source = card.find("source")
    return source.get("portid") if source is not None and source.get("bridge") else None


def changes_in(xml: str, folder: str | None) -> list[str]:
    """The disks, devices and firmware memory in a definition that we did not put there."""
    domain = ET.fromstring(xml)  # noqa: S314 (libvirt's own words)
    machine = UUID(domain.findtext("uuid"))
    disks = [disk for disk in domain.iterfind("devices/disk") if not _is_ours(disk, machine, folder)]
    kinds = {device.tag for device in domain.iterfind("devices/*")} - _OUR_KINDS - _LIBVIRTS_KINDS
    cards = domain.findall("devices/interface")
    return [
        *(f"has another disk: {_source_of(disk)}" for disk in disks),
        *(f"has a device that we never give: {kind}" for kind in sorted(kinds)),
        *([f"has {len(cards)} network cards, and we give one"] if len(cards) > 1 else []),
        *(["has memory of its firmware (nvram)"] if domain.find("os/nvram") is not None else []),
    ]


def has_disk(xml: str, path: str) -> bool:
    """Whether a definition gives its machine this file as a disk."""
    disks = ET.fromstring(xml).iterfind("devices/disk/source")  # noqa: S314 (libvirt's own words)
    return any(source.get("file") == path for source in disks)


def _is_ours(disk: ET.Element, machine: UUID, folder: str | None) -> bool:
    source = disk.find("source")
    place, _, name = ("" if source is None else source.get("file", "")).rpartition("/")
    volume = storage_names.parse(name)
    return place == folder and volume is not None and volume.is_ours and volume.machine == machine


def _source_of(disk: ET.Element) -> str:
    source = disk.find("source")
    return "none" if source is None else " ".join(source.attrib.values()) or "nameless"


def unreadable_machine(name: str, uuid: UUID, power: Power) -> Machine:
    """A machine whose definition says nothing to us."""
    ours = name == domain_name(uuid)
    return Machine(
        uuid=uuid, name=name, is_ours=ours, server=None, power=power, vcpus=0, memory_mib=0, is_readable=False
    )


def _server_of(domain: ET.Element) -> UUID | None:
    ours = domain.find(f"metadata/{{{NAMESPACE}}}server")
    try:
        return UUID(ours.get("uuid", "")) if ours is not None else None
    except ValueError:
        return None  # somebody has edited it


def mac_of(interface: ET.Element) -> str:
    mac = interface.find("mac")
    return "" if mac is None else mac.get("address", "")


def _card_of(interface: ET.Element, off_network: Collection[str]) -> Card:
    mac, filterref = mac_of(interface), interface.find("filterref")
    return Card(
        mac=mac,
        is_on_network=mac not in off_network,
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
