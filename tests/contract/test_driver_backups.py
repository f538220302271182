"""Copies of disks on a real libvirt: of guests that run, of machines that are off, and back into disks."""

from collections.abc import Callable, Iterator
from threading import Timer
from time import sleep
from typing import Any
from uuid import UUID, uuid4

import libvirt
import pytest

from backups.drafts import Zeros
from backups.reading import Data
from provisioning.drivers.base import (
    BackupProgress,
    DiskContent,
    HostBusy,
    HypervisorError,
    MachineSpec,
    PoolFull,
)
from provisioning.drivers.storage_names import disk_volume, is_scratch
from tests.contract.guests import boot, run, until, write_through_qemu
from tests.contract.labs import Lab
from tests.vaults import nothing_to_hold

MIB = 2**20
PIECE = 4 * MIB


class Disk(dict[int, bytes]):
    """A disk in memory, by pieces: what was read of copies, one over the other."""

    def take(self, content: DiskContent) -> int:
        """Lays a copy over it; returns how many bytes the copy had."""
        read = 0
        for extent in content.extents:
            data = bytes(extent.length) if isinstance(extent, Zeros) else extent.data
            read += 0 if isinstance(extent, Zeros) else len(data)
            done = 0
            while done < len(data):
                index, start = divmod(extent.offset + done, PIECE)
                part = data[done : done + PIECE - start]
                piece = bytearray(self.get(index, bytes(PIECE)))
                piece[start : start + len(part)] = part
                self[index] = bytes(piece)
                done += len(part)
        return read

    def contents(self) -> list[Data]:
        return [Data(index * PIECE, self[index]) for index in sorted(self) if any(self[index])]

    def at(self, offset_mib: int) -> bytes:
        return self.get(offset_mib * MIB // PIECE, bytes(PIECE))[offset_mib * MIB % PIECE :][:MIB]


def write(lab: Lab, spec: MachineSpec, letter: str, at_mib: int, mib: int = 1) -> None:
    """The guest writes so much of one letter, and has it on its disk."""
    code, told = run(
        lab,
        spec,
        f"head -c {mib * MIB} /dev/zero | tr '\\0' {letter} | "
        f"dd of=/dev/vda bs=1M seek={at_mib} conv=fsync,notrunc",
    )
    assert code == 0, told


def take(lab: Lab, spec: MachineSpec, *parents: UUID) -> tuple[UUID, UUID | None]:
    """Takes a copy to its end; returns its name and its parent."""
    backup = uuid4()
    begun = lab.driver.begin_backup(spec.uuid, backup, disk_number=1, parents=parents, freeze=True)
    assert begun.is_frozen
    until(lambda: lab.driver.backup_progress(spec.uuid, backup) == BackupProgress.DONE)
    return backup, begun.parent


def checkpoints(lab: Lab, spec: MachineSpec) -> set[str]:
    return {checkpoint.getName() for checkpoint in lab.domain(spec).listAllCheckpoints()}


@pytest.fixture
def up(qemu_lab: Lab, make_spec: Callable[..., MachineSpec]) -> MachineSpec:
    spec = make_spec()
    boot(qemu_lab, spec)
    return spec


@pytest.fixture
def lab(qemu_lab: Lab) -> Lab:
    return qemu_lab


def test_a_full_copy_an_incremental_and_the_disk_that_they_make(lab: Lab, up: MachineSpec) -> None:
    disk = Disk()
    write(lab, up, "a", 300, 8)
    write(lab, up, "b", 400)
    first, parent = take(lab, up)
    assert parent is None
    content = lab.driver.read_backup(up.uuid, first)
    assert content.size_bytes == 2**30
    disk.take(content)
    lab.driver.end_backup(up.uuid, keep=first)

    write(lab, up, "c", 302)
    run(lab, up, "dd if=/dev/zero of=/dev/vda bs=1M seek=400 count=1 conv=fsync,notrunc")
    second, parent = take(lab, up, uuid4(), first)
    assert parent == first
    assert disk.take(lab.driver.read_backup(up.uuid, second)) < 8 * MIB, "an incremental copies what changed"
    lab.driver.end_backup(up.uuid, keep=second)
    assert checkpoints(lab, up) == {f"vps-{second}"}
    assert not any(map(is_scratch, lab.files()))

    assert (disk.at(300), disk.at(302), disk.at(303)) == (b"a" * MIB, b"c" * MIB, b"a" * MIB)
    assert disk.at(400) == bytes(MIB)
    _compare_with_the_disk(lab, up, disk)


def _compare_with_the_disk(lab: Lab, spec: MachineSpec, disk: Disk) -> None:
    """The machine is switched off, and its whole disk read, image and all."""
    lab.driver.power_off(spec.uuid)
    cold = Disk()
    cold.take(lab.driver.read_disk(spec.uuid, 1))
    assert {i: p for i, p in cold.items() if any(p)} == {i: p for i, p in disk.items() if any(p)}


def test_a_disk_made_of_a_copy_boots(
    lab: Lab, up: MachineSpec, make_spec: Callable[..., MachineSpec]
) -> None:
    write(lab, up, "a", 500)
    copy, _ = take(lab, up)
    disk = Disk()
    disk.take(lab.driver.read_backup(up.uuid, copy))
    lab.driver.end_backup(up.uuid, keep=None)
    other = make_spec(disk_gib=2)
    contents = disk.contents()
    spans = [(offset, len(data)) for offset, data in contents]
    lab.driver.write_disk(other, spans, iter(contents), require_ours=nothing_to_hold)
    lab.driver.write_seed(other)
    lab.driver.define(other)
    lab.driver.start(other.uuid)
    until(lambda: lab.driver.guest(other.uuid))
    assert run(lab, other, "dd if=/dev/vda bs=1M skip=500 count=1 2>/dev/null | tr -d a | wc -c")[1] == "0\n"
    # What the machine has is never written over.
    lab.driver.write_disk(other, spans, iter(contents), require_ours=nothing_to_hold)
    assert lab.driver.power(other.uuid).state == "running"


def test_nobody_writes_over_a_disk_that_its_machine_has_by_now(
    lab: Lab, make_spec: Callable[..., MachineSpec]
) -> None:
    """A worker that was late, and wakes when another has made the disk.  Guard: ``require_unused``."""
    spec = make_spec()
    contents = [Data(index * PIECE, b"x" * PIECE) for index in range(8)]
    spans = [(offset, len(data)) for offset, data in contents]
    calls = []

    def another_is_quicker() -> None:
        calls.append(1)
        if len(calls) == 2:
            lab.driver.write_seed(spec)
            lab.driver.define(spec)

    with pytest.raises(HypervisorError, match="the disk of its machine by now"):
        lab.driver.write_disk(spec, spans, iter(contents), require_ours=another_is_quicker)
    assert len(calls) == 2


def test_who_may_not_write_a_disk_any_more_stops(lab: Lab, make_spec: Callable[..., MachineSpec]) -> None:
    """Guard: ``require_ours`` before each part."""
    contents = [Data(index * PIECE, b"x" * PIECE) for index in range(8)]
    may = iter([None, None])

    with pytest.raises(StopIteration):
        lab.driver.write_disk(
            make_spec(),
            [(offset, len(data)) for offset, data in contents],
            iter(contents),
            require_ours=lambda: next(may),
        )


def test_no_copy_is_begun_of_another_disk(lab: Lab, up: MachineSpec) -> None:
    """Guard: ``_require_disk``."""
    with pytest.raises(HostBusy, match="does not run on"):
        lab.driver.begin_backup(up.uuid, uuid4(), disk_number=2, parents=(), freeze=True)
    assert checkpoints(lab, up) == set()


def test_a_torn_disk_is_made_again_and_a_full_pool_leaves_none(
    lab: Lab, make_spec: Callable[..., MachineSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec()
    contents = [Data(0, b"x" * PIECE), Data(8 * PIECE, b"y" * PIECE)]
    spans = [(offset, len(data)) for offset, data in contents]

    def broken() -> Iterator[Data]:
        yield contents[0]
        raise RuntimeError("the store is away")

    with pytest.raises(RuntimeError):
        lab.driver.write_disk(spec, spans, broken(), require_ours=nothing_to_hold)
    lab.driver.write_disk(spec, spans, iter(contents), require_ours=nothing_to_hold)
    disk = Disk()
    disk.take(lab.driver.read_disk(spec.uuid, 1))
    assert disk.contents() == contents
    full = make_spec(disk_gib=2**20)
    with pytest.raises(PoolFull):
        lab.driver.write_disk(full, [(0, 2**48)], iter(()), require_ours=nothing_to_hold)
    assert disk_volume(full.uuid) not in lab.files()


def test_a_failed_copy_leaves_no_hole_in_the_next(lab: Lab, up: MachineSpec) -> None:
    """What a copy that was given up should have copied is in the next incremental, on or off in between.

    Guard: ``end_backup(keep=...)`` hands what a removed checkpoint knew to the one before it.
    """
    disk = Disk()
    first, _ = take(lab, up)
    disk.take(lab.driver.read_backup(up.uuid, first))
    lab.driver.end_backup(up.uuid, keep=first)
    write(lab, up, "a", 600)
    take(lab, up, first)
    write(lab, up, "b", 610)
    lab.driver.end_backup(up.uuid, keep=first)  # its copy is thrown away
    write(lab, up, "c", 620)
    take(lab, up, first)
    lab.driver.shut_down(up.uuid)
    until(lambda: lab.driver.power(up.uuid).state == "off")
    lab.driver.end_backup(up.uuid, keep=first)  # now the machine is off
    lab.driver.start(up.uuid)
    until(lambda: lab.driver.guest(up.uuid))
    write(lab, up, "d", 630)
    second, parent = take(lab, up, first)
    assert parent == first
    disk.take(lab.driver.read_backup(up.uuid, second))
    assert [disk.at(at)[:1] for at in (600, 610, 620, 630)] == [b"a", b"b", b"c", b"d"]
    lab.driver.end_backup(up.uuid, keep=second)
    _compare_with_the_disk(lab, up, disk)


def test_after_a_killed_qemu_the_copy_is_a_full_one(lab: Lab, up: MachineSpec) -> None:
    first, _ = take(lab, up)
    lab.driver.end_backup(up.uuid, keep=first)
    write(lab, up, "a", 700)
    _kill_qemu(lab, up)
    until(lambda: lab.driver.power(up.uuid).state == "off")
    lab.driver.start(up.uuid)
    until(lambda: lab.driver.guest(up.uuid))
    second, parent = take(lab, up, first)
    assert parent is None
    disk = Disk()
    disk.take(lab.driver.read_backup(up.uuid, second))
    assert disk.at(700) == b"a" * MIB
    lab.driver.end_backup(up.uuid, keep=second)
    _compare_with_the_disk(lab, up, disk)


def test_a_copy_is_done_when_its_file_is_whole(lab: Lab, up: MachineSpec) -> None:
    """Three of four that were read when libvirt said so had holes.  Guard: ``_is_sound``, asked first."""
    write_through_qemu(lab.domain(up), 1, at_mib=300, mib=160)
    for _ in range(6):
        backup = uuid4()
        lab.driver.begin_backup(up.uuid, backup, disk_number=1, parents=(), freeze=False)
        while lab.driver.backup_progress(up.uuid, backup) != BackupProgress.DONE:
            pass  # at once: the hole is there for milliseconds
        parts = [
            bytes(part.data)
            for part in lab.driver.read_backup(up.uuid, backup).extents
            if isinstance(part, Data)
        ]
        assert sum(part.count(b"\1" * 65536) for part in parts) * 65536 == 160 * MIB
        lab.driver.end_backup(up.uuid, keep=None)


def test_a_qemu_killed_when_its_copy_has_ended_may_not_have_closed_it(lab: Lab, up: MachineSpec) -> None:
    """libvirt still tells of success.  Guard: ``_is_sound``."""
    backup, _ = take(lab, up)
    _kill_qemu(lab, up)
    until(lambda: lab.driver.power(up.uuid).state == "off")
    assert lab.driver.backup_progress(up.uuid, backup) == BackupProgress.LOST
    lab.driver.start(up.uuid)
    assert lab.driver.backup_progress(up.uuid, backup) == BackupProgress.LOST
    lab.driver.end_backup(up.uuid, keep=None)


def _kill_qemu(lab: Lab, spec: MachineSpec) -> None:
    import subprocess

    subprocess.run(["pkill", "-9", "-f", f"guest=vps-{spec.uuid},"], check=True)


def test_a_machine_that_goes_off_ends_the_copy(lab: Lab, up: MachineSpec) -> None:
    """Guard: the end of another job is never taken for the end of this one."""
    whole, _ = take(lab, up)
    lab.driver.end_backup(up.uuid, keep=whole)
    write(lab, up, "a", 100, 64)
    backup = uuid4()
    lab.driver.begin_backup(up.uuid, backup, disk_number=1, parents=(), freeze=False)
    lab.driver.power_off(up.uuid)
    assert lab.driver.backup_progress(up.uuid, backup) == BackupProgress.LOST
    lab.driver.end_backup(up.uuid, keep=None)
    assert checkpoints(lab, up) == set()
    assert not any(map(is_scratch, lab.files()))
    lab.driver.start(up.uuid)


def test_others_checkpoints_and_copies_are_left_alone(lab: Lab, up: MachineSpec) -> None:
    domain = lab.domain(up)
    domain.checkpointCreateXML("<domaincheckpoint><name>theirs</name></domaincheckpoint>")
    first, _ = take(lab, up)
    lab.driver.end_backup(up.uuid, keep=first)
    assert checkpoints(lab, up) == {"theirs", f"vps-{first}"}
    # Somebody else's job, which waits for its reader (pull mode).
    domain.backupBegin(
        "<domainbackup mode='pull'><server transport='unix' socket='/tmp/theirs.sock'/></domainbackup>", None
    )
    try:
        with pytest.raises(HostBusy, match="somebody else"):
            lab.driver.begin_backup(up.uuid, uuid4(), disk_number=1, parents=(), freeze=False)
        assert lab.driver.backup_progress(up.uuid, uuid4()) == BackupProgress.LOST
    finally:
        domain.abortJob()
    until(lambda: not _has_job(domain))
    second, parent = take(lab, up, first)
    assert parent == first
    lab.driver.end_backup(up.uuid, keep=second)
    assert checkpoints(lab, up) == {"theirs", f"vps-{second}"}


def _has_job(domain: Any) -> bool:
    try:
        return bool(domain.backupGetXMLDesc())
    except libvirt.libvirtError:
        return False


def test_without_room_nothing_begins(lab: Lab, up: MachineSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    from provisioning.drivers.libvirt_storage import StoragePool

    monkeypatch.setattr(StoragePool, "shown_bytes", lambda *_: 2**60)
    with pytest.raises(PoolFull):
        lab.driver.begin_backup(up.uuid, uuid4(), disk_number=1, parents=(), freeze=True)
    assert checkpoints(lab, up) == set()


def test_a_guest_is_thawed_whatever_happens(
    lab: Lab, up: MachineSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: ``finally`` around the beginning of a job; a frozen guest's agent answers no other question."""
    from provisioning.drivers import libvirt_backups

    def fails(*_: Any) -> None:
        raise libvirt.libvirtError("no job today")

    assert run(lab, up, "data") == (0, "")
    monkeypatch.setattr(libvirt_backups, "_begin", fails)
    with pytest.raises(Exception, match="no job today"):
        lab.driver.begin_backup(up.uuid, uuid4(), disk_number=1, parents=(), freeze=True)
    assert lab.driver.guest(up.uuid) is not None


@pytest.mark.parametrize("after_s", [2, 20])
def test_a_guest_that_freezes_late_is_thawed(
    lab: Lab, up: MachineSpec, monkeypatch: pytest.MonkeyPatch, after_s: float
) -> None:
    """It had much to write.  Guards: ``_thaw_late``, ``says_frozen`` in ``progress``."""
    assert run(lab, up, "data") == (0, "")
    freeze = libvirt.virDomain.fsFreeze

    def late(domain: Any) -> None:
        Timer(after_s, freeze, [lab.domain(up)]).start()
        error = libvirt.libvirtError("guest agent command timed out")
        error.err = (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_FROM_QEMU, "", 2, "", "", "", 0, 0)
        raise error

    backup = uuid4()
    with monkeypatch.context() as patched:
        patched.setattr(libvirt.virDomain, "fsFreeze", late)
        begun = lab.driver.begin_backup(up.uuid, backup, disk_number=1, parents=(), freeze=True)
    assert not begun.is_frozen
    if after_s > 15:
        until(lambda: lab.driver.frozen([up.uuid]))
        until(lambda: lab.driver.backup_progress(up.uuid, backup) == BackupProgress.DONE)
    else:
        sleep(after_s + 1)
    assert lab.driver.frozen([up.uuid]) == []
    assert run(lab, up, "true") == (0, "")
    lab.driver.end_backup(up.uuid, keep=None)


def test_a_frozen_guest_of_a_dead_worker_is_thawed_at_the_end(lab: Lab, up: MachineSpec) -> None:
    assert run(lab, up, "data") == (0, "")
    assert lab.domain(up).fsFreeze() == 1
    assert lab.driver.guest(up.uuid) is None
    lab.driver.end_backup(up.uuid, keep=None)
    assert lab.driver.guest(up.uuid) is not None


def test_a_machine_without_an_agent_is_copied_all_the_same(
    lab: Lab, make_spec: Callable[..., MachineSpec]
) -> None:
    spec = make_spec()
    lab.make(spec)
    lab.driver.start(spec.uuid)  # its agent is not up yet
    backup = uuid4()
    begun = lab.driver.begin_backup(spec.uuid, backup, disk_number=1, parents=(), freeze=True)
    assert not begun.is_frozen
    until(lambda: lab.driver.backup_progress(spec.uuid, backup) == BackupProgress.DONE)
    disk = Disk()
    assert disk.take(lab.driver.read_backup(spec.uuid, backup)) > MIB
    lab.driver.end_backup(spec.uuid, keep=None)
