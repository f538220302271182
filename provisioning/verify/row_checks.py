"""Compares rows with rows: invariants that hold whatever the hosts do."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network

from core.findings import Finding
from inventory.models import Hypervisor
from provisioning.verify.findings import Code
from provisioning.verify.snapshot import HostRow, OperationRow, Rows, ServerRow, Size
from servers.selectors import MOST_STARTS
from servers.states import RULES, OperationKind, OperationStatus, ServerStatus

NOT_SEEN_FOR = timedelta(minutes=10)
NOT_SAMPLED_FOR = timedelta(minutes=15)
# A step that is under way ends before its operation is given up; workers look again after two minutes.
OVERDUE_FOR = timedelta(minutes=10)
ABANDONED_FOR = timedelta(minutes=5)
DELETE_STUCK_AFTER = timedelta(hours=6)
FEW_ADDRESSES = 0.05

SHOWN_BY_OPERATIONS = {rule.shows for rule in RULES.values()}
HOLDS_NOTHING = {ServerStatus.DELETED, ServerStatus.ERROR}


def check_rows(rows: Rows) -> Iterator[Finding]:
    for check in CHECKS:
        yield from check(rows)


def _hosts(rows: Rows) -> Iterator[Finding]:
    for host in rows.hosts.values():
        yield from _host(rows, host)


def _host(rows: Rows, host: HostRow) -> Iterator[Finding]:
    name, placed = f"host {host.name}", [p for p in rows.placements.values() if p.host == host.name]
    claimed = Size(
        vcpus=sum(p.size.vcpus for p in placed),
        memory_mib=sum(p.size.memory_mib for p in placed),
        disk_gib=sum(p.size.disk_gib for p in placed),
    )
    if host.used != claimed:
        yield Finding(
            Code.HOST_COUNTERS, name, f"counts {host.used} as used; its placements add up to {claimed}."
        )
    if host.status == Hypervisor.Status.DISABLED:
        if placed:
            yield Finding(
                Code.HOST_DISABLED, name, f"is disabled, so nobody watches its {len(placed)} servers."
            )
    elif host.last_seen_at is None:
        yield Finding(Code.HOST_NOT_SEEN, name, "has never answered reconcile.")
    elif rows.at - host.last_seen_at > NOT_SEEN_FOR:
        yield Finding(
            Code.HOST_NOT_SEEN, name, f"last answered reconcile at {_minute(host.last_seen_at)} UTC."
        )


def _samples(rows: Rows) -> Iterator[Finding]:
    since = rows.at - NOT_SAMPLED_FOR
    stale = Counter(
        rows.host_of(server)
        for server in rows.servers.values()
        if server.status == ServerStatus.ACTIVE
        and server.is_reconciled
        and server.written_at < since
        and (server.sampled_at is None or server.sampled_at < since)
    )
    for host, count in stale.items():
        yield Finding(
            Code.HOST_NOT_SAMPLED,
            f"host {host}",
            f"gave no usage of {count} active servers since {_minute(since)} UTC.",
        )


def _servers(rows: Rows) -> Iterator[Finding]:
    for server in rows.servers.values():
        name = f"server {server.id}"
        if server.keeps_dying:
            yield Finding(
                Code.SERVER_KEEPS_DYING,
                name,
                f"is stopped, and reconcile had to start it {MOST_STARTS} times within the hour before.",
            )
        if server.operation is None and server.status in SHOWN_BY_OPERATIONS:
            yield Finding(
                Code.SERVER_STUCK, name, f"is {server.status}, and no operation is open that would end it."
            )
        if server.home is None:
            if server.status not in HOLDS_NOTHING and not _is_being_deleted(server):
                yield Finding(Code.SERVER_UNPLACED, name, f"is {server.status} and has no placement.")
        else:
            yield from _placed(rows, server, name)
        if server.operation:
            yield from _operation(rows.at, server, server.operation)


def _is_being_deleted(server: ServerRow) -> bool:
    return server.operation is not None and server.operation.kind == OperationKind.DELETE


def _placed(rows: Rows, server: ServerRow, name: str) -> Iterator[Finding]:
    placement = rows.placements[server.home or 0]
    host = rows.hosts[placement.host]
    if server.location != host.location:
        yield Finding(
            Code.SERVER_LOCATION,
            name,
            f"was sold in {server.location} and is on {host.name} in {host.location}.",
        )
    if server.status == ServerStatus.DELETED:
        yield Finding(
            Code.PLACEMENT_OF_DELETED, name, f"is deleted and still holds {placement.size} on {host.name}."
        )
    if server.status == ServerStatus.ERROR and server.operation is None:
        yield Finding(
            Code.PLACEMENT_OF_FAILED,
            name,
            f"could not be made and still holds {placement.size} on {host.name}.",
        )
    if server.is_idle and server.plan != placement.size:
        yield Finding(
            Code.SERVER_SIZE, name, f"has a plan of {server.plan} and holds {placement.size} on {host.name}."
        )
    if server.port is None:
        yield Finding(Code.SERVER_WITHOUT_PORT, name, f"is on {host.name} and has no network card.")
        return
    port = rows.ports[server.port]
    for address in port.addresses:
        if address.location != host.location:
            yield Finding(
                Code.ADDRESS_LOCATION,
                f"address {address.address}",
                f"belongs to {address.location} and is given to server {server.id} in {host.location}.",
            )
    ours = {address.address for address in port.addresses}
    networks = [ip_network(pool.network) for pool in rows.pools]
    foreign = [told for told in server.reported if any(ip_address(told) in network for network in networks)]
    if server.status == ServerStatus.ACTIVE and server.is_idle and foreign:
        yield Finding(
            Code.SERVER_REPORTED_ADDRESS,
            name,
            f"shows {', '.join(sorted(foreign))}; its own are {', '.join(sorted(ours)) or 'none'}.",
        )


def _operation(now: datetime, server: ServerRow, operation: OperationRow) -> Iterator[Finding]:
    name = f"operation {operation.id}"
    what = f"{operation.kind} of server {server.id}"
    shows = RULES[operation.kind].shows
    if server.status != shows:
        yield Finding(
            Code.OPERATION_STATUS, name, f"{what} is open, and the server is {server.status}, not {shows}."
        )
    if operation.deadline_at and now - operation.deadline_at > OVERDUE_FOR:
        yield Finding(
            Code.OPERATION_OVERDUE, name, f"{what} should have ended by {_minute(operation.deadline_at)} UTC."
        )
    if operation.status == OperationStatus.RUNNING and operation.lease_until:
        if now - operation.lease_until > ABANDONED_FOR:
            yield Finding(
                Code.OPERATION_ABANDONED,
                name,
                f"{what} lost its worker at {_minute(operation.lease_until)} UTC and no other took it over.",
            )
    elif now - operation.due_at > ABANDONED_FOR:
        yield Finding(
            Code.OPERATION_FORGOTTEN,
            name,
            f"{what} is due since {_minute(operation.due_at)} UTC and no worker took it.",
        )
    if operation.kind == OperationKind.DELETE and now - operation.created_at > DELETE_STUCK_AFTER:
        yield Finding(
            Code.OPERATION_DELETE_STUCK,
            name,
            f"{what} was asked for at {_minute(operation.created_at)} UTC and is not done yet.",
        )


def _placements(rows: Rows) -> Iterator[Finding]:
    taken = {claim for server in rows.servers.values() for claim in (server.home, server.incoming)}
    taken |= {trial.placement for trial in rows.trials.values()}
    for placement in rows.placements.values():
        if placement.id not in taken:
            yield Finding(
                Code.PLACEMENT_UNUSED,
                f"placement {placement.id}",
                f"holds {placement.size} on {placement.host} for no server.",
            )


def _ports(rows: Rows) -> Iterator[Finding]:
    taken = {
        server.port
        for server in rows.servers.values()
        if server.home is not None or server.status not in HOLDS_NOTHING
    }
    for port in rows.ports.values():
        name = f"port {port.mac}"
        if port.id not in taken:
            held = ", ".join(address.address for address in port.addresses) or "no address"
            yield Finding(Code.PORT_UNUSED, name, f"holds {held} for no server.")
        if not port.addresses:
            yield Finding(Code.PORT_WITHOUT_ADDRESS, name, "has no address.")


def _offers(rows: Rows) -> Iterator[Finding]:
    for pool in rows.pools:
        if pool.free <= pool.addresses * FEW_ADDRESSES:
            yield Finding(
                Code.ADDRESSES_NEARLY_GONE,
                f"pool {pool.network}",
                f"has {pool.free} of {pool.addresses} addresses left.",
            )
    for image in rows.images:
        if not image.is_there:
            yield Finding(
                Code.IMAGE_MISSING,
                f"system {image.os}",
                f"is on offer, and its image {image.sha256}.qcow2 is not in VPS_IMAGE_DIR.",
            )


def _minute(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M")


CHECKS: tuple[Callable[[Rows], Iterator[Finding]], ...] = (
    _hosts,
    _samples,
    _servers,
    _placements,
    _ports,
    _offers,
)
