"""What every driver promises, whether it boots anything or not."""

import os
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from uuid import uuid4

import pytest

from deploy.local.processes import as_root
from provisioning.drivers import network_filter
from provisioning.drivers.base import (
    Card,
    Driver,
    HostMisconfigured,
    HypervisorError,
    Image,
    MachineDelivered,
    MachineNotFound,
    MachineSpec,
    Nic,
    Power,
    WrongHost,
)
from provisioning.drivers.domain_xml import NAMESPACE
from provisioning.drivers.libvirt import LibvirtDriver
from servers.states import PowerState
from tests.contract.labs import Lab
from tests.unit.machines import HOSTILE

RUNNING = Power(state=PowerState.RUNNING)


def test_starting_twice_is_starting_once(driver: Driver, machine: MachineSpec, lab: Lab) -> None:
    driver.start(machine.uuid)
    first = lab.domain(machine).ID()
    driver.start(machine.uuid)
    assert driver.power(machine.uuid) == RUNNING
    assert lab.domain(machine).ID() == first


def test_starting_a_paused_machine_lets_it_go_on(driver: Driver, machine: MachineSpec, lab: Lab) -> None:
    driver.start(machine.uuid)
    lab.domain(machine).suspend()
    assert driver.power(machine.uuid).state == PowerState.PAUSED
    driver.start(machine.uuid)
    assert driver.power(machine.uuid) == RUNNING


def test_powering_off_what_is_off_succeeds(driver: Driver, machine: MachineSpec) -> None:
    driver.power_off(machine.uuid)
    driver.start(machine.uuid)
    driver.power_off(machine.uuid)
    driver.power_off(machine.uuid)
    assert driver.power(machine.uuid) == Power(state=PowerState.OFF, off_on_purpose=True)


def test_shutting_down_what_is_off_succeeds(driver: Driver, machine: MachineSpec) -> None:
    driver.shut_down(machine.uuid)
    assert driver.power(machine.uuid).state == PowerState.OFF


def test_deleting_what_is_gone_succeeds(driver: Driver, machine: MachineSpec) -> None:
    driver.delete(machine.uuid)
    driver.delete(machine.uuid)
    driver.delete(uuid4())


def test_deleting_removes_the_machine_and_every_file_of_it(
    driver: Driver, machine: MachineSpec, lab: Lab
) -> None:
    driver.start(machine.uuid)
    driver.delete(machine.uuid)
    with pytest.raises(MachineNotFound):
        driver.power(machine.uuid)
    assert [name for name in lab.files() if name.startswith(str(machine.uuid))] == []


def test_a_machine_that_was_delivered_bears_the_mark_until_it_is_deleted(
    driver: Driver, machine: MachineSpec, lab: Lab
) -> None:
    """Guard: ``is_delivered`` in define; without it the first start from the API takes the mark away."""
    assert not driver.is_delivered(machine.uuid)
    driver.start(machine.uuid)
    driver.mark_delivered(machine.uuid)
    driver.mark_delivered(machine.uuid)
    driver.define(replace(machine, memory_mib=256))
    driver.rename(machine.uuid, "another name")
    assert driver.is_delivered(machine.uuid)
    driver.power_off(machine.uuid)
    assert driver.is_delivered(machine.uuid)
    driver.define(machine)
    assert driver.is_delivered(machine.uuid)
    driver.delete(machine.uuid)
    assert not driver.is_delivered(machine.uuid)
    lab.make(machine)
    assert not driver.is_delivered(machine.uuid)
    with pytest.raises(MachineNotFound):
        driver.mark_delivered(uuid4())


def test_what_was_delivered_is_removed_only_by_who_means_it(
    driver: Driver, machine: MachineSpec, lab: Lab
) -> None:
    """Guard: ``unless_delivered`` in delete."""
    driver.mark_delivered(machine.uuid)
    driver.start(machine.uuid)
    files = lab.files()
    with pytest.raises(MachineDelivered):
        driver.delete(machine.uuid, unless_delivered=True)
    assert driver.power(machine.uuid) == RUNNING
    assert lab.files() == files
    driver.delete(machine.uuid)
    driver.delete(machine.uuid, unless_delivered=True)
    assert [name for name in lab.files() if name.startswith(str(machine.uuid))] == []


def test_of_two_who_delete_at_once_both_succeed(lab: Lab, machine: MachineSpec) -> None:
    for _ in range(5):
        lab.make(machine)
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: lab.driver.delete(machine.uuid), range(4)))
        assert [name for name in lab.files() if name.startswith(str(machine.uuid))] == []


def test_files_of_which_libvirt_does_not_know_are_deleted_too(qemu_lab: Lab) -> None:
    """Guard: refresh in delete."""
    machine = uuid4()
    folder = ET.fromstring(qemu_lab.storage.XMLDesc()).findtext("target/path")
    subprocess.run(as_root("touch", f"{folder}/{machine}-seed.iso"), check=True)
    qemu_lab.driver.delete(machine)
    assert f"{machine}-seed.iso" not in qemu_lab.files()


@pytest.fixture
def in_pool(qemu_lab: Lab) -> Iterator[Callable[[bytes], None]]:
    """An operator who puts files into the pool."""
    folder = (ET.fromstring(qemu_lab.storage.XMLDesc()).findtext("target/path") or "").encode()
    made = []

    def put(name: bytes) -> None:
        made.append(folder + b"/" + name)
        subprocess.run([*as_root("touch"), made[-1]], check=True)

    yield put
    subprocess.run([*as_root("rm", "-f"), *made], check=True)
    qemu_lab.storage.refresh()


def test_a_file_whose_name_cannot_be_read_stops_nothing(
    qemu_lab: Lab, in_pool: Callable[[bytes], None]
) -> None:
    """Guard: read_each in StoragePool.ours."""
    spec = qemu_lab.spec()
    in_pool(b"caf\xe9.qcow2")
    in_pool(f"{spec.uuid}.caf".encode() + b"\xe9")
    qemu_lab.make(spec)
    assert {volume.name for volume in qemu_lab.driver.volumes()} >= {f"{spec.uuid}.qcow2"}
    qemu_lab.driver.delete(spec.uuid)
    assert [volume for volume in qemu_lab.driver.volumes() if volume.machine == spec.uuid] == []


def test_a_copy_that_somebody_made_beside_a_disk_stays(
    qemu_lab: Lab, in_pool: Callable[[bytes], None]
) -> None:
    """Guard: fullmatch in storage_names.parse, and is_ours in delete."""
    spec = qemu_lab.spec()
    copies = [f"{spec.uuid}.qcow2.before-repair", f"{spec.uuid}-seed.iso.old", f"{spec.uuid}.x"]
    for name in copies:
        in_pool(name.encode())
    qemu_lab.make(spec)
    qemu_lab.driver.delete(spec.uuid)
    assert [name for name in qemu_lab.files() if name.startswith(str(spec.uuid))] == sorted(copies)
    told = {volume.name: volume.is_ours for volume in qemu_lab.driver.volumes()}
    assert {name: told[name] for name in copies} == dict.fromkeys(copies, False)


def test_deleting_one_machine_leaves_the_others_alone(
    driver: Driver, make_spec: Callable[..., MachineSpec], lab: Lab
) -> None:
    gone, stays = make_spec(), make_spec()
    for spec in (gone, stays):
        lab.make(spec)
    driver.delete(gone.uuid)
    assert driver.power(stays.uuid).state == PowerState.OFF
    assert f"{stays.uuid}.qcow2" in lab.files()
    assert driver.has_image(stays.image)


def test_files_are_deleted_when_there_is_no_machine_yet(driver: Driver, spec: MachineSpec, lab: Lab) -> None:
    driver.create_disk(spec)
    driver.delete(spec.uuid)
    assert f"{spec.uuid}.qcow2" not in lab.files()


def test_a_machine_is_deleted_when_its_files_are_gone(driver: Driver, machine: MachineSpec, lab: Lab) -> None:
    lab.storage.storageVolLookupByName(f"{machine.uuid}.qcow2").delete()
    driver.delete(machine.uuid)
    with pytest.raises(MachineNotFound):
        driver.power(machine.uuid)


def test_defining_again_brings_the_definition_up_to_date(
    driver: Driver, machine: MachineSpec, lab: Lab
) -> None:
    driver.define(machine)
    driver.define(replace(machine, vcpus=2, memory_mib=256))
    definition = ET.fromstring(lab.domain(machine).XMLDesc())
    assert (definition.findtext("vcpu"), definition.findtext("memory")) == ("2", str(256 * 1024))


@pytest.mark.parametrize("is_on", [False, True])
def test_a_new_name_shows(driver: Driver, machine: MachineSpec, lab: Lab, is_on: bool) -> None:
    if is_on:
        driver.start(machine.uuid)
    driver.rename(machine.uuid, "another <name>")
    assert ET.fromstring(lab.domain(machine).XMLDesc()).findtext("title") == "another <name>"
    driver.power_off(machine.uuid)
    assert ET.fromstring(lab.domain(machine).XMLDesc()).findtext("title") == "another <name>"


@pytest.mark.parametrize("verb", ["start", "shut_down", "power_off", "power", "guest"])
def test_what_is_not_there_is_not_found(driver: Driver, verb: str) -> None:
    with pytest.raises(MachineNotFound):
        getattr(driver, verb)(uuid4())


def test_what_is_not_there_cannot_be_renamed(driver: Driver) -> None:
    with pytest.raises(MachineNotFound):
        driver.rename(uuid4(), "x")


def test_powers_tells_of_all_our_machines_and_of_no_others(
    driver: Driver, make_spec: Callable[..., MachineSpec], lab: Lab
) -> None:
    on, off, foreign = make_spec(), make_spec(), uuid4()
    for spec in (on, off):
        lab.make(spec)
    driver.start(on.uuid)
    definition = ET.fromstring(lab.domain(off).XMLDesc())
    # Somebody's copy of a machine of ours, our metadata and all, is not ours.
    changed = {"name": "a-copy", "uuid": str(foreign)}
    for tag, text in changed.items():
        element = definition.find(tag)
        assert element is not None
        element.text = text
    copy = lab.libvirt.defineXML(ET.tostring(definition, encoding="unicode"))
    try:
        powers = driver.powers()
    finally:
        copy.undefine()
    assert powers[on.uuid] == RUNNING
    assert powers[off.uuid].state == PowerState.OFF
    assert foreign not in powers


def test_every_machine_is_described_as_it_was_defined(
    driver: Driver, make_spec: Callable[..., MachineSpec], lab: Lab
) -> None:
    on, off = make_spec(), make_spec(vcpus=2, memory_mib=256)
    for spec in (on, off):
        lab.make(spec)
    driver.start(on.uuid)
    machines = {machine.uuid: machine for machine in driver.machines()}
    for spec, power in ((on, PowerState.RUNNING), (off, PowerState.OFF)):
        machine, [nic] = machines[spec.uuid], spec.nics
        assert (machine.is_ours, machine.server, machine.power.state) == (True, spec.uuid, power)
        assert (machine.vcpus, machine.memory_mib) == (spec.vcpus, spec.memory_mib)
        assert machine.cards == (Card(mac=nic.mac, is_filtered=True, addresses=_addresses_of(nic)),)


def _addresses_of(nic: Nic) -> tuple[IPv4Address | IPv6Address, ...]:
    return tuple(address.ip for address in nic.addresses)


def test_usage_leaves_out_what_is_off_or_gone(driver: Driver, machine: MachineSpec) -> None:
    assert driver.usage([machine.uuid, uuid4()]) == {}
    assert driver.usage([]) == {}


def test_there_is_no_guest_in_a_machine_that_is_off(driver: Driver, machine: MachineSpec) -> None:
    assert driver.guest(machine.uuid) is None


def test_making_a_disk_again_changes_nothing(driver: Driver, machine: MachineSpec, lab: Lab) -> None:
    before = lab.storage.storageVolLookupByName(f"{machine.uuid}.qcow2").XMLDesc()
    driver.create_disk(machine)
    assert lab.storage.storageVolLookupByName(f"{machine.uuid}.qcow2").XMLDesc() == before


def test_a_torn_disk_is_made_again(driver: Driver, spec: MachineSpec, lab: Lab) -> None:
    lab.storage.createXML(f"<volume><name>{spec.uuid}.qcow2</name><capacity>1</capacity></volume>")
    driver.create_disk(spec)
    volume = ET.fromstring(lab.storage.storageVolLookupByName(f"{spec.uuid}.qcow2").XMLDesc())
    assert volume.findtext("capacity") == str(2**30)
    assert spec.image.sha256 in (volume.findtext("backingStore/path") or "")


def test_a_disk_that_may_hold_data_is_never_replaced(driver: Driver, machine: MachineSpec, lab: Lab) -> None:
    disk = lab.storage.storageVolLookupByName(f"{machine.uuid}.qcow2")
    disk.delete()
    # Of a machine that the host knows: whatever this is, it is not for us to throw away.
    lab.storage.createXML(f"<volume><name>{machine.uuid}.qcow2</name><capacity>1</capacity></volume>")
    with pytest.raises(HypervisorError, match="another disk"):
        driver.create_disk(machine)


def test_a_second_disk_is_made_beside_the_first_which_goes_when_nothing_has_it(
    driver: Driver, machine: MachineSpec, lab: Lab
) -> None:
    """Guards: ``is_in_use`` and ``is_disk`` in remove_spare_disks."""
    second = replace(machine, disk_number=2)
    foreign = f"{machine.uuid}.qcow2.before-repair"
    lab.storage.createXML(f"<volume><name>{foreign}</name><capacity>1</capacity></volume>")
    driver.create_disk(second)
    assert [driver.has_disk(machine.uuid, number) for number in (1, 2, 3)] == [True, False, False]
    with pytest.raises(HypervisorError, match="is not removed"):
        driver.remove_spare_disks(machine.uuid, keep=2)
    driver.define(second)
    assert [driver.has_disk(machine.uuid, number) for number in (1, 2, 3)] == [False, True, False]
    with pytest.raises(HypervisorError, match="is not removed"):
        driver.remove_spare_disks(machine.uuid, keep=1)
    for _ in range(2):
        driver.remove_spare_disks(machine.uuid, keep=2)
    names = {volume.name for volume in driver.volumes() if volume.machine == machine.uuid}
    assert names >= {f"{machine.uuid}.2.qcow2", foreign}
    assert f"{machine.uuid}.qcow2" not in names
    assert not driver.has_disk(uuid4(), 1)
    driver.delete(machine.uuid)
    left = {volume.name for volume in driver.volumes() if volume.machine == machine.uuid}
    lab.storage.storageVolLookupByName(foreign).delete()
    assert left == {foreign}


def test_there_is_no_disk_without_its_image(driver: Driver, make_spec: Callable[..., MachineSpec]) -> None:
    unknown = Image(sha256="12" * 32)
    assert not driver.has_image(unknown)
    with pytest.raises(HypervisorError, match="not in the cache"):
        driver.create_disk(make_spec(image=unknown))


def test_volumes_are_known_by_their_machine(driver: Driver, machine: MachineSpec, lab: Lab) -> None:
    lab.storage.createXML("<volume><name>somebody-elses.iso</name><capacity>1</capacity></volume>")
    try:
        volumes = driver.volumes()
    finally:
        lab.storage.storageVolLookupByName("somebody-elses.iso").delete()
    assert f"{machine.uuid}.qcow2" in {v.name for v in volumes if v.machine == machine.uuid}
    assert {v.name for v in volumes if v.machine is None and machine.image.sha256 in v.name} == {
        f"image-{machine.image.sha256}.qcow2",
        f"image-{machine.image.sha256}.ok",
    }
    assert "somebody-elses.iso" not in {v.name for v in volumes}


@pytest.mark.parametrize("text", HOSTILE)
def test_what_somebody_typed_comes_back_unchanged(
    driver: Driver, make_spec: Callable[..., MachineSpec], lab: Lab, text: str
) -> None:
    spec = make_spec(name=text, account=text, hostname=text)
    driver.define(spec)
    for _ in range(2):
        definition = ET.fromstring(lab.domain(spec).XMLDesc())
        assert definition.findtext("title") == text
        ours = definition.find(f"metadata/{{{NAMESPACE}}}server")
        assert ours is not None
        assert ours.attrib == {"uuid": str(spec.uuid), "account": text, "hostname": text}
        driver.rename(spec.uuid, text)


@pytest.mark.parametrize("text", ["two\nlines", "\x00", "\ud800"])
def test_control_characters_are_refused(driver: Driver, machine: MachineSpec, text: str) -> None:
    with pytest.raises(HypervisorError, match="control character"):
        driver.define(replace(machine, name=text))
    with pytest.raises(HypervisorError, match="control character"):
        driver.rename(machine.uuid, text)


def test_another_host_that_answers_is_asked_and_told_nothing(qemu_lab: Lab) -> None:
    """Guard: the UUID in ``_open``."""
    known = qemu_lab.driver.host_uuid()
    make = partial(LibvirtDriver, qemu_lab.uri, domain_type="qemu", pool=qemu_lab.pool)
    right, wrong = make(host_uuid=known), make(host_uuid=uuid4())
    assert right.host_uuid() == known
    right.powers()
    for _ in range(2):
        with pytest.raises(WrongHost, match=str(known)):
            wrong.powers()


def test_facts_are_told(driver: Driver, lab: Lab) -> None:
    facts = driver.facts()
    assert facts.domain_type == lab.domain_type
    assert facts.libvirt_version.count(".") == 2
    assert min(facts.vcpus, facts.memory_mib, facts.disk_gib) > 0
    if lab.uri.startswith("qemu"):
        assert (facts.vcpus, facts.memory_mib) == (os.cpu_count(), _memory_of_this_machine_mib())
    assert 0 < facts.room.free_bytes <= facts.room.bytes


def _memory_of_this_machine_mib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def test_preparing_starts_what_is_stopped_and_may_be_repeated(test_lab: Lab) -> None:
    network = test_lab.libvirt.networkLookupByName(test_lab.network)
    network.destroy()
    network.setAutostart(0)
    for ask in (test_lab.driver.facts, test_lab.driver.check_ready):
        with pytest.raises(HostMisconfigured, match="not started"):
            ask()
    for _ in range(2):
        test_lab.driver.prepare()
    assert (network.isActive(), network.autostart()) == (1, 1)
    test_lab.driver.check_ready()


def test_preparing_defines_our_network_filter(qemu_lab: Lab) -> None:
    for _ in range(2):
        qemu_lab.driver.prepare()
    assert network_filter.NAME in qemu_lab.libvirt.listNWFilters()


def test_a_host_without_the_pool_or_the_network_is_misconfigured(lab: Lab) -> None:
    for pool, network in ((lab.pool, "no-such-thing"), ("no-such-thing", lab.network)):
        driver = LibvirtDriver(lab.uri, domain_type=lab.domain_type, pool=pool, networks=(network,))
        for ask in (driver.facts, driver.check_ready):
            with pytest.raises(HostMisconfigured, match="no-such-thing"):
                ask()


@pytest.fixture
def idle_pool(lab: Lab) -> Iterator[str]:
    pool = lab.libvirt.storagePoolDefineXML(
        "<pool type='dir'><name>idle</name><target><path>/var/lib/idle</path></target></pool>"
    )
    yield pool.name()
    pool.undefine()


@pytest.fixture
def stranded(qemu_lab: Lab) -> Iterator[MachineSpec]:
    """A machine whose network is not started.  (libvirt's test driver starts it all the same.)"""
    network = qemu_lab.libvirt.networkDefineXML("<network><name>idle</name><bridge name='idle0'/></network>")
    spec = qemu_lab.spec()
    spec = replace(spec, nics=(replace(spec.nics[0], network=network.name()),))
    qemu_lab.make(spec)
    yield spec
    qemu_lab.driver.delete(spec.uuid)
    network.undefine()


def test_a_host_whose_pool_is_not_started_is_misconfigured_not_busy(lab: Lab, idle_pool: str) -> None:
    """Guard: is_not_started; libvirt has the same code for a volume that is in use."""
    driver = LibvirtDriver(lab.uri, domain_type=lab.domain_type, pool=idle_pool, networks=(lab.network,))
    spec = lab.spec()
    for ask in (
        lambda: driver.has_image(spec.image),
        lambda: driver.create_disk(spec),
        lambda: driver.delete(spec.uuid),
    ):
        with pytest.raises(HostMisconfigured, match="not active"):
            ask()


def test_a_host_whose_network_is_not_started_is_misconfigured(qemu_lab: Lab, stranded: MachineSpec) -> None:
    with pytest.raises(HostMisconfigured, match="not active"):
        qemu_lab.driver.start(stranded.uuid)


def test_threads_may_share_a_hypervisor(lab: Lab, machine: MachineSpec) -> None:
    shared = lab.new_driver()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: shared.power(machine.uuid), range(80)))
    assert {answer.state for answer in answers} == {PowerState.OFF}
