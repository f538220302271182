"""What verify calls wrong, and what it does not: each world differs in one thing from a sound one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import pytest

from backups.kinds import BackupStatus
from core.findings import Finding, FindingCode
from deploy.local.folder import PROJECT
from inventory.models import Hypervisor
from provisioning.drivers.base import (
    Card,
    HostBusy,
    HostFacts,
    HostMisconfigured,
    HostUnreachable,
    HypervisorError,
    Machine,
    Power,
    Room,
    Volume,
    WrongHost,
)
from provisioning.verify.backup_checks import check_backup_rows, check_backups_on_hosts
from provisioning.verify.findings import Code
from provisioning.verify.host_checks import check_hosts
from provisioning.verify.row_checks import check_rows
from provisioning.verify.snapshot import (
    AddressRow,
    BackupRow,
    HostAnswer,
    HostRow,
    ImageRow,
    OperationRow,
    PlacementRow,
    PoolRow,
    PortRow,
    Rows,
    ServerRow,
    Size,
)
from servers.states import OperationKind, OperationStatus, PowerState, ServerStatus

GIB = 2**30
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ONE, STRANGER = UUID(int=1), UUID(int=99)
SIZE = Size(vcpus=1, memory_mib=1024, disk_gib=20)
NOTHING = Size(vcpus=0, memory_mib=0, disk_gib=0)
MAC, ADDRESSES = "52:54:00:00:00:07", ("203.0.113.7", "2001:db8:113::7")
CARD = Card(mac=MAC, is_filtered=True, addresses=tuple(map(ip_address, ADDRESSES)))


def ago(**time: float) -> datetime:
    return NOW - timedelta(**time)


def a_host(name: str, used: Size) -> HostRow:
    return HostRow(
        name=name,
        location="us-west",
        status=Hypervisor.Status.ENABLED,
        domain_type="kvm",
        for_sale=Size(vcpus=32, memory_mib=64_000, disk_gib=1000),
        used=used,
        last_seen_at=ago(seconds=20),
    )


def an_answer() -> HostAnswer:
    facts = HostFacts(
        hostname="kvm",
        libvirt_version="9.0.0",
        domain_type="kvm",
        vcpus=8,
        memory_mib=65_536,
        room=Room(bytes=1000 * GIB, free_bytes=900 * GIB),
    )
    return HostAnswer(
        facts=facts, machines=(), volumes=(Volume(name=f"image-{'ab' * 32}.qcow2", machine=None),)
    )


def a_machine(uuid: UUID = ONE) -> Machine:
    return Machine(
        uuid=uuid,
        name=f"vps-{uuid}",
        is_ours=True,
        server=uuid,
        power=Power(state=PowerState.RUNNING),
        vcpus=1,
        memory_mib=1024,
        cards=(CARD,),
    )


def volumes_of(uuid: UUID) -> tuple[Volume, ...]:
    names = (f"{uuid}.qcow2", f"{uuid}-seed.iso")
    return tuple(Volume(name=name, machine=uuid) for name in names)


SERVER = ServerRow(
    id=1,
    uuid=ONE,
    status=ServerStatus.ACTIVE,
    location="us-west",
    plan=SIZE,
    base_image="ab" * 32,
    disk_number=1,
    home=7,
    port=9,
    operation=None,
    reported=(),
    written_at=ago(days=1),
    sampled_at=ago(seconds=50),
)
BACKUP = BackupRow(
    id=5,
    uuid=UUID(int=5),
    copied_as=UUID(int=6),
    server=ONE,
    server_id=1,
    status=BackupStatus.COMPLETED,
    is_open=False,
    verified_at=ago(days=30),
    damage="",
    is_newest=True,
)
POOL = PoolRow(network="203.0.113.0/24", addresses=253, free=200)
IMAGE = ImageRow(os="Debian 12", sha256="ab" * 32, is_there=True)


@dataclass
class World:
    """Two hosts of one location; on kvm1 one active server, all in order."""

    hosts: dict[str, HostRow] = field(
        default_factory=lambda: {"kvm1": a_host("kvm1", SIZE), "kvm2": a_host("kvm2", NOTHING)}
    )
    placements: dict[int, PlacementRow] = field(
        default_factory=lambda: {7: PlacementRow(id=7, host="kvm1", size=SIZE)}
    )
    ports: dict[int, PortRow] = field(
        default_factory=lambda: {
            9: PortRow(
                id=9,
                mac=MAC,
                addresses=tuple(AddressRow(address=a, location="us-west") for a in ADDRESSES),
            )
        }
    )
    server: ServerRow = SERVER
    servers: dict[UUID, ServerRow] = field(default_factory=dict)
    backups: dict[UUID, BackupRow] = field(default_factory=lambda: {BACKUP.uuid: BACKUP})
    pool: PoolRow = POOL
    image: ImageRow = IMAGE
    answers: dict[str, HostAnswer | HypervisorError] = field(
        default_factory=lambda: {
            "kvm1": replace(
                an_answer(), machines=(a_machine(),), volumes=(*an_answer().volumes, *volumes_of(ONE))
            ),
            "kvm2": an_answer(),
        }
    )

    def findings(self) -> list[Finding]:
        rows = Rows(
            at=NOW,
            hosts=self.hosts,
            placements=self.placements,
            ports=self.ports,
            servers={self.server.uuid: self.server} | self.servers,
            backups=self.backups,
            pools=(self.pool,),
            images=(self.image,),
            known_images=frozenset({self.image.sha256}),
        )
        return [
            *check_rows(rows),
            *check_backup_rows(rows),
            *check_hosts(rows, self.answers),
            *check_backups_on_hosts(rows, self.answers),
        ]

    def codes(self) -> set[FindingCode]:
        return {finding.code for finding in self.findings()}

    def host(self, **changes: Any) -> World:
        self.hosts["kvm1"] = replace(self.hosts["kvm1"], **changes)
        return self

    def port(self, **changes: Any) -> World:
        self.ports[9] = replace(self.ports[9], **changes)
        return self

    def is_server(self, **changes: Any) -> World:
        self.server = replace(self.server, **changes)
        return self

    def backup(self, **changes: Any) -> World:
        self.backups[BACKUP.uuid] = replace(BACKUP, **changes)
        return self

    def answer(self, host: str = "kvm1") -> HostAnswer:
        answer = self.answers[host]
        assert isinstance(answer, HostAnswer)
        return answer

    def answers_with(self, host: str = "kvm1", **changes: Any) -> World:
        self.answers[host] = replace(self.answer(host), **changes)
        return self

    def facts(self, **changes: Any) -> World:
        self.answers_with(facts=replace(self.answer().facts, **changes))
        return self

    def machine(self, **changes: Any) -> World:
        [machine] = self.answer().machines
        self.answers_with(machines=(replace(machine, **changes),))
        return self

    def another_machine(self, host: str = "kvm1", uuid: UUID = STRANGER, **changes: Any) -> World:
        machine = replace(a_machine(uuid), **{"cards": ()} | changes)
        self.answers_with(host, machines=(*self.answer(host).machines, machine))
        return self

    def lacks(self, ending: str) -> World:
        volumes = self.answer().volumes
        self.answers_with(volumes=tuple(v for v in volumes if not v.name.endswith(ending)))
        return self

    def has_open(self, kind: OperationKind, shows: ServerStatus, **changes: Any) -> World:
        operation = OperationRow(
            id=3,
            kind=kind,
            status=OperationStatus.QUEUED,
            created_at=ago(seconds=9),
            due_at=ago(seconds=9),
            lease_until=None,
            deadline_at=NOW + timedelta(minutes=9),
        )
        self.is_server(status=shows, operation=replace(operation, **changes))
        return self

    def gives_back(self) -> World:
        """The server's claims, and what it has on its host."""
        self.placements.clear()
        self.ports.clear()
        self.host(used=NOTHING)
        self.is_server(home=None, port=None)
        self.answers_with(machines=(), volumes=())
        return self


def test_in_a_sound_world_nothing_is_found() -> None:
    assert World().findings() == []


C, S, K = Code, ServerStatus, OperationKind
Change = Callable[[World], object]

WRONG: list[tuple[set[Code], Change]] = [
    ({C.HOST_UNREACHABLE}, lambda w: w.answers.update(kvm1=HostUnreachable("no answer"))),
    ({C.HOST_WRONG}, lambda w: w.answers.update(kvm1=WrongHost("another host answers"))),
    ({C.HOST_MISCONFIGURED}, lambda w: w.answers.update(kvm1=HostMisconfigured("pool is not started"))),
    ({C.HOST_NOT_VERIFIED}, lambda w: w.answers.update(kvm1=HostBusy("not done within 40 s"))),
    ({C.HOST_NOT_SEEN}, lambda w: w.host(last_seen_at=ago(minutes=11))),
    ({C.HOST_NOT_SEEN}, lambda w: w.host(last_seen_at=None)),
    ({C.HOST_DISABLED}, lambda w: w.host(status=Hypervisor.Status.DISABLED)),
    ({C.HOST_COUNTERS}, lambda w: w.host(used=replace(SIZE, memory_mib=1025))),
    ({C.HOST_DOMAIN_TYPE}, lambda w: w.facts(domain_type="qemu")),
    ({C.HOST_MEMORY_OVERSOLD}, lambda w: w.facts(memory_mib=63_999)),
    ({C.HOST_DISK_OVERSOLD}, lambda w: w.facts(room=Room(bytes=19 * GIB, free_bytes=18 * GIB))),
    ({C.HOST_DISK_NEARLY_FULL}, lambda w: w.facts(room=Room(bytes=1000 * GIB, free_bytes=49 * GIB))),
    ({C.HOST_NOT_SAMPLED}, lambda w: w.is_server(sampled_at=ago(minutes=16))),
    ({C.HOST_NOT_SAMPLED}, lambda w: w.is_server(sampled_at=None)),
    ({C.MACHINE_ORPHAN}, lambda w: w.another_machine()),
    ({C.MACHINE_ORPHAN}, lambda w: w.another_machine("kvm2")),
    ({C.MACHINE_ON_WRONG_HOST}, lambda w: w.another_machine("kvm2", ONE)),
    ({C.MACHINE_COPY}, lambda w: w.another_machine(name="copy", is_ours=False, server=ONE)),
    ({C.MACHINE_SAME_MAC}, lambda w: w.another_machine("kvm2", is_ours=False, server=None, cards=(
        Card(mac=MAC, is_filtered=False),))),
    ({C.MACHINE_SAME_ADDRESS}, lambda w: w.another_machine(is_ours=False, server=None, cards=(
        Card(mac="52:54:00:00:00:08", is_filtered=True, addresses=(ip_address(ADDRESSES[0]),)),))),
    ({C.VOLUME_ORPHAN}, lambda w: w.answers_with("kvm2", volumes=volumes_of(ONE)[:1])),
    ({C.VOLUME_ORPHAN}, lambda w: w.answers_with("kvm2", volumes=volumes_of(STRANGER)[1:])),
    ({C.VOLUME_FOREIGN}, lambda w: w.answers_with(volumes=(
        *w.answer().volumes, Volume(name=f"{ONE}.qcow2.before-repair", machine=ONE, is_ours=False)))),
    ({C.SERVER_MACHINE_MISSING}, lambda w: w.answers_with(machines=())),
    ({C.SERVER_DISK_MISSING}, lambda w: w.lacks(f"{ONE}.qcow2")),
    ({C.SERVER_DISK_MISSING, C.SERVER_SPARE_DISK}, lambda w: w.is_server(disk_number=2)),
    ({C.SERVER_SPARE_DISK}, lambda w: w.answers_with(volumes=(
        *w.answer().volumes, Volume(name=f"{ONE}.2.qcow2", machine=ONE)))),
    ({C.SERVER_SEED_MISSING}, lambda w: w.lacks("seed.iso")),
    ({C.SERVER_UNREADABLE}, lambda w: w.machine(vcpus=0, memory_mib=0, cards=(), is_readable=False)),
    ({C.SERVER_CHANGED}, lambda w: w.machine(changes=("has another disk: /pool/x",))),
    ({C.SERVER_VCPUS}, lambda w: w.machine(vcpus=2)),
    ({C.SERVER_MEMORY}, lambda w: w.machine(memory_mib=2048)),
    ({C.SERVER_MAC}, lambda w: w.machine(cards=(replace(CARD, mac="52:54:00:00:00:08"),))),
    ({C.SERVER_MAC, C.SERVER_ADDRESSES}, lambda w: w.machine(cards=())),
    ({C.SERVER_UNFILTERED}, lambda w: w.machine(cards=(replace(CARD, is_filtered=False),))),
    ({C.SERVER_OFF_NETWORK}, lambda w: w.machine(cards=(replace(CARD, is_on_network=False),))),
    ({C.SERVER_ADDRESSES}, lambda w: w.machine(cards=(replace(CARD, addresses=CARD.addresses[:1]),))),
    ({C.SERVER_ADDRESSES}, lambda w: w.machine(
        cards=(replace(CARD, addresses=(*CARD.addresses, ip_address("203.0.113.8"))),))),
    ({C.SERVER_POWER}, lambda w: w.machine(power=Power(state=PowerState.OFF))),
    ({C.SERVER_POWER}, lambda w: w.is_server(status=S.STOPPED)),
    ({C.SERVER_PAUSED}, lambda w: w.machine(power=Power(state=PowerState.PAUSED))),
    ({C.SERVER_RUNS_SUSPENDED}, lambda w: w.is_server(status=S.SUSPENDED)),
    ({C.SERVER_KEEPS_DYING}, lambda w: (
        w.is_server(status=S.STOPPED, keeps_dying=True).machine(power=Power(state=PowerState.OFF)))),
    ({C.SERVER_STUCK}, lambda w: w.is_server(status=S.REBOOTING)),
    ({C.SERVER_STUCK}, lambda w: w.is_server(status=S.PROVISIONING)),
    ({C.SERVER_UNPLACED}, lambda w: w.gives_back()),
    ({C.SERVER_LOCATION}, lambda w: w.is_server(location="eu-central")),
    ({C.SERVER_SIZE}, lambda w: w.is_server(plan=replace(SIZE, disk_gib=40))),
    ({C.SERVER_REPORTED_ADDRESS}, lambda w: w.is_server(reported=("203.0.113.8",))),
    ({C.OPERATION_STATUS}, lambda w: w.has_open(K.REBOOT, S.ACTIVE)),
    ({C.OPERATION_OVERDUE}, lambda w: w.has_open(K.STOP, S.STOPPING, deadline_at=ago(minutes=11))),
    ({C.OPERATION_ABANDONED}, lambda w: w.has_open(
        K.STOP, S.STOPPING, status=OperationStatus.RUNNING, lease_until=ago(minutes=6), due_at=ago(hours=1))),
    ({C.OPERATION_FORGOTTEN}, lambda w: w.has_open(K.STOP, S.STOPPING, due_at=ago(minutes=6))),
    ({C.OPERATION_DELETE_STUCK}, lambda w: w.has_open(
        K.DELETE, S.DELETING, created_at=ago(hours=7), deadline_at=None)),
    ({C.PLACEMENT_UNUSED}, lambda w: (
        w.placements.update({8: replace(w.placements[7], id=8, host="kvm2")}),
        w.hosts.update(kvm2=a_host("kvm2", SIZE)))),
    ({C.PLACEMENT_OF_DELETED}, lambda w: w.is_server(status=S.DELETED)),
    ({C.PLACEMENT_OF_FAILED}, lambda w: w.is_server(status=S.ERROR)),
    ({C.PORT_UNUSED}, lambda w: w.ports.update({10: replace(w.ports[9], id=10, mac="52:54:00:00:00:10")})),
    ({C.PORT_UNUSED}, lambda w: (
        w.gives_back().ports.update({9: World().ports[9]}), w.is_server(status=S.ERROR, port=9))),
    ({C.SERVER_WITHOUT_PORT, C.PORT_UNUSED}, lambda w: w.is_server(port=None)),
    ({C.PORT_WITHOUT_ADDRESS, C.SERVER_ADDRESSES},
        lambda w: w.port(addresses=())),
    ({C.ADDRESS_LOCATION}, lambda w: w.port(
        addresses=tuple(replace(a, location="eu-central") for a in w.ports[9].addresses))),
    ({C.ADDRESSES_NEARLY_GONE}, lambda w: setattr(w, "pool", replace(w.pool, free=12))),
    ({C.IMAGE_UNKNOWN}, lambda w: w.answers_with(
        volumes=(*w.answer().volumes, Volume(name=f"image-{'cd' * 32}.qcow2", machine=None)))),
    ({C.SERVER_IMAGE_MISSING}, lambda w: w.answers_with(volumes=volumes_of(ONE))),
    ({C.BACKUP_MISSED}, lambda w: w.is_server(backup_due_at=ago(hours=4))),
    ({C.BACKUP_MISSED}, lambda w: w.is_server(
        backup_due_at=NOW, last_automatic=BackupStatus.FAILED)),
    ({C.BACKUP_DAMAGED}, lambda w: w.backup(damage="Piece ab at offset 0 is not in the store.")),
    ({C.BACKUP_UNVERIFIED}, lambda w: w.backup(verified_at=ago(days=36))),
    ({C.BACKUP_CHECKPOINT_UNKNOWN}, lambda w: w.machine(checkpoints=(STRANGER,))),
    ({C.BACKUP_CHECKPOINT_UNKNOWN}, lambda w: (
        w.backup(status=BackupStatus.FAILED), w.machine(checkpoints=(UUID(int=6),)))),
    ({C.BACKUP_SCRATCH_LEFT}, lambda w: w.answers_with(volumes=(
        *w.answer().volumes, Volume(name=f"{ONE}-backup-{STRANGER}.qcow2", machine=ONE)))),
    ({C.GUEST_FROZEN}, lambda w: w.answers_with(frozen=(ONE,))),
    ({C.IMAGE_MISSING}, lambda w: setattr(w, "image", replace(w.image, is_there=False))),
]  # fmt: skip


@pytest.mark.parametrize(("codes", "change"), WRONG, ids=["+".join(codes) for codes, _ in WRONG])
def test_what_is_wrong_has_its_code(codes: set[Code], change: Change) -> None:
    world = World()
    change(world)
    assert world.codes() == codes
    for finding in world.findings():
        assert re.fullmatch(r"[A-Z_]+ (error|warning) [^:]+.*: .+[.)]", str(finding)), finding


def test_every_code_stands_in_the_table_above() -> None:
    assert {code for codes, _ in WRONG for code in codes} == set(Code)


SOUND: list[tuple[str, Change]] = [
    ("what is being done", lambda w: w.has_open(K.REBOOT, S.REBOOTING).answers_with(machines=())),
    ("a machine not made yet", lambda w: (
        w.has_open(K.CREATE, S.PROVISIONING).answers_with(machines=(), volumes=()))),
    ("a step that is long under way", lambda w: w.has_open(
        K.CREATE, S.PROVISIONING, status=OperationStatus.RUNNING, due_at=ago(minutes=20),
        lease_until=NOW + timedelta(seconds=50))),
    ("a delete that has let go of its claims", lambda w: (
        w.gives_back().has_open(K.DELETE, S.DELETING, deadline_at=None))),
    ("a server that failed and holds nothing", lambda w: w.gives_back().is_server(status=S.ERROR)),
    ("a stopped server", lambda w: (
        w.is_server(status=S.STOPPED, sampled_at=None).machine(power=Power(state=PowerState.OFF)))),
    ("a service address of the guest's own", lambda w: w.is_server(reported=("172.17.0.1", "fd00::1"))),
    ("a server that is active since a minute", lambda w: w.is_server(
        sampled_at=None, written_at=ago(minutes=1))),
    ("machines of others, alike among themselves", lambda w: [
        w.another_machine(uuid=UUID(int=n), name=f"theirs{n}", is_ours=False, server=None,
                          cards=(Card(mac="52:54:00:00:00:09", is_filtered=False),)) for n in (50, 51)]),
    ("an empty host that is disabled", lambda w: w.hosts.update(
        kvm2=replace(a_host("kvm2", NOTHING), status=Hypervisor.Status.DISABLED, last_seen_at=None))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change"), SOUND, ids=[name for name, _ in SOUND])
def test_what_is_not_wrong_is_not_found(name: str, change: Change) -> None:
    world = World()
    change(world)
    assert world.findings() == []


def test_of_a_host_that_cannot_be_asked_nothing_is_called_missing() -> None:
    world = World()
    world.answers["kvm1"] = HostUnreachable("qemu+ssh://kvm1/system: no answer")
    [finding] = world.findings()
    assert str(finding) == (
        "HOST_UNREACHABLE error host kvm1: qemu+ssh://kvm1/system: no answer; its 1 servers are not verified."
    )


def test_a_host_that_was_not_asked_is_not_judged() -> None:
    world = World()
    del world.answers["kvm1"]
    assert world.findings() == []


def test_the_page_has_each_code_with_its_severity_and_no_other() -> None:
    page = (PROJECT / "docs" / "verify.md").read_text()
    shown = re.findall(r"^\| `([A-Z_]+)` \| (error|warning) \| \S.* \| \S.* \|$", page, re.MULTILINE)
    assert shown == [(code.value, code.severity.value) for code in Code]
