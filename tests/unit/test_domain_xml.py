"""A machine in libvirt's words: exactly what was asked for, whatever somebody typed."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import pytest

from provisioning.drivers.base import HypervisorError
from provisioning.drivers.domain_xml import NAMESPACE, Paths, domain_xml, without_speed_limits
from tests.unit.machines import HOSTILE, MACHINE, NIC, spec

PATHS = Paths(disk="/pool/disk.qcow2", seed="/pool/seed.iso", console_log="/pool/console.log")


def parse(domain_type: str = "kvm", **changes: Any) -> ET.Element:
    return ET.fromstring(domain_xml(spec(**changes), domain_type=domain_type, paths=PATHS))


def attributes(domain: ET.Element, path: str) -> dict[str, str]:
    element = domain.find(path)
    assert element is not None, path
    return element.attrib


def test_it_has_what_was_paid_for() -> None:
    domain = parse()
    assert (domain.findtext("uuid"), domain.findtext("name")) == (str(MACHINE), f"vps-{MACHINE}")
    assert (domain.findtext("memory"), attributes(domain, "memory")) == ("1024", {"unit": "MiB"})
    assert domain.findtext("vcpu") == "2"


@pytest.mark.parametrize(
    ("domain_type", "mode"), [("kvm", "host-model"), ("qemu", "maximum"), ("test", None)]
)
def test_the_processor_suits_the_host(domain_type: str, mode: str | None) -> None:
    cpu = parse(domain_type).find("cpu")
    assert (cpu.get("mode") if cpu is not None else None) == mode


def test_the_disk_can_be_written_and_the_seed_cannot() -> None:
    disk, seed = parse().iterfind("devices/disk")
    assert (attributes(disk, "source")["file"], attributes(disk, "target")["dev"]) == (PATHS.disk, "vda")
    assert (attributes(seed, "source")["file"], attributes(seed, "target")["dev"]) == (PATHS.seed, "vdb")
    assert disk.find("readonly") is None
    assert seed.find("readonly") is not None


def test_the_console_is_kept_over_all_boots() -> None:
    assert attributes(parse(), "devices/serial/log") == {"file": PATHS.console_log, "append": "on"}


def test_the_network_card_is_filtered_and_limited() -> None:
    domain = parse()
    parameters = [(p.get("name"), p.get("value")) for p in domain.iterfind("devices/interface/filterref/*")]
    assert parameters == [
        ("IP", "203.0.113.10"),
        ("IPV6", "2001:db8:113::10"),
        ("IPV6", "fe80::5054:ff:fe12:3456"),
    ]
    # 100 megabits are 12,500,000 bytes; libvirt counts in KiB.
    assert attributes(domain, "devices/interface/bandwidth/inbound") == {"average": "12207"}
    assert attributes(domain, "devices/interface/bandwidth/outbound") == {"average": "12207"}


def test_a_network_card_without_a_limit_has_none() -> None:
    assert parse(nics=(replace(NIC, speed_mbps=None),)).find(".//bandwidth") is None


def test_limits_can_be_taken_out_and_nothing_else() -> None:
    with_limits = domain_xml(spec(), domain_type="kvm", paths=PATHS)
    without = domain_xml(spec(), domain_type="kvm", paths=PATHS, limit_speed=False)
    assert ET.canonicalize(without_speed_limits(with_limits)) == ET.canonicalize(without)
    assert "bandwidth" in with_limits
    assert "bandwidth" not in without


@pytest.mark.parametrize("text", HOSTILE)
def test_what_somebody_typed_is_only_ever_text(text: str) -> None:
    domain = parse(name=text, account=text, hostname=text)
    assert domain.findtext("title") == text
    said = attributes(domain, f"metadata/{{{NAMESPACE}}}server")
    assert said == {"uuid": str(MACHINE), "account": text, "hostname": text}
    assert [element.tag for element in domain.iter()] == [element.tag for element in parse().iter()]


@pytest.mark.parametrize("text", ["a\nb", "a\tb", "\x00", "\x1b[2J", "\x85", "\ud800", "\uffff"])
@pytest.mark.parametrize("field", ["name", "account", "hostname"])
def test_what_xml_cannot_carry_is_refused(field: str, text: str) -> None:
    with pytest.raises(HypervisorError, match="control character"):
        parse(**{field: text})


def test_a_machine_without_a_name_has_no_title() -> None:
    assert parse(name="").find("title") is None
