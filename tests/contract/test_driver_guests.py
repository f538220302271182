"""What only a real guest can prove."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from deploy.local.processes import as_root
from provisioning.drivers.base import HypervisorError, MachineSpec, Power, Usage
from servers.states import PowerState
from tests.contract.guests import await_up, boot, run, until
from tests.contract.labs import Lab


@pytest.fixture
def lab(qemu_lab: Lab) -> Lab:
    return qemu_lab


def qemu_pid(spec: MachineSpec) -> str:
    """The QEMU process of a machine, wherever its namespace is."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"guest=vps-{spec.uuid},debug-threads=on".encode() in words:
            return folder.name
    raise AssertionError("its QEMU does not run")


def send(name: str, spec: MachineSpec) -> None:
    subprocess.run(as_root("kill", f"-{name}", qemu_pid(spec)), check=True)


def test_the_guest_says_who_it_is_and_where(lab: Lab, guest: MachineSpec) -> None:
    answer = lab.driver.guest(guest.uuid)
    assert answer is not None
    assert answer.hostname == "guest.example.com"
    assert set(answer.addresses) == {address.ip for address in guest.nics[0].addresses}


def test_the_guest_has_its_key_and_its_whole_disk(lab: Lab, guest: MachineSpec) -> None:
    assert run(lab, guest, "cat /root/.ssh/authorized_keys") == (0, "ssh-ed25519 AAAA alice@laptop\n")
    assert run(lab, guest, "cat /sys/block/vda/size") == (0, f"{2**30 // 512}\n")


def test_the_seed_cannot_be_written_by_the_guest(lab: Lab, guest: MachineSpec) -> None:
    assert run(lab, guest, "cat /sys/block/vdb/ro") == (0, "1\n")


def test_usage_is_plausible(lab: Lab, guest: MachineSpec) -> None:
    run(lab, guest, "ping -c 3 203.0.113.1")

    def sample_with_memory() -> Usage | None:
        # The guest tells its memory every ten seconds; before it first does, all of it counts.
        sample = lab.driver.usage([guest.uuid])[guest.uuid]
        return sample if sample.memory_used_mib < guest.memory_mib else None

    sample: Usage = until(sample_with_memory, 30)
    assert sample.cpu_time_ns > 10**9
    assert sample.vcpus == 1
    assert sample.memory_used_mib > 10
    assert 0 < sample.disk_used_gib < 0.5
    assert sample.received_bytes > 300
    assert sample.sent_bytes > 300


def test_a_guest_shuts_down_when_asked_and_boots_again_with_more_disk_and_the_same_console(
    lab: Lab, make_spec: Callable[..., MachineSpec]
) -> None:
    spec = make_spec()
    boot(lab, spec)
    lab.driver.shut_down(spec.uuid)
    until(lambda: lab.driver.power(spec.uuid).state == PowerState.OFF)
    assert lab.driver.power(spec.uuid).off_on_purpose
    lab.driver.grow_disk(replace(spec, disk_gib=2))
    lab.driver.start(spec.uuid)
    await_up(lab, spec)
    assert run(lab, spec, "cat /sys/block/vda/size") == (0, f"{2 * 2**30 // 512}\n")
    log = lab.driver.console_log(spec.uuid)
    assert log.count(b"vps-guest: booting") == 2
    assert lab.driver.console_log(spec.uuid, last_bytes=20) == log[-20:]


@pytest.mark.parametrize(
    "give_back",
    [
        "dd if=/dev/zero of=/dev/vda bs=1M seek=500 count=32 conv=fsync",
        "blkdiscard -o $((500 << 20)) -l $((32 << 20)) /dev/vda",
    ],
    ids=["zeroes", "trim"],
)
def test_what_a_guest_gives_back_takes_no_room(lab: Lab, guest: MachineSpec, give_back: str) -> None:
    """Guards: compat in StoragePool.clone, discard and detect_zeroes in the definition."""

    def mebibytes() -> float:
        return float(lab.storage.storageVolLookupByName(f"{guest.uuid}.qcow2").info()[2] / 2**20)

    before = mebibytes()
    code, words = run(lab, guest, "dd if=/dev/urandom of=/dev/vda bs=1M seek=500 count=32 conv=fsync")
    assert (code, mebibytes() > before + 24) == (0, True), words
    code, words = run(lab, guest, f"{give_back} && sync")
    assert code == 0, words
    until(lambda: mebibytes() < before + 8, 10)


def test_a_qemu_that_died_did_not_stop_on_purpose(lab: Lab, machine: MachineSpec) -> None:
    lab.driver.start(machine.uuid)
    send("KILL", machine)
    died = Power(state=PowerState.OFF, off_on_purpose=False)
    until(lambda: lab.driver.power(machine.uuid).state == PowerState.OFF, 10)
    assert lab.driver.power(machine.uuid) == died
    assert lab.driver.powers()[machine.uuid] == died


def test_a_machine_that_is_not_booted_yet_has_no_guest(lab: Lab, machine: MachineSpec) -> None:
    lab.driver.start(machine.uuid)
    assert lab.driver.guest(machine.uuid) is None


def test_a_hung_guest_is_still_counted_and_can_be_cut_off(lab: Lab, guest: MachineSpec) -> None:
    with stopped(guest):
        assert lab.driver.guest(guest.uuid) is None
        assert lab.driver.power(guest.uuid).state == PowerState.RUNNING
        assert lab.driver.powers()[guest.uuid].state == PowerState.RUNNING


@contextmanager
def stopped(spec: MachineSpec) -> Iterator[None]:
    send("STOP", spec)
    try:
        yield
    finally:
        send("CONT", spec)


def test_libvirt_finds_nothing_wrong_with_the_definition(lab: Lab, machine: MachineSpec) -> None:
    """Not checked at every define: it costs more than the define."""
    definition = lab.domain(machine).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    lab.libvirt.defineXMLFlags(definition, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)


def test_a_new_seed_replaces_the_old_one(lab: Lab, machine: MachineSpec) -> None:
    name = f"{machine.uuid}-seed.iso"
    before = lab.storage.storageVolLookupByName(name).info()
    for _ in range(3):
        lab.driver.write_seed(machine)
    assert lab.storage.storageVolLookupByName(name).info()[1] == before[1]


def test_a_disk_grows_and_never_shrinks(lab: Lab, machine: MachineSpec) -> None:
    def size_gib() -> float:
        return float(lab.storage.storageVolLookupByName(f"{machine.uuid}.qcow2").info()[1] / 2**30)

    for disk_gib in (3, 3, 2):
        lab.driver.grow_disk(replace(machine, disk_gib=disk_gib))
        assert size_gib() == 3
    lab.driver.create_disk(replace(machine, disk_gib=3))
    assert size_gib() == 3


def test_there_is_nothing_to_grow_without_a_disk(lab: Lab) -> None:
    with pytest.raises(HypervisorError):
        lab.driver.grow_disk(lab.spec())


def test_what_cannot_take_files_takes_no_seed(test_lab: Lab) -> None:
    spec = test_lab.spec()
    before = test_lab.files()
    test_lab.driver.write_seed(spec)
    assert test_lab.files() == before
