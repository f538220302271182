"""Compares rows with hosts.  Skips servers with an open operation, and hosts that do not answer."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from django.conf import settings

from core.findings import Finding
from provisioning.drivers.base import (
    HostMisconfigured,
    HostUnreachable,
    HypervisorError,
    Image,
    Machine,
    WrongHost,
)
from provisioning.drivers.storage_names import disk_volume, image_named, image_volume, is_disk, seed_volume
from provisioning.verify.findings import Code
from provisioning.verify.snapshot import (
    EXPECTED_POWER,
    Answers,
    HostAnswer,
    HostRow,
    PlacementRow,
    PortRow,
    Rows,
    ServerRow,
)
from servers.states import PowerState, ServerStatus


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
    if isinstance(error, WrongHost):
        code = Code.HOST_WRONG
    elif isinstance(error, HostUnreachable):
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
    if not facts.room.has_free(settings.VPS_POOL_RESERVE):
        yield Finding(
            Code.HOST_DISK_NEARLY_FULL,
            name,
            f"takes no new servers: in its pool {facts.room}.",
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
        if rows.is_trial_on(host.name, machine.uuid):
            continue
        server = rows.servers.get(machine.uuid)
        home = server and rows.host_of(server)
        if server is None or home is None:
            whose = "no server" if server is None else f"server {server.id}, which holds no placement"
            yield Finding(
                Code.MACHINE_ORPHAN, name, f"is {machine.power.state} and of {whose}.", machine.uuid
            )
        elif not rows.may_be_on(server, host.name):
            yield Finding(
                Code.MACHINE_ON_WRONG_HOST,
                name,
                f"is {machine.power.state}; server {server.id} is placed on {home}.",
                machine.uuid,
            )


def _volumes(rows: Rows, host: HostRow, answer: HostAnswer) -> Iterator[Finding]:
    for volume in answer.volumes:
        if not volume.is_ours:
            yield Finding(
                Code.VOLUME_FOREIGN,
                f"volume {volume.name} on {host.name}",
                "is not ours and stands beside our files; it is left alone.",
            )
            continue
        if volume.machine is None:
            image = image_named(volume.name)
            if image and image.sha256 not in rows.known_images:
                yield Finding(
                    Code.IMAGE_UNKNOWN,
                    f"volume {volume.name} on {host.name}",
                    "is an image of which we have no row; it is left alone.",
                )
            continue
        if rows.is_trial_on(host.name, volume.machine):
            continue
        server = rows.servers.get(volume.machine)
        if server is None or not rows.may_be_on(server, host.name):
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
    disk = disk_volume(server.uuid, server.disk_number)
    if disk not in volumes:
        yield Code.SERVER_DISK_MISSING, f"is {server.status}, and there is no disk {disk}."
    if spare := sorted(
        name for name in volumes - {disk} if is_disk(name) and name.startswith(str(server.uuid))
    ):
        yield Code.SERVER_SPARE_DISK, f"has the disk {disk}, and beside it there is {', '.join(spare)}."
    if server.base_image and image_volume(Image(sha256=server.base_image)) not in volumes:
        yield Code.SERVER_IMAGE_MISSING, f"has a disk based on image {server.base_image}, which is gone."
    if seed_volume(server.uuid) not in volumes:
        yield Code.SERVER_SEED_MISSING, f"has no seed {seed_volume(server.uuid)}."
    if machine is None:
        yield Code.SERVER_MACHINE_MISSING, f"is {server.status}, and its host does not know it."
        return
    yield from _power(server, machine)
    if machine.changes:
        yield Code.SERVER_CHANGED, f"was changed on its host: its machine {'; '.join(machine.changes)}."
    if not machine.is_readable:
        yield Code.SERVER_UNREADABLE, "has a machine whose definition cannot be read."
        return
    yield from _size(rows.placements[server.home or 0], machine)
    if server.port is not None:
        yield from _card(rows.ports[server.port], machine)


def _power(server: ServerRow, machine: Machine) -> Iterator[tuple[Code, str]]:
    power = machine.power.state
    if server.status == ServerStatus.ACTIVE and power == PowerState.PAUSED:
        yield Code.SERVER_PAUSED, "is active, and its host has paused it."
    elif server.status == ServerStatus.SUSPENDED and power == PowerState.RUNNING:
        yield Code.SERVER_RUNS_SUSPENDED, "is suspended, and its machine runs."
    elif power != EXPECTED_POWER[server.status]:
        yield Code.SERVER_POWER, f"is {server.status}, and its machine is {power}."


def _size(placement: PlacementRow, machine: Machine) -> Iterator[tuple[Code, str]]:
    size = placement.size
    if machine.vcpus != size.vcpus:
        yield Code.SERVER_VCPUS, f"holds {size.vcpus} vCPUs, and its machine has {machine.vcpus}."
    if machine.memory_mib != size.memory_mib:
        yield (
            Code.SERVER_MEMORY,
            f"holds {size.memory_mib} MiB of memory, and its machine has {machine.memory_mib}.",
        )


def _card(port: PortRow, machine: Machine) -> Iterator[tuple[Code, str]]:
    macs = [card.mac for card in machine.cards]
    if macs != [port.mac]:
        yield Code.SERVER_MAC, f"should have the MAC {port.mac}, and has {', '.join(macs) or 'none'}."
    if not all(card.is_filtered for card in machine.cards):
        yield Code.SERVER_UNFILTERED, "has a network card without our filter."
    if not all(card.is_on_network for card in machine.cards):
        yield Code.SERVER_OFF_NETWORK, "runs, and its network card hangs on no network."
    wanted = {ip_address(row.address) for row in port.addresses}
    passing = {address for card in machine.cards for address in card.addresses}
    if wanted != passing:
        yield (
            Code.SERVER_ADDRESSES,
            f"has {_listed(wanted)}, and its host's filter lets {_listed(passing)} pass.",
        )


def _doubles(rows: Rows, answers: Answers) -> Iterator[Finding]:
    """MACs and addresses that two machines of a location share.  Two foreign machines may."""
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
