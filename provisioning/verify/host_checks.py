"""Rows against hosts.  A server that something is being done to, or whose host cannot say, is not judged."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from provisioning.hypervisors.base import HostMisconfigured, HostUnreachable, HypervisorError, Machine
from provisioning.hypervisors.storage_names import disk_volume, seed_volume
from provisioning.verify.findings import Code, Finding
from provisioning.verify.snapshot import (
    EXPECTED_POWER,
    Answers,
    HostAnswer,
    HostRow,
    PlacementRow,
    Rows,
    ServerRow,
)
from servers.states import PowerState, ServerStatus

LITTLE_DISK = 0.05


def check_hosts(rows: Rows, answers: Answers) -> Iterator[Finding]:
    for name, answer in answers.items():
        host = rows.hosts[name]
        if isinstance(answer, HypervisorError):
            yield _unanswered(rows, host, answer)
            continue
        yield from _facts(host, answer)
        yield from _machines(rows, host, answer)
        yield from _volumes(rows, host, answer)
        yield from _servers(rows, host, answer)
    yield from _doubles(rows, answers)


def _unanswered(rows: Rows, host: HostRow, error: HypervisorError) -> Finding:
    code = Code.HOST_NOT_VERIFIED
    if isinstance(error, HostUnreachable):
        code = Code.HOST_UNREACHABLE
    elif isinstance(error, HostMisconfigured):
        code = Code.HOST_MISCONFIGURED
    servers = len(rows.servers_on(host.name))
    return Finding(code, f"host {host.name}", f"{_one_line(error)}; its {servers} servers are not verified.")


def _one_line(error: HypervisorError) -> str:
    return " ".join(str(error).split())


def _facts(host: HostRow, answer: HostAnswer) -> Iterator[Finding]:
    name, facts = f"host {host.name}", answer.facts
    if facts.domain_type != host.domain_type:
        yield Finding(
            Code.HOST_DOMAIN_TYPE,
            name,
            f"is registered as {host.domain_type}, and {facts.domain_type} works there.",
        )
    if host.for_sale.memory_mib > facts.memory_mib:
        yield Finding(
            Code.HOST_MEMORY_OVERSOLD,
            name,
            f"sells {host.for_sale.memory_mib} MiB of memory and has {facts.memory_mib}.",
        )
    if host.used.disk_gib > facts.disk_gib:
        yield Finding(
            Code.HOST_DISK_OVERSOLD,
            name,
            f"has sold {host.used.disk_gib} GiB of disk, and its pool has {facts.disk_gib}.",
        )
    if facts.disk_free_gib <= facts.disk_gib * LITTLE_DISK:
        yield Finding(
            Code.HOST_DISK_NEARLY_FULL,
            name,
            f"has {facts.disk_free_gib} of {facts.disk_gib} GiB free in its pool.",
        )


def _machines(rows: Rows, host: HostRow, answer: HostAnswer) -> Iterator[Finding]:
    for machine in answer.machines:
        name = f"machine {machine.name} on {host.name}"
        if not machine.is_ours:
            if machine.server is not None:
                yield Finding(
                    Code.MACHINE_COPY, name, f"has the metadata of machine {machine.server} and is not ours."
                )
            continue
        server = rows.servers.get(machine.uuid)
        home = server and rows.host_of(server)
        if server is None or home is None:
            whose = "no server" if server is None else f"server {server.id}, which holds no placement"
            yield Finding(
                Code.MACHINE_ORPHAN, name, f"is {machine.power.state} and of {whose}.", machine.uuid
            )
        elif home != host.name:
            yield Finding(
                Code.MACHINE_ON_WRONG_HOST,
                name,
                f"is {machine.power.state}; server {server.id} is placed on {home}.",
                machine.uuid,
            )


def _volumes(rows: Rows, host: HostRow, answer: HostAnswer) -> Iterator[Finding]:
    for volume in answer.volumes:
        if volume.machine is None:
            continue
        server = rows.servers.get(volume.machine)
        if server is None or rows.host_of(server) != host.name:
            yield Finding(
                Code.VOLUME_ORPHAN,
                f"volume {volume.name} on {host.name}",
                "belongs to no server of this host.",
                volume.machine,
            )


def _servers(rows: Rows, host: HostRow, answer: HostAnswer) -> Iterator[Finding]:
    machines = {machine.uuid: machine for machine in answer.machines if machine.is_ours}
    volumes = {volume.name for volume in answer.volumes}
    for server in rows.servers_on(host.name):
        if not server.is_idle:
            continue
        for code, sentence in _server(rows, server, machines.get(server.uuid), volumes):
            yield Finding(code, f"server {server.id}", f"{sentence} ({host.name})", server.uuid)


def _server(
    rows: Rows, server: ServerRow, machine: Machine | None, volumes: set[str]
) -> Iterator[tuple[Code, str]]:
    if disk_volume(server.uuid) not in volumes:
        yield (
            Code.SERVER_DISK_MISSING,
            f"is {server.status}, and there is no disk {disk_volume(server.uuid)}.",
        )
    if seed_volume(server.uuid) not in volumes:
        yield Code.SERVER_SEED_MISSING, f"has no seed {seed_volume(server.uuid)}."
    if machine is None:
        yield Code.SERVER_MACHINE_MISSING, f"is {server.status}, and its host does not know it."
        return
    yield from _power(server, machine)
    yield from _definition(rows.placements[server.placement or 0], machine)


def _power(server: ServerRow, machine: Machine) -> Iterator[tuple[Code, str]]:
    power = machine.power.state
    if server.status == ServerStatus.ACTIVE and power == PowerState.PAUSED:
        yield Code.SERVER_PAUSED, "is active, and its host has paused it."
    elif server.status == ServerStatus.SUSPENDED and power == PowerState.RUNNING:
        yield Code.SERVER_RUNS_SUSPENDED, "is suspended, and its machine runs."
    elif power != EXPECTED_POWER[server.status]:
        yield Code.SERVER_POWER, f"is {server.status}, and its machine is {power}."


def _definition(placement: PlacementRow, machine: Machine) -> Iterator[tuple[Code, str]]:
    size = placement.size
    if machine.vcpus != size.vcpus:
        yield Code.SERVER_VCPUS, f"holds {size.vcpus} vCPUs, and its machine has {machine.vcpus}."
    if machine.memory_mib != size.memory_mib:
        yield (
            Code.SERVER_MEMORY,
            f"holds {size.memory_mib} MiB of memory, and its machine has {machine.memory_mib}.",
        )
    macs = [card.mac for card in machine.cards]
    if macs != [placement.mac]:
        yield Code.SERVER_MAC, f"should have the MAC {placement.mac}, and has {', '.join(macs) or 'none'}."
    if not all(card.is_filtered for card in machine.cards):
        yield Code.SERVER_UNFILTERED, "has a network card without our filter."
    wanted = {ip_address(row.address) for row in placement.addresses}
    passing = {address for card in machine.cards for address in card.addresses}
    if wanted != passing:
        yield (
            Code.SERVER_ADDRESSES,
            f"has {_listed(wanted)}, and its host's filter lets {_listed(passing)} pass.",
        )


def _doubles(rows: Rows, answers: Answers) -> Iterator[Finding]:
    """What two machines of one location have in common and must not; foreign ones among themselves may."""
    by_mac: dict[tuple[str, str], list[tuple[str, Machine]]] = defaultdict(list)
    by_address: dict[tuple[str, str], list[tuple[str, Machine]]] = defaultdict(list)
    for name, answer in answers.items():
        if isinstance(answer, HypervisorError):
            continue
        location = rows.hosts[name].location
        for machine in answer.machines:
            for card in machine.cards:
                by_mac[location, card.mac].append((name, machine))
                for address in card.addresses:
                    by_address[location, str(address)].append((name, machine))
    for code, kind, found in (
        (Code.MACHINE_SAME_MAC, "MAC", by_mac),
        (Code.MACHINE_SAME_ADDRESS, "address", by_address),
    ):
        for (_, what), holders in found.items():
            ours = [machine for _, machine in holders if machine.is_ours]
            if ours and len(holders) > 1:
                names = ", ".join(f"{machine.name} on {name}" for name, machine in holders)
                yield Finding(code, f"{kind} {what}", f"is that of {names}.", ours[0].uuid)


def _listed(addresses: Iterable[IPv4Address | IPv6Address]) -> str:
    return ", ".join(sorted(map(str, addresses))) or "none"
