"""The contract that every driver keeps.  tests/contract proves that it does.

Nothing here, nor in the modules beside it, may touch the database: a driver is
told values and gives back values.

Every call may be repeated.  Starting what runs, powering off what is off and
deleting what is gone all succeed: after a crash the worker simply asks again.
Every call has a time limit, and ends in a value or in one of the errors below.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import ClassVar, Protocol
from uuid import UUID

from backups.drafts import Extent
from backups.reading import Data
from servers.states import PowerState


class HypervisorError(Exception):
    """A host did not do what it was asked.  ``code`` is stable, ``str()`` is for staff."""

    code: ClassVar[str] = "hypervisor_error"
    sentence: ClassVar[str] = "The host could not carry this out."
    passes: ClassVar[bool] = False


class HostUnreachable(HypervisorError):
    """The host did not answer in time: what it has is unknown, not gone."""

    code = "host_unreachable"
    sentence = "The host of this server does not answer at the moment."
    passes = True


class WrongHost(HostUnreachable):
    """Another host answers at this address than the one that is meant: it is asked and told nothing."""

    code = "wrong_host"


class HostBusy(HypervisorError):
    """The host is at work on the same thing; the same call may succeed in a moment."""

    code = "host_busy"
    sentence = "The host of this server is busy at the moment."
    passes = True


class MachineNotFound(HypervisorError):
    """No machine with this UUID is on this host."""

    code = "machine_not_found"
    sentence = "The host does not know this server."


class PoolFull(HypervisorError):
    """There is too little room in the host's storage pool."""

    code = "pool_full"
    sentence = "The host of this server has no room left for its disk."


class VolumeMissing(HypervisorError):
    """A file that was to be read or written is not in the host's storage pool."""

    code = "volume_missing"
    sentence = "The host of this server lacks a file of it."


class MachineChanged(HypervisorError):
    """Somebody has given the machine another disk or device, or has saved its memory: it is left alone."""

    code = "machine_changed"
    sentence = "This server was changed on its host. Our staff must look at it first."


class MachineDelivered(HypervisorError):
    """The machine was handed to its customer once: what looks like a failed attempt to make it is none."""

    code = "machine_delivered"
    sentence = "This server was made before."


class ImageInvalid(HypervisorError):
    """The image is not what it should be: wrong checksum, wrong format or unsafe header."""

    code = "image_invalid"
    sentence = "The image of this operating system is damaged."


class ImageInUse(HypervisorError):
    """A disk on the host is backed by the image, or new disks may be made from it."""

    code = "image_in_use"


class GuestFrozen(HypervisorError):
    """The guest was asked to hold its file systems still, and does not let go of them."""

    code = "guest_frozen"
    sentence = (
        "The system of this server held still for its backup and does not go on. Restart it if it hangs."
    )
    passes = True


class HostMisconfigured(HypervisorError):
    """The host lacks what we rely on: the storage pool, the network, a domain type."""

    code = "host_misconfigured"
    sentence = "The host of this server is not set up as it should be."


@dataclass(frozen=True, kw_only=True)
class Nic:
    """One network card, and the only addresses that may ever leave through it."""

    mac: str
    network: str  # libvirt's name of the network on the host
    addresses: tuple[IPv4Interface | IPv6Interface, ...]
    gateways: tuple[IPv4Address | IPv6Address, ...]
    nameservers: tuple[IPv4Address | IPv6Address, ...] = ()
    speed_mbps: int | None = None


@dataclass(frozen=True, kw_only=True)
class Image:
    """A qcow2 file, known by its SHA-256 (hex, of the whole file)."""

    sha256: str


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """An image in the host's cache."""

    image: Image
    is_whole: bool  # False: it was not brought whole, or it was retired


@dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """All that a host must know to make one machine."""

    uuid: UUID
    name: str  # for people; the machine is found by its uuid
    account: str  # for people who look at the host
    hostname: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    image: Image
    nics: tuple[Nic, ...]
    authorized_keys: tuple[str, ...] = ()
    disk_number: int = 1  # the first, or a later one that a rebuild makes beside it

    @property
    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        return tuple(address.ip for nic in self.nics for address in nic.addresses)


@dataclass(frozen=True, kw_only=True)
class Power:
    """What the host says of one machine's power, and why it is off if it is."""

    state: PowerState
    # True: the guest ended itself or a person cut it.  False: the machine vanished under it
    # (host or QEMU died, or libvirt cannot say since it restarted).
    off_on_purpose: bool = False
    waits_for_room: bool = False  # it is paused since it could not write: its host's pool was full


@dataclass(frozen=True, kw_only=True)
class Guest:
    """What the guest agent reports of the system inside."""

    hostname: str | None
    addresses: tuple[IPv4Address | IPv6Address, ...]  # neither loopback nor link-local


@dataclass(frozen=True, kw_only=True)
class Usage:
    """One sample of a running machine.  Counters restart at zero when the machine does."""

    cpu_time_ns: int
    vcpus: int
    memory_used_mib: int
    disk_used_gib: float
    received_bytes: int
    sent_bytes: int


@dataclass(frozen=True, kw_only=True)
class Room:
    """How full a host's storage pool is."""

    bytes: int
    free_bytes: int

    def has_free(self, percent: float) -> bool:
        """Whether at least so much of it is free."""
        return 100 * self.free_bytes >= percent * self.bytes

    def __str__(self) -> str:
        return f"{self.free_bytes // 2**20} of {self.bytes // 2**20} MiB are free"


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """What a host is and has, before anything is kept back for the host itself."""

    hostname: str
    libvirt_version: str  # "9.0.0"
    domain_type: str  # the best that really works here: "kvm", "qemu" or "test"
    vcpus: int
    memory_mib: int
    room: Room

    @property
    def disk_gib(self) -> int:
        return self.room.bytes // 2**30


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A file in the host's storage pool: ours, or somebody's that is called after one of ours."""

    name: str
    machine: UUID | None  # None: an image
    is_ours: bool = True  # False: a copy that an operator made, say.  It is never removed


@dataclass(frozen=True, kw_only=True)
class BackupBegun:
    """How the copy of a running machine's disk was begun."""

    parent: UUID | None  # only what changed since this backup is copied; None: everything is
    is_frozen: bool  # the guest held its file systems still at that moment


class BackupProgress(StrEnum):
    RUNNING = "running"
    DONE = "done"
    LOST = "lost"  # the host could not write it, the machine went off meanwhile, or libvirtd was restarted


@dataclass(frozen=True)
class DiskContent:
    """What is in a disk, by rising offset.  It is read while it is taken: that may raise HypervisorError."""

    size_bytes: int
    extents: Iterator[Extent]


@dataclass(frozen=True, kw_only=True)
class MachineEvent:
    """The power of one machine changed, just now.  ``unknown``: the host does not know it any more."""

    machine: UUID
    power: PowerState


@dataclass(frozen=True, kw_only=True)
class Card:
    """A network card as the host has it defined."""

    mac: str
    is_filtered: bool  # our filter stands in front of it
    is_on_network: bool = True  # False: the machine runs, and its network was stopped under it
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()  # that the filter lets pass, link-local apart


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine as the host will start it next, be it one of ours or somebody else's beside them."""

    uuid: UUID
    name: str  # libvirt's
    is_ours: bool
    server: UUID | None  # in our metadata: somebody's copy of a machine of ours has it too
    power: Power
    vcpus: int
    memory_mib: int
    cards: tuple[Card, ...] = ()
    changes: tuple[str, ...] = ()  # what somebody else has given it
    checkpoints: tuple[UUID, ...] = ()  # the backups since which its host notes what changes
    is_readable: bool = True  # False: of its definition nothing is known


class Driver(Protocol):
    """One host.  Machines are found by the server's UUID, never by name."""

    def host_uuid(self) -> UUID | None:
        """The host's own identity, whatever its address; None: it has none (libvirt's test driver)."""

    def facts(self) -> HostFacts:
        """What the host is and has.  Raises HostMisconfigured without the storage pool or network."""

    def room(self) -> Room:
        """How full the storage pool is now.  Raises HostMisconfigured without it."""

    def check_ready(self) -> None:
        """Raises HostMisconfigured while the storage pool or the network is missing or not started."""

    def prepare(self) -> None:
        """Make the host ready for our machines: pool and network started, our network filter defined."""

    def has_image(self, image: Image) -> bool:
        """Whether the whole, verified image is in the host's cache."""

    def put_image(self, image: Image, source: Path) -> None:
        """Copy an image into the host's cache; it counts only after its checksum was verified.

        Two callers at once for the same image must be kept apart by the caller.  Raises ImageInvalid, and
        PoolFull when there is no room for it.
        """

    def images(self) -> list[ImageFile]:
        """The images in the host's cache."""

    def retire_image(self, image: Image) -> None:
        """Have no new disk made from an image.  ``put_image`` takes that back without copying anew.

        Raises ImageInUse if a disk is backed by it.
        """

    def remove_image(self, image: Image) -> None:
        """Remove a retired image from the host's cache.  Gone already is done.

        Raises ImageInUse if it is not retired or a disk is backed by it.
        """

    def create_disk(self, spec: MachineSpec) -> None:
        """Make the root disk: a linked clone of the cached image, ``disk_gib`` large.

        A disk that is there already is never replaced by another.  Raises PoolFull.
        """

    def has_disk(self, machine: UUID, number: int) -> bool:
        """Whether the machine runs with this one of its disks, or would start with it."""

    def remove_spare_disks(self, machine: UUID, *, keep: int) -> None:
        """Remove the machine's disks but the one with the number ``keep``.

        Raises HypervisorError, and removes none, while the machine has one of those.
        """

    def grow_disk(self, spec: MachineSpec) -> None:
        """Make the root disk ``disk_gib`` large, if it is smaller.  The machine must be off."""

    def write_seed(self, spec: MachineSpec) -> None:
        """Write what the guest reads at its next boot (cloud-init NoCloud), replacing what was there.

        The machine must be off.
        """

    def define(self, spec: MachineSpec) -> None:
        """Make the machine known to the host, or bring its definition up to date for the next start.

        Raises MachineChanged, as ``require_unchanged`` does.
        """

    def require_unchanged(self, machine: UUID) -> None:
        """Raises MachineChanged when the machine has another disk or device than we gave it, or saved memory.

        A machine that the host does not know is changed when somebody has made a disk over its disk.
        """

    def start(self, machine: UUID) -> None:
        """Power on what is off; let go on what is paused.

        Raises MachineNotFound, and MachineChanged for what is off and not as we made it.
        """

    def resume(self, machine: UUID) -> None:
        """Let a machine go on that waits for room.  Any other is left as it is.  Raises MachineNotFound."""

    def shut_down(self, machine: UUID) -> None:
        """Ask the guest to power itself off (ACPI).  Returns at once; it may take the guest minutes.

        Raises MachineNotFound; HostBusy within seconds when the machine's QEMU hangs; and another error when
        the machine is in a state in which nobody hears the button.
        """

    def power_off(self, machine: UUID) -> None:
        """Cut the power.  The guest loses what it had not written.  Raises MachineNotFound."""

    def mark_delivered(self, machine: UUID) -> None:
        """Write into the machine's definition that it was handed to its customer.

        The mark stays when the machine is defined anew, and goes with the machine.  Raises MachineNotFound.
        """

    def is_delivered(self, machine: UUID) -> bool:
        """Whether this host has the machine, and it bears the mark."""

    def delete(self, machine: UUID, *, unless_delivered: bool = False) -> None:
        """Cut the power; remove the machine, its disk, its seed and its log.  Gone already is done.

        What others have put beside them stays.  ``unless_delivered``: so does a machine that bears the mark,
        with all that it has.  Raises MachineDelivered.
        """

    def off_network(self) -> list[UUID]:
        """Our machines that run and have a network card that fell off its network.

        That happens when somebody stops the network; starting it again does not mend it.  If other machines
        have joined the network since, some of ours may be missed here: ``machines`` looks at each.
        """

    def reattach(self, machine: UUID) -> None:
        """Put the cards of a machine that runs back onto their network.  Raises MachineNotFound."""

    def rename(self, machine: UUID, name: str) -> None:
        """Change the title that people see on the host.  Raises MachineNotFound."""

    def power(self, machine: UUID) -> Power:
        """Raises MachineNotFound."""

    def powers(self) -> Mapping[UUID, Power]:
        """The power of every machine of ours on the host, by one bulk call."""

    def lifecycle_events(self, patience_s: float) -> Generator[MachineEvent | None, None, None]:
        """Each change of power of our machines as it happens; None whenever there was none for so long.

        Never ends by itself; close it.  Raises HostUnreachable when the host goes away.  Events of the time
        without a connection are lost: ask ``powers`` afterwards.
        """

    def machines(self) -> list[Machine]:
        """Every machine on the host, ours and others."""

    def usage(self, machines: list[UUID]) -> Mapping[UUID, Usage]:
        """A sample of each of these machines that runs.  What is off, gone or too busy to say is left out."""

    def guest(self, machine: UUID) -> Guest | None:
        """What the guest agent says; None while it does not answer.  Raises MachineNotFound."""

    def console_log(self, machine: UUID, last_bytes: int = 65536) -> bytes:
        """The end of what the guest wrote to its serial console, over all its boots."""

    def begin_backup(
        self,
        machine: UUID,
        backup: UUID,
        *,
        disk_number: int,
        parents: Sequence[UUID],
        freeze: bool,
        leave_bytes: int = 0,
    ) -> BackupBegun:
        """Begin to copy the disk of a running machine, as it is now, into a scratch file.  Returns at once.

        ``backup`` is a name that was never used before: no two copies share a file.

        Only what changed since the first of ``parents`` of which the host knows when it was taken.  What an
        earlier try left is cleared away first.  ``freeze``: the guest is asked to hold its file systems still
        for that moment; a guest that cannot goes on.  The machine runs on, and may be switched off, which
        ends the copy.

        Raises MachineNotFound, PoolFull if fewer bytes than ``leave_bytes`` would be left free, HostBusy
        while somebody else backs the machine up or it runs on another disk, and GuestFrozen.
        """

    def backup_progress(self, machine: UUID, backup: UUID) -> BackupProgress:
        """How the copy is.  Raises MachineNotFound."""

    def read_backup(self, machine: UUID, backup: UUID) -> DiskContent:
        """What a copy that is done has of the disk: of an incremental one what changed."""

    def end_backup(self, machine: UUID, *, keep: UUID | None) -> None:
        """End a copy that is under way, thaw the guest, and remove the scratch file.

        The host forgets when all backups but ``keep`` were taken.  May be repeated.  Raises HostBusy.
        """

    def frozen(self, machines: list[UUID]) -> list[UUID]:
        """Those of these machines whose guest says that its file systems are held still."""

    def read_disk(self, machine: UUID, number: int) -> DiskContent:
        """What is in a disk of a machine that is off.  Of one that runs, what is read is worthless."""

    def write_disk(
        self,
        spec: MachineSpec,
        spans: Sequence[tuple[int, int]],
        content: Iterable[Data],
        *,
        require_ours: Callable[[], None],
        leave_bytes: int = 0,
    ) -> None:
        """Make the root disk, ``disk_gib`` large, with this content at these spans (offset, length).

        It needs no image.  A disk that the machine has already is left as it is; what a crash left of making
        it is replaced.  ``require_ours`` is called before each part is written, and raises if somebody else
        is at work on the disk by now: several at once might mix two disks.

        Raises PoolFull if fewer bytes than ``leave_bytes`` would be left free, HypervisorError if the machine
        got the disk meanwhile, ValueError for spans beyond the disk's end, and whatever ``content`` raises.
        """

    def volumes(self) -> list[Volume]:
        """Our files in the storage pool, and what is called after them, read anew from the disk."""
