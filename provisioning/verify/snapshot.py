"""The rows and the hosts' answers as values, so that the checks can be tested from tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from backups.kinds import BackupStatus
from inventory.models import Hypervisor
from provisioning.drivers.base import HostFacts, HypervisorError, Machine, Volume
from servers.states import AT_REST, OperationKind, OperationStatus, PowerState, ServerStatus


@dataclass(frozen=True, kw_only=True)
class Size:
    vcpus: int
    memory_mib: int
    disk_gib: int

    def __str__(self) -> str:
        return f"{self.vcpus} vCPU, {self.memory_mib} MiB, {self.disk_gib} GiB"


@dataclass(frozen=True, kw_only=True)
class HostRow:
    name: str
    location: str
    status: Hypervisor.Status
    domain_type: str
    for_sale: Size
    used: Size
    last_seen_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class AddressRow:
    address: str
    location: str


@dataclass(frozen=True, kw_only=True)
class PlacementRow:
    id: int
    host: str
    size: Size


@dataclass(frozen=True, kw_only=True)
class PortRow:
    id: int
    mac: str
    addresses: tuple[AddressRow, ...]


@dataclass(frozen=True, kw_only=True)
class OperationRow:
    """An open operation."""

    id: int
    kind: OperationKind
    status: OperationStatus
    created_at: datetime
    due_at: datetime
    lease_until: datetime | None
    deadline_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class ServerRow:
    """A server that is not deleted, or that still holds something."""

    id: int
    uuid: UUID
    status: ServerStatus
    location: str
    plan: Size
    base_image: str | None  # the SHA-256 of what its disk needs; None: it stands alone
    disk_number: int
    home: int | None
    port: int | None
    operation: OperationRow | None
    reported: tuple[str, ...]  # what its guest showed besides its addresses
    written_at: datetime
    sampled_at: datetime | None
    incoming: int | None = None
    keeps_dying: bool = False
    backup_due_at: datetime | None = None
    last_automatic: BackupStatus | None = None  # of its last automatic backup that has ended

    @property
    def is_idle(self) -> bool:
        return self.operation is None and self.status in AT_REST

    @property
    def is_reconciled(self) -> bool:
        return self.is_idle and self.home is not None


@dataclass(frozen=True, kw_only=True)
class BackupRow:
    """A backup that is whole, or about which an operation is open."""

    id: int
    uuid: UUID
    copied_as: UUID | None
    server: UUID
    server_id: int
    status: BackupStatus
    is_open: bool
    verified_at: datetime | None
    damage: str
    is_newest: bool  # of the whole ones of its server


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """The machine that is started to see whether a backup boots."""

    host: str
    placement: int


@dataclass(frozen=True, kw_only=True)
class Again:
    """What was read once more of some servers, by the uuid of each row, after the hosts were asked."""

    servers: Mapping[UUID, ServerRow]
    trials: Mapping[UUID, TrialRow]
    backups: Mapping[UUID, BackupRow]


@dataclass(frozen=True, kw_only=True)
class PoolRow:
    network: str
    addresses: int
    free: int


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """A system on offer."""

    os: str
    sha256: str
    is_there: bool


@dataclass(frozen=True, kw_only=True)
class Rows:
    """All rows as they were at one moment."""

    at: datetime
    hosts: Mapping[str, HostRow]
    placements: Mapping[int, PlacementRow]
    ports: Mapping[int, PortRow]
    servers: Mapping[UUID, ServerRow]
    backups: Mapping[UUID, BackupRow] = field(default_factory=dict)
    frozen_perhaps: Mapping[str, tuple[UUID, ...]] = field(default_factory=dict)  # by host
    trials: Mapping[UUID, TrialRow] = field(default_factory=dict)
    pools: tuple[PoolRow, ...] = ()
    images: tuple[ImageRow, ...] = ()
    known_images: frozenset[str] = frozenset()

    def host_of(self, server: ServerRow) -> str | None:
        return None if server.home is None else self.placements[server.home].host

    def may_be_on(self, server: ServerRow, host: str) -> bool:
        """Whether the server is on this host, or moves to it."""
        claims = (server.home, server.incoming)
        return any(claim is not None and self.placements[claim].host == host for claim in claims)

    def is_trial_on(self, host: str, machine: UUID) -> bool:
        return machine in self.trials and self.trials[machine].host == host

    def servers_on(self, host: str) -> list[ServerRow]:
        return [server for server in self.servers.values() if self.host_of(server) == host]


@dataclass(frozen=True, kw_only=True)
class HostAnswer:
    """All that one host says of itself."""

    facts: HostFacts
    machines: tuple[Machine, ...]
    volumes: tuple[Volume, ...]
    frozen: tuple[UUID, ...] = ()  # of those machines that it was asked about


# For each host: its answer, or why it gave none.
Answers = Mapping[str, HostAnswer | HypervisorError]

EXPECTED_POWER = {
    ServerStatus.ACTIVE: PowerState.RUNNING,
    ServerStatus.STOPPED: PowerState.OFF,
    ServerStatus.SUSPENDED: PowerState.OFF,
}
