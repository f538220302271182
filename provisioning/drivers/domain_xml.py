"""The definition of a machine in libvirt's words.

Built from elements, never from strings: what a customer typed is only ever the
text or an attribute of an element, and escaping is the serialiser's business.
"""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from uuid import UUID

from . import network_filter
from .base import HypervisorError, MachineSpec, Nic

NAMESPACE = "urn:vpsorg:server:1"
ET.register_namespace("vps", NAMESPACE)
# A namespace of its own: libvirt replaces the elements of one namespace all at once.
DELIVERED_NAMESPACE = "urn:vpsorg:delivered:1"
DELIVERED_PREFIX = "vps-delivered"
ET.register_namespace(DELIVERED_PREFIX, DELIVERED_NAMESPACE)

# What XML 1.0 cannot carry; and line breaks and tabs, which libvirt refuses in a title and XML folds into
# spaces in an attribute.
_UNSPEAKABLE = re.compile("[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

DISK_TARGET = "vda"  # what libvirt calls a machine's own disk

# host-model shows the guest the host's features and can still be moved to a host alike.  An
# emulated machine has the host's speed to gain from nothing, so it gets all that QEMU can emulate.
_CPU_MODES = {"kvm": "host-model", "qemu": "maximum"}


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Where on the host the files of one machine are."""

    disk: str
    seed: str
    console_log: str


def domain_name(machine: UUID | str) -> str:
    """Unique, the same for ever, and the sign that a domain is ours."""
    return f"vps-{machine}"


def checked(text: str) -> str:
    """The text itself.  Raises HypervisorError if a host cannot be told it."""
    if _UNSPEAKABLE.search(text):
        raise HypervisorError(f"A control character cannot be written into a definition: {text!r}")
    return text


def domain_xml(
    spec: MachineSpec,
    *,
    domain_type: str,
    paths: Paths,
    limit_speed: bool = True,
    is_delivered: bool = False,
) -> str:
    """The whole definition, as ``virDomainDefineXML`` takes it."""
    domain = ET.Element("domain", type=domain_type)
    _add(domain, "name", domain_name(spec.uuid))
    _add(domain, "uuid", str(spec.uuid))
    if spec.name:
        _add(domain, "title", checked(spec.name))
    metadata = _add(domain, "metadata")
    attributes = {
        "uuid": str(spec.uuid),
        "account": checked(spec.account),
        "hostname": checked(spec.hostname),
    }
    ET.SubElement(metadata, f"{{{NAMESPACE}}}server", attributes)
    if is_delivered:
        ET.SubElement(metadata, f"{{{DELIVERED_NAMESPACE}}}delivered")
    _add(domain, "memory", str(spec.memory_mib), unit="MiB")
    _add(domain, "vcpu", str(spec.vcpus))
    _add_platform(domain, domain_type)
    devices = _add(domain, "devices")
    _add_disk(devices, paths.disk, "qcow2", target=DISK_TARGET, boot=True)
    _add_disk(devices, paths.seed, "raw", target="vdb", readonly=True)
    for nic in spec.nics:
        _add_nic(devices, nic, limit_speed)
    _add_small_devices(devices, paths.console_log)
    return ET.tostring(domain, encoding="unicode")


def without_speed_limits(xml: str) -> str:
    """The same definition, for a host that cannot limit the speed of a network card."""
    domain = ET.fromstring(xml)  # noqa: S314 (libvirt's own words)
    for interface in domain.iterfind("devices/interface"):
        for bandwidth in interface.findall("bandwidth"):
            interface.remove(bandwidth)
    return ET.tostring(domain, encoding="unicode")


def _add_platform(domain: ET.Element, domain_type: str) -> None:
    os = _add(domain, "os")
    _add(os, "type", "hvm", arch="x86_64", machine="q35")
    features = _add(domain, "features")
    _add(features, "acpi")
    _add(features, "apic")
    if mode := _CPU_MODES.get(domain_type):
        _add(domain, "cpu", mode=mode)
    _add(domain, "clock", offset="utc")
    _add(domain, "on_poweroff", "destroy")
    _add(domain, "on_reboot", "restart")
    # Only a guest that reports its panic (pvpanic) comes here; it reboots.  When QEMU itself dies libvirt
    # says so in the reason of the shut-off state, whatever stands here.
    _add(domain, "on_crash", "restart")
    power_management = _add(domain, "pm")
    _add(power_management, "suspend-to-mem", enabled="no")  # nobody could wake it
    _add(power_management, "suspend-to-disk", enabled="no")


def _add_disk(
    devices: ET.Element, path: str, format: str, *, target: str, boot: bool = False, readonly: bool = False
) -> None:
    disk = _add(devices, "disk", type="file", device="disk")
    driver = _add(disk, "driver", name="qemu", type=format)
    _add(disk, "source", file=path)
    _add(disk, "target", dev=target, bus="virtio")
    if boot:
        _add(disk, "boot", order="1")
    if readonly:
        _add(disk, "readonly")
    else:
        driver.attrib |= {"cache": "none", "io": "native", "discard": "unmap", "detect_zeroes": "unmap"}


def _add_nic(devices: ET.Element, nic: Nic, limit_speed: bool) -> None:
    interface = _add(devices, "interface", type="network")
    _add(interface, "mac", address=nic.mac)
    _add(interface, "source", network=nic.network)
    _add(interface, "model", type="virtio")
    filterref = _add(interface, "filterref", filter=network_filter.NAME)
    for name, value in network_filter.parameters(nic):
        _add(filterref, "parameter", name=name, value=value)
    if limit_speed and nic.speed_mbps is not None:
        kibibytes = str(max(1, nic.speed_mbps * 1_000_000 // 8 // 1024))
        bandwidth = _add(interface, "bandwidth")
        _add(bandwidth, "inbound", average=kibibytes)
        _add(bandwidth, "outbound", average=kibibytes)


def _add_small_devices(devices: ET.Element, console_log: str) -> None:
    serial = _add(devices, "serial", type="pty")
    _add(serial, "log", file=console_log, append="on")
    _add(serial, "target", type="isa-serial", port="0")
    agent = _add(devices, "channel", type="unix")
    _add(agent, "target", type="virtio", name="org.qemu.guest_agent.0")
    balloon = _add(devices, "memballoon", model="virtio")
    _add(balloon, "stats", period="10")
    random = _add(devices, "rng", model="virtio")
    _add(random, "backend", "/dev/urandom", model="random")


def _add(parent: ET.Element, tag: str, text: str | None = None, /, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element
