"""What every hypervisor promises, whether it boots anything or not."""

import os
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from uuid import uuid4

import pytest

from deploy.local.processes import as_root
from provisioning.hypervisors import network_filter
from provisioning.hypervisors.base import (
    Card,
    HostMisconfigured,
    Hypervisor,
    HypervisorError,
    Image,
    MachineNotFound,
    MachineSpec,
    Nic,
    Power,
)
from provisioning.hypervisors.domain_xml import NAMESPACE
from provisioning.hypervisors.libvirt import LibvirtHypervisor
from servers.states import PowerState
from tests.contract.labs import Lab
from tests.unit.machines import HOSTILE

RUNNING = Power(state=PowerState.RUNNING)


def test_starting_twice_is_starting_once(hypervisor: Hypervisor, machine: MachineSpec, lab: Lab) -> None:
    hypervisor.start(machine.uuid)
    first = lab.domain(machine).ID()
    hypervisor.start(machine.uuid)
    assert hypervisor.power(machine.uuid) == RUNNING
    assert lab.domain(machine).ID() == first


def test_starting_a_paused_machine_lets_it_go_on(
    hypervisor: Hypervisor, machine: MachineSpec, lab: Lab
) -> None:
    hypervisor.start(machine.uuid)
    lab.domain(machine).suspend()
    assert hypervisor.power(machine.uuid).state == PowerState.PAUSED
    hypervisor.start(machine.uuid)
    assert hypervisor.power(machine.uuid) == RUNNING


def test_powering_off_what_is_off_succeeds(hypervisor: Hypervisor, machine: MachineSpec) -> None:
    hypervisor.power_off(machine.uuid)
    hypervisor.start(machine.uuid)
    hypervisor.power_off(machine.uuid)
    hypervisor.power_off(machine.uuid)
    assert hypervisor.power(machine.uuid) == Power(state=PowerState.OFF, off_on_purpose=True)


def test_shutting_down_what_is_off_succeeds(hypervisor: Hypervisor, machine: MachineSpec) -> None:
    hypervisor.shut_down(machine.uuid)
    assert hypervisor.power(machine.uuid).state == PowerState.OFF


def test_deleting_what_is_gone_succeeds(hypervisor: Hypervisor, machine: MachineSpec) -> None:
    hypervisor.delete(machine.uuid)
    hypervisor.delete(machine.uuid)
    hypervisor.delete(uuid4())


def test_deleting_removes_the_machine_and_every_file_of_it(
    hypervisor: Hypervisor, machine: MachineSpec, lab: Lab
) -> None:
    hypervisor.start(machine.uuid)
    hypervisor.delete(machine.uuid)
    with pytest.raises(MachineNotFound):
        hypervisor.power(machine.uuid)
    assert [name for name in lab.files() if name.startswith(str(machine.uuid))] == []


def test_of_two_who_delete_at_once_both_succeed(lab: Lab, machine: MachineSpec) -> None:
    for _ in range(5):
        lab.make(machine)
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: lab.hypervisor.delete(machine.uuid), range(4)))
        assert [name for name in lab.files() if name.startswith(str(machine.uuid))] == []


def test_files_of_which_libvirt_does_not_know_are_deleted_too(qemu_lab: Lab) -> None:
    """Guard: refresh in delete; virtlogd makes such files when a console's log grows."""
    machine = uuid4()
    folder = ET.fromstring(qemu_lab.storage.XMLDesc()).findtext("target/path")
    subprocess.run(as_root("touch", f"{folder}/{machine}-console.log.0"), check=True)
    qemu_lab.hypervisor.delete(machine)
    assert f"{machine}-console.log.0" not in qemu_lab.files()


def test_deleting_one_machine_leaves_the_others_alone(
    hypervisor: Hypervisor, make_spec: Callable[..., MachineSpec], lab: Lab
) -> None:
    gone, stays = make_spec(), make_spec()
    for spec in (gone, stays):
        lab.make(spec)
    hypervisor.delete(gone.uuid)
    assert hypervisor.power(stays.uuid).state == PowerState.OFF
    assert f"{stays.uuid}.qcow2" in lab.files()
    assert hypervisor.has_image(stays.image)


def test_files_are_deleted_when_there_is_no_machine_yet(
    hypervisor: Hypervisor, spec: MachineSpec, lab: Lab
) -> None:
    hypervisor.create_disk(spec)
    hypervisor.delete(spec.uuid)
    assert f"{spec.uuid}.qcow2" not in lab.files()


def test_a_machine_is_deleted_when_its_files_are_gone(
    hypervisor: Hypervisor, machine: MachineSpec, lab: Lab
) -> None:
    lab.storage.storageVolLookupByName(f"{machine.uuid}.qcow2").delete()
    hypervisor.delete(machine.uuid)
    with pytest.raises(MachineNotFound):
        hypervisor.power(machine.uuid)


def test_defining_again_brings_the_definition_up_to_date(
    hypervisor: Hypervisor, machine: MachineSpec, lab: Lab
) -> None:
    hypervisor.define(machine)
    hypervisor.define(replace(machine, vcpus=2, memory_mib=256))
    definition = ET.fromstring(lab.domain(machine).XMLDesc())
    assert (definition.findtext("vcpu"), definition.findtext("memory")) == ("2", str(256 * 1024))


@pytest.mark.parametrize("is_on", [False, True])
def test_a_new_name_shows(hypervisor: Hypervisor, machine: MachineSpec, lab: Lab, is_on: bool) -> None:
    if is_on:
        hypervisor.start(machine.uuid)
    hypervisor.rename(machine.uuid, "another <name>")
    assert ET.fromstring(lab.domain(machine).XMLDesc()).findtext("title") == "another <name>"
    hypervisor.power_off(machine.uuid)
    assert ET.fromstring(lab.domain(machine).XMLDesc()).findtext("title") == "another <name>"


@pytest.mark.parametrize("verb", ["start", "shut_down", "power_off", "power", "guest"])
def test_what_is_not_there_is_not_found(hypervisor: Hypervisor, verb: str) -> None:
    with pytest.raises(MachineNotFound):
        getattr(hypervisor, verb)(uuid4())


def test_what_is_not_there_cannot_be_renamed(hypervisor: Hypervisor) -> None:
    with pytest.raises(MachineNotFound):
        hypervisor.rename(uuid4(), "x")


def test_powers_tells_of_all_our_machines_and_of_no_others(
    hypervisor: Hypervisor, make_spec: Callable[..., MachineSpec], lab: Lab
) -> None:
    on, off, foreign = make_spec(), make_spec(), uuid4()
    for spec in (on, off):
        lab.make(spec)
    hypervisor.start(on.uuid)
    definition = ET.fromstring(lab.domain(off).XMLDesc())
    # Somebody's copy of a machine of ours, our metadata and all, is not ours.
    changed = {"name": "a-copy", "uuid": str(foreign)}
    for tag, text in changed.items():
        element = definition.find(tag)
        assert element is not None
        element.text = text
    copy = lab.libvirt.defineXML(ET.tostring(definition, encoding="unicode"))
    try:
        powers = hypervisor.powers()
    finally:
        copy.undefine()
    assert powers[on.uuid] == RUNNING
    assert powers[off.uuid].state == PowerState.OFF
    assert foreign not in powers


def test_every_machine_is_described_as_it_was_defined(
    hypervisor: Hypervisor, make_spec: Callable[..., MachineSpec], lab: Lab
) -> None:
    on, off = make_spec(), make_spec(vcpus=2, memory_mib=256)
    for spec in (on, off):
        lab.make(spec)
    hypervisor.start(on.uuid)
    machines = {machine.uuid: machine for machine in hypervisor.machines()}
    for spec, power in ((on, PowerState.RUNNING), (off, PowerState.OFF)):
        machine, [nic] = machines[spec.uuid], spec.nics
        assert (machine.is_ours, machine.server, machine.power.state) == (True, spec.uuid, power)
        assert (machine.vcpus, machine.memory_mib) == (spec.vcpus, spec.memory_mib)
        assert machine.cards == (Card(mac=nic.mac, is_filtered=True, addresses=_addresses_of(nic)),)


def _addresses_of(nic: Nic) -> tuple[IPv4Address | IPv6Address, ...]:
    return tuple(address.ip for address in nic.addresses)


def test_usage_leaves_out_what_is_off_or_gone(hypervisor: Hypervisor, machine: MachineSpec) -> None:
    assert hypervisor.usage([machine.uuid, uuid4()]) == {}
    assert hypervisor.usage([]) == {}


def test_there_is_no_guest_in_a_machine_that_is_off(hypervisor: Hypervisor, machine: MachineSpec) -> None:
    assert hypervisor.guest(machine.uuid) is None


def test_making_a_disk_again_changes_nothing(hypervisor: Hypervisor, machine: MachineSpec, lab: Lab) -> None:
    before = lab.storage.storageVolLookupByName(f"{machine.uuid}.qcow2").XMLDesc()
    hypervisor.create_disk(machine)
    assert lab.storage.storageVolLookupByName(f"{machine.uuid}.qcow2").XMLDesc() == before


def test_a_torn_disk_is_made_again(hypervisor: Hypervisor, spec: MachineSpec, lab: Lab) -> None:
    lab.storage.createXML(f"<volume><name>{spec.uuid}.qcow2</name><capacity>1</capacity></volume>")
    hypervisor.create_disk(spec)
    volume = ET.fromstring(lab.storage.storageVolLookupByName(f"{spec.uuid}.qcow2").XMLDesc())
    assert volume.findtext("capacity") == str(2**30)
    assert spec.image.sha256 in (volume.findtext("backingStore/path") or "")


def test_a_disk_that_may_hold_data_is_never_replaced(
    hypervisor: Hypervisor, machine: MachineSpec, lab: Lab
) -> None:
    disk = lab.storage.storageVolLookupByName(f"{machine.uuid}.qcow2")
    disk.delete()
    # Of a machine that the host knows: whatever this is, it is not for us to throw away.
    lab.storage.createXML(f"<volume><name>{machine.uuid}.qcow2</name><capacity>1</capacity></volume>")
    with pytest.raises(HypervisorError, match="another disk"):
        hypervisor.create_disk(machine)


def test_there_is_no_disk_without_its_image(
    hypervisor: Hypervisor, make_spec: Callable[..., MachineSpec]
) -> None:
    unknown = Image(sha256="12" * 32)
    assert not hypervisor.has_image(unknown)
    with pytest.raises(HypervisorError, match="not in the cache"):
        hypervisor.create_disk(make_spec(image=unknown))


def test_volumes_are_known_by_their_machine(hypervisor: Hypervisor, machine: MachineSpec, lab: Lab) -> None:
    lab.storage.createXML("<volume><name>somebody-elses.iso</name><capacity>1</capacity></volume>")
    try:
        volumes = hypervisor.volumes()
    finally:
        lab.storage.storageVolLookupByName("somebody-elses.iso").delete()
    assert {v.name for v in volumes if v.machine == machine.uuid} >= {
        f"{machine.uuid}.qcow2",
        f"{machine.uuid}-console.log",
    }
    assert {v.name for v in volumes if v.machine is None and machine.image.sha256 in v.name} == {
        f"image-{machine.image.sha256}.qcow2",
        f"image-{machine.image.sha256}.ok",
    }
    assert "somebody-elses.iso" not in {v.name for v in volumes}


@pytest.mark.parametrize("text", HOSTILE)
def test_what_somebody_typed_comes_back_unchanged(
    hypervisor: Hypervisor, make_spec: Callable[..., MachineSpec], lab: Lab, text: str
) -> None:
    spec = make_spec(name=text, account=text, hostname=text)
    hypervisor.define(spec)
    for _ in range(2):
        definition = ET.fromstring(lab.domain(spec).XMLDesc())
        assert definition.findtext("title") == text
        ours = definition.find(f"metadata/{{{NAMESPACE}}}server")
        assert ours is not None
        assert ours.attrib == {"uuid": str(spec.uuid), "account": text, "hostname": text}
        hypervisor.rename(spec.uuid, text)


@pytest.mark.parametrize("text", ["two\nlines", "\x00", "\ud800"])
def test_control_characters_are_refused(hypervisor: Hypervisor, machine: MachineSpec, text: str) -> None:
    with pytest.raises(HypervisorError, match="control character"):
        hypervisor.define(replace(machine, name=text))
    with pytest.raises(HypervisorError, match="control character"):
        hypervisor.rename(machine.uuid, text)


def test_facts_are_told(hypervisor: Hypervisor, lab: Lab) -> None:
    facts = hypervisor.facts()
    assert facts.domain_type == lab.domain_type
    assert facts.libvirt_version.count(".") == 2
    assert min(facts.vcpus, facts.memory_mib, facts.disk_gib) > 0
    if lab.uri.startswith("qemu"):
        assert (facts.vcpus, facts.memory_mib) == (os.cpu_count(), _memory_of_this_machine_mib())
    assert 0 < facts.disk_free_gib <= facts.disk_gib


def _memory_of_this_machine_mib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def test_preparing_starts_what_is_stopped_and_may_be_repeated(test_lab: Lab) -> None:
    network = test_lab.libvirt.networkLookupByName(test_lab.network)
    network.destroy()
    network.setAutostart(0)
    for ask in (test_lab.hypervisor.facts, test_lab.hypervisor.check_ready):
        with pytest.raises(HostMisconfigured, match="not started"):
            ask()
    for _ in range(2):
        test_lab.hypervisor.prepare()
    assert (network.isActive(), network.autostart()) == (1, 1)
    test_lab.hypervisor.check_ready()


def test_preparing_defines_our_network_filter(qemu_lab: Lab) -> None:
    for _ in range(2):
        qemu_lab.hypervisor.prepare()
    assert network_filter.NAME in qemu_lab.libvirt.listNWFilters()


def test_a_host_without_the_pool_or_the_network_is_misconfigured(lab: Lab) -> None:
    for pool, network in ((lab.pool, "no-such-thing"), ("no-such-thing", lab.network)):
        driver = LibvirtHypervisor(lab.uri, domain_type=lab.domain_type, pool=pool, networks=(network,))
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
    qemu_lab.hypervisor.delete(spec.uuid)
    network.undefine()


def test_a_host_whose_pool_is_not_started_is_misconfigured_not_busy(lab: Lab, idle_pool: str) -> None:
    """Guard: is_not_started; libvirt has the same code for a volume that is in use."""
    driver = LibvirtHypervisor(lab.uri, domain_type=lab.domain_type, pool=idle_pool, networks=(lab.network,))
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
        qemu_lab.hypervisor.start(stranded.uuid)


def test_threads_may_share_a_hypervisor(lab: Lab, machine: MachineSpec) -> None:
    shared = lab.driver()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: shared.power(machine.uuid), range(80)))
    assert {answer.state for answer in answers} == {PowerState.OFF}
