"""What a host says of its machines: their power and what they use."""

import logging
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import libvirt

from core.one_by_one import read_each
from servers.states import PowerState

from . import libvirt_networks
from .base import Machine, Power, Usage
from .definition import cards_off_network, mac_of, machine_of, unreadable_machine
from .domain_xml import domain_name
from .libvirt_backups import checkpoints_of
from .libvirt_changes import changes_of, definitions_of, oddities_of
from .libvirt_errors import is_fatal
from .libvirt_storage import StoragePool

logger = logging.getLogger(__name__)

# While QEMU winds down a guest that powered itself off the state is SHUTDOWN: not off yet.
_RUNNING = {libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED, libvirt.VIR_DOMAIN_SHUTDOWN}
_PAUSED = {libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PMSUSPENDED, libvirt.VIR_DOMAIN_CRASHED}
_STARTING = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)
# QEMU pauses a machine whose disk cannot grow, and tells the guest of any other error of its disk.
_WAITING = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR)
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
        return Power(state=PowerState.PAUSED, waits_for_room=(state, reason) == _WAITING)
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        return Power(state=PowerState.OFF, off_on_purpose=reason in _ON_PURPOSE)
    return Power(state=PowerState.UNKNOWN)


def powers(connection: Any) -> dict[UUID, Power]:
    """The power of each machine of ours.  A machine that cannot be read is left out."""
    every = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, _NOWAIT)
    return dict(filter(None, read_each("machine", every, _uuid_and_power, concerns_all=is_fatal)))


def _uuid_and_power(told: tuple[Any, Mapping[str, int]]) -> tuple[UUID, Power] | None:
    domain, stats = told
    uuid = domain.UUIDString()
    return (UUID(uuid), _power_in(stats)) if domain.name() == domain_name(uuid) else None


def _power_in(stats: Mapping[str, int]) -> Power:
    return power_of(stats["state.state"], stats["state.reason"])


def machines(connection: Any, pool: StoragePool, networks: Sequence[str]) -> list[Machine]:
    """All machines on the host: one bulk call, and some calls for each: definitions cannot be had in bulk."""
    every = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, _NOWAIT)
    read = partial(_machine, pool, libvirt_networks.ports(connection, networks))
    return list(filter(None, read_each("machine", every, read, concerns_all=is_fatal)))


def _machine(
    pool: StoragePool, ports: Collection[str] | None, told: tuple[Any, Mapping[str, int]]
) -> Machine | None:
    """None: it was undefined since."""
    domain, stats = told
    is_ours = domain.name() == domain_name(domain.UUIDString())
    try:
        stored, *live = definitions = definitions_of(domain)
        changes = [*changes_of(pool, domain, definitions), *oddities_of(domain)] if is_ours else []
        off = [mac_of(card) for xml in live for card in cards_off_network(ET.fromstring(xml), ports)]  # noqa: S314
        machine = machine_of(stored, _power_in(stats), changes, off)
        return replace(machine, checkpoints=checkpoints_of(domain)) if is_ours else machine
    except libvirt.libvirtError as error:
        if is_fatal(error):
            raise
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        reason = str(error)
    except (ValueError, ET.ParseError) as error:
        reason = repr(error)
    logger.warning("the definition of %s cannot be read: %s", domain.name(), reason)
    return unreadable_machine(domain.name(), UUID(domain.UUIDString()), _power_in(stats))


def usage(connection: Any, machines: Iterable[UUID]) -> dict[UUID, Usage]:
    wanted = {str(machine) for machine in machines}
    running = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    domains = [domain for domain in running if domain.UUIDString() in wanted]
    if not domains:  # libvirt takes an empty list for "all"
        return {}
    told = connection.domainListGetStats(domains, _GROUPS, _NOWAIT)
    return dict(filter(None, read_each("sample", told, _uuid_and_usage, concerns_all=is_fatal)))


def _uuid_and_usage(told: tuple[Any, Mapping[str, Any]]) -> tuple[UUID, Usage] | None:
    domain, stats = told
    sample = usage_of(stats, vcpus=domain.maxVcpus())
    return (UUID(domain.UUIDString()), sample) if sample else None


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
    """The memory in use as the guest reports it, if that is plausible; else what it costs the host."""
    most = int(stats["balloon.maximum"])
    free = stats.get("balloon.usable", stats.get("balloon.unused"))
    if free is not None and 0 <= free <= stats.get("balloon.available", -1) <= most:
        return int(stats["balloon.available"] - free)
    return min(int(stats["balloon.rss"]), most)


def _root_disk_bytes(stats: Mapping[str, Any]) -> int:
    """The size of the disk's own file: what it shares with the image is not in it.

    Not ``allocation``: QEMU counts that from zero at each start.
    """
    return int(stats["block.0.physical"])


def _sum(stats: Mapping[str, Any], group: str, counter: str) -> int:
    return sum(stats[f"{group}.{number}.{counter}"] for number in range(stats[f"{group}.count"]))
