"""A host as a whole: what it is and has, and making it ready."""

import logging
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import libvirt

from . import libvirt_filters
from .base import HostFacts, HostMisconfigured
from .libvirt_storage import StoragePool

logger = logging.getLogger(__name__)

_DOMAIN_TYPES = ("kvm", "qemu", "test")  # the best first


def facts(connection: Any, pool_name: str, networks: Sequence[str]) -> HostFacts:
    """Raises HostMisconfigured when the pool or one of the networks is missing or not started."""
    check_ready(connection, pool_name, networks)
    version = connection.getLibVersion()
    return HostFacts(
        hostname=connection.getHostname(),
        libvirt_version=f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}",
        domain_type=_domain_type(connection),
        vcpus=connection.getInfo()[2],
        memory_mib=_memory_mib(connection),
        room=StoragePool(connection, pool_name).room(),
    )


def host_uuid(connection: Any) -> UUID | None:
    """libvirt's: of libvirtd.conf, or else of the machine's firmware."""
    told = ET.fromstring(connection.getCapabilities()).findtext("host/uuid")  # noqa: S314 (libvirt's own words)
    return UUID(told) if told else None


def check_ready(connection: Any, pool_name: str, networks: Sequence[str]) -> None:
    for thing in _needed(connection, pool_name, networks):
        if not thing.isActive():
            raise HostMisconfigured(f"{thing.name()} is not started")


def _needed(connection: Any, pool_name: str, networks: Sequence[str]) -> Iterator[Any]:
    yield connection.storagePoolLookupByName(pool_name)
    yield from map(connection.networkLookupByName, networks)


def _memory_mib(connection: Any) -> int:
    """The kernel's total.  ``getInfo`` adds up NUMA nodes, which falls short while a balloon is inflated."""
    try:
        kibibytes = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)["total"]
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return int(connection.getInfo()[1])
    return int(kibibytes) // 1024


def _domain_type(connection: Any) -> str:
    """The best type that works.

    A host without hardware virtualisation can have /dev/kvm and offer ``kvm`` all the same, and its guests
    then hang: the processor itself must show it.
    """
    capabilities = ET.fromstring(connection.getCapabilities())  # noqa: S314 (libvirt's own words)
    offered = {domain.get("type") for domain in capabilities.iterfind("guest/arch/domain")}
    for domain_type in _DOMAIN_TYPES:
        if domain_type in offered and (domain_type != "kvm" or _has_virtualisation(connection, capabilities)):
            return domain_type
    raise HostMisconfigured(f"none of {', '.join(_DOMAIN_TYPES)} is offered")


def _has_virtualisation(connection: Any, capabilities: ET.Element) -> bool:
    cpu = capabilities.find("host/cpu")
    if cpu is None:
        return False
    # The capabilities name a model ("EPYC") and list only what it does not imply, and EPYC implies svm.
    expanded = connection.baselineCPU(
        [ET.tostring(cpu, encoding="unicode")], libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES
    )
    features = ET.fromstring(expanded).iterfind("feature")  # noqa: S314
    # libvirt 11 lists what the model implies and this CPU lacks too, as disabled.
    return any(f.get("name") in {"vmx", "svm"} and f.get("policy") != "disable" for f in features)


def prepare(connection: Any, pool_name: str, networks: Sequence[str]) -> None:
    """Start the pool and the networks, now and after each boot of the host; define our network filter."""
    for thing in _needed(connection, pool_name, networks):
        if not thing.isActive():
            thing.create()
            logger.info("started %s", thing.name())
        if not thing.autostart():
            thing.setAutostart(1)
    libvirt_filters.define(connection)
