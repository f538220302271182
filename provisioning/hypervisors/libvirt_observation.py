"""What a host says of its machines: their power and what they use."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

import libvirt

from servers.states import PowerState

from .base import Machine, Power, Usage
from .definition import machine_of
from .domain_xml import domain_name

# While QEMU winds down a guest that powered itself off the state is SHUTDOWN: not off yet.
_RUNNING = {libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED, libvirt.VIR_DOMAIN_SHUTDOWN}
_PAUSED = {libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PMSUSPENDED, libvirt.VIR_DOMAIN_CRASHED}
_STARTING = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)
# Seen on libvirt 9.0: a guest's own ACPI poweroff is SHUTDOWN, destroy is DESTROYED, a killed QEMU is
# CRASHED, also when libvirtd was down meanwhile.  But a libvirtd that restarts forgets the reason (UNKNOWN)
# of all that was off before, and has none for what was never on.
_ON_PURPOSE = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN,
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED,
    libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED,
    libvirt.VIR_DOMAIN_SHUTOFF_SAVED,
}

_GROUPS = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)
# A busy monitor is passed over instead of waited for.
_NOWAIT = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT


def power_of(state: int, reason: int) -> Power:
    """Unknown is also what is starting.  A libvirtd that was killed meanwhile may say so for ever."""
    if state in _RUNNING:
        return Power(state=PowerState.RUNNING)
    if (state, reason) == _STARTING:
        return Power(state=PowerState.UNKNOWN)
    if state in _PAUSED:
        return Power(state=PowerState.PAUSED)
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        return Power(state=PowerState.OFF, off_on_purpose=reason in _ON_PURPOSE)
    return Power(state=PowerState.UNKNOWN)


def powers(connection: Any) -> dict[UUID, Power]:
    every = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, _NOWAIT)
    return {
        UUID(uuid): power_of(stats["state.state"], stats["state.reason"])
        for domain, stats in every
        if domain.name() == domain_name(uuid := domain.UUIDString())
    }


def machines(connection: Any) -> list[Machine]:
    """One call for all, and one for each definition: libvirt has none for many."""
    every = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, _NOWAIT)
    found = []
    for domain, stats in every:
        try:
            xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # undefined since
                raise
            continue
        found.append(machine_of(xml, power_of(stats["state.state"], stats["state.reason"])))
    return found


def usage(connection: Any, machines: Iterable[UUID]) -> dict[UUID, Usage]:
    wanted = {str(machine) for machine in machines}
    running = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    domains = [domain for domain in running if domain.UUIDString() in wanted]
    if not domains:  # libvirt takes an empty list for "all"
        return {}
    samples = {}
    for domain, stats in connection.domainListGetStats(domains, _GROUPS, _NOWAIT):
        if sample := usage_of(stats, vcpus=domain.maxVcpus()):
            samples[UUID(domain.UUIDString())] = sample
    return samples


def usage_of(stats: Mapping[str, Any], *, vcpus: int) -> Usage | None:
    """The sample in libvirt's numbers; None when some of them are missing."""
    try:
        return Usage(
            cpu_time_ns=stats["cpu.time"],
            vcpus=vcpus,
            memory_used_mib=_memory_used_kib(stats) // 1024,
            disk_used_gib=_root_disk_bytes(stats) / 2**30,
            received_bytes=_sum(stats, "net", "rx.bytes"),
            sent_bytes=_sum(stats, "net", "tx.bytes"),
        )
    except KeyError:
        return None


def _memory_used_kib(stats: Mapping[str, Any]) -> int:
    """What the guest has in use, by its own account, or else what it costs the host."""
    free = stats.get("balloon.usable", stats.get("balloon.unused"))
    if free is not None and "balloon.available" in stats:
        return int(stats["balloon.available"] - free)
    return int(min(stats["balloon.rss"], stats["balloon.maximum"]))


def _root_disk_bytes(stats: Mapping[str, Any]) -> int:
    """The size of the disk's own file: what it shares with the image is not in it.

    Not ``allocation``: QEMU counts that from zero at each start.
    """
    return int(stats["block.0.physical"])


def _sum(stats: Mapping[str, Any], group: str, counter: str) -> int:
    return sum(stats[f"{group}.{number}.{counter}"] for number in range(stats[f"{group}.count"]))
