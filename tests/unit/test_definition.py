"""What we write into a definition is what we read out of it again."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from provisioning.drivers.base import Card, Machine, MachineSpec, Power
from provisioning.drivers.definition import machine_of
from provisioning.drivers.domain_xml import Paths, domain_xml
from servers.states import PowerState
from tests.unit.machines import MACHINE, NIC, spec

PATHS = Paths(disk="/d.qcow2", seed="/s.iso", console_log="/c.log")
OFF = Power(state=PowerState.OFF)


def as_libvirt_gives_it(wanted: MachineSpec) -> ET.Element:
    """libvirt gives memory in KiB, whatever it was given in."""
    domain = ET.fromstring(domain_xml(wanted, domain_type="qemu", paths=PATHS))
    memory = domain.find("memory")
    assert memory is not None
    memory.set("unit", "KiB")
    memory.text = str(wanted.memory_mib * 1024)
    return domain


def read(domain: ET.Element) -> Machine:
    return machine_of(ET.tostring(domain, encoding="unicode"), OFF)


def test_a_machine_is_read_as_it_was_written() -> None:
    addresses = tuple(address.ip for address in NIC.addresses)
    assert read(as_libvirt_gives_it(spec())) == Machine(
        uuid=MACHINE,
        name=f"vps-{MACHINE}",
        is_ours=True,
        server=MACHINE,
        power=OFF,
        vcpus=2,
        memory_mib=1024,
        cards=(Card(mac=NIC.mac, is_filtered=True, addresses=addresses),),
    )


def test_a_card_without_addresses_lets_none_pass() -> None:
    [card] = read(as_libvirt_gives_it(spec(nics=(replace(NIC, addresses=()),)))).cards
    assert card.addresses == ()
    assert card.is_filtered


def test_a_machine_under_another_name_is_not_ours_whatever_it_says_of_itself() -> None:
    domain = as_libvirt_gives_it(spec())
    other = uuid4()
    for tag, text in {"name": "a-copy", "uuid": str(other)}.items():
        element = domain.find(tag)
        assert element is not None
        element.text = text
    copy = read(domain)
    assert (copy.is_ours, copy.uuid, copy.server) == (False, other, MACHINE)


@pytest.mark.parametrize("foreign_filter", [None, "clean-traffic"])
def test_another_filter_than_ours_is_none(foreign_filter: str | None) -> None:
    domain = as_libvirt_gives_it(spec())
    interface = domain.find("devices/interface")
    assert interface is not None
    filterref = interface.find("filterref")
    assert filterref is not None
    if foreign_filter is None:
        interface.remove(filterref)
    else:
        filterref.set("filter", foreign_filter)
    [card] = read(domain).cards
    assert not card.is_filtered


def test_what_is_no_address_in_the_filter_of_somebody_else_is_passed_over() -> None:
    domain = as_libvirt_gives_it(spec())
    for parameter in domain.iterfind("devices/interface/filterref/parameter"):
        parameter.set("value", "203.0.113.0/24")
    [card] = read(domain).cards
    assert card.addresses == ()


def test_what_is_not_ours_may_lack_everything() -> None:
    uuid = UUID(int=7)
    bare = f"<domain><name>x</name><uuid>{uuid}</uuid><devices><interface/></devices></domain>"
    assert machine_of(bare, OFF) == Machine(
        uuid=uuid,
        name="x",
        is_ours=False,
        server=None,
        power=OFF,
        vcpus=1,
        memory_mib=0,
        cards=(Card(mac="", is_filtered=False),),
    )
