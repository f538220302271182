"""The contract every hypervisor keeps.  tests/contract proves that it does.

Nothing here, nor in the modules beside it, may touch the database: a driver is
told values and gives back values.

Every call may be repeated.  Starting what runs, powering off what is off and
deleting what is gone all succeed: after a crash the worker simply asks again.
Every call has a time limit, and ends in a value or in one of the errors below.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import ClassVar, Protocol
from uuid import UUID

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


class HostBusy(HypervisorError):
    """The host is at work on the same thing; the same call may succeed in a moment."""

    code = "host_busy"
    sentence = "The host of this server is busy at the moment."
    passes = True


class MachineNotFound(HypervisorError):
    """No machine with this UUID is on this host."""

    code = "machine_not_found"
    sentence = "The host does not know this server."


class ImageInvalid(HypervisorError):
    """The image is not what it should be: wrong checksum, wrong format or unsafe header."""

    code = "image_invalid"
    sentence = "The image of this operating system is damaged."


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


@dataclass(frozen=True, kw_only=True)
class Power:
    """What the host says of one machine's power, and why it is off if it is."""

    state: PowerState
    # True: the guest ended itself or a person cut it.  False: the machine vanished under it
    # (host or QEMU died, or libvirt cannot say since it restarted).
    off_on_purpose: bool = False


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
class HostFacts:
    """What a host is and has, before anything is kept back for the host itself."""

    hostname: str
    libvirt_version: str  # "9.0.0"
    domain_type: str  # the best that really works here: "kvm", "qemu" or "test"
    vcpus: int
    memory_mib: int
    disk_gib: int  # the storage pool's capacity
    disk_free_gib: int


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A file of ours in the host's storage pool."""

    name: str
    machine: UUID | None  # None: an image


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


class Hypervisor(Protocol):
    """One host.  Machines are found by the server's UUID, never by name."""

    def facts(self) -> HostFacts:
        """What the host is and has.  Raises HostMisconfigured without the storage pool or network."""

    def check_ready(self) -> None:
        """Raises HostMisconfigured while the storage pool or the network is missing or not started."""

    def prepare(self) -> None:
        """Make the host ready for our machines: pool and network started, our network filter defined."""

    def has_image(self, image: Image) -> bool:
        """Whether the whole, verified image is in the host's cache."""

    def put_image(self, image: Image, source: Path) -> None:
        """Copy an image into the host's cache; it counts only after its checksum was verified.

        Two callers at once for the same image must be kept apart by the caller.  Raises ImageInvalid.
        """

    def create_disk(self, spec: MachineSpec) -> None:
        """Make the root disk: a linked clone of the cached image, ``disk_gib`` large.

        A disk that is there already is never replaced by another.
        """

    def grow_disk(self, spec: MachineSpec) -> None:
        """Make the root disk ``disk_gib`` large, if it is smaller.  The machine must be off."""

    def write_seed(self, spec: MachineSpec) -> None:
        """Write what the guest reads at its next boot (cloud-init NoCloud), replacing what was there.

        The machine must be off.
        """

    def define(self, spec: MachineSpec) -> None:
        """Make the machine known to the host, or bring its definition up to date for the next start."""

    def start(self, machine: UUID) -> None:
        """Power on.  Raises MachineNotFound."""

    def shut_down(self, machine: UUID) -> None:
        """Ask the guest to power itself off (ACPI).  Returns at once; it may take the guest minutes.

        Raises MachineNotFound.
        """

    def power_off(self, machine: UUID) -> None:
        """Cut the power.  The guest loses what it had not written.  Raises MachineNotFound."""

    def delete(self, machine: UUID) -> None:
        """Cut the power; remove the machine, its disk, its seed and its log.  Gone already is done."""

    def rename(self, machine: UUID, name: str) -> None:
        """Change the title that people see on the host.  Raises MachineNotFound."""

    def power(self, machine: UUID) -> Power:
        """Raises MachineNotFound."""

    def powers(self) -> Mapping[UUID, Power]:
        """The power of every machine of ours on the host, by one bulk call."""

    def lifecycle_events(self, patience_s: float) -> Generator[MachineEvent | None, None, None]:
        """Each change of power of our machines as it happens; None whenever there was none for so long.

        Never ends by itself; close it.  Raises HostUnreachable when the host goes away, and what happened
        meanwhile is never told: who must know asks ``powers``.
        """

    def machines(self) -> list[Machine]:
        """Every machine on the host, ours and others."""

    def usage(self, machines: list[UUID]) -> Mapping[UUID, Usage]:
        """A sample of each of these machines that runs.  What is off, gone or too busy to say is left out."""

    def guest(self, machine: UUID) -> Guest | None:
        """What the guest agent says; None while it does not answer.  Raises MachineNotFound."""

    def console_log(self, machine: UUID, last_bytes: int = 65536) -> bytes:
        """The end of what the guest wrote to its serial console, over all its boots."""

    def volumes(self) -> list[Volume]:
        """Our files in the storage pool, read anew from the disk."""
