"""What somebody changed on the host about a machine is seen, left alone, and told."""

from collections.abc import Callable, Iterator
from typing import Any

import libvirt
import pytest

from provisioning.drivers.base import MachineChanged, MachineSpec
from servers.states import PowerState
from tests.contract.guests import await_up, boot, run, until
from tests.contract.labs import Lab

DISK_ONLY = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
SNAPSHOT = "<domainsnapshot><name>x</name><disks><disk name='vdb' snapshot='no'/></disks></domainsnapshot>"
STORED = libvirt.VIR_DOMAIN_XML_INACTIVE


@pytest.fixture
def lab(qemu_lab: Lab) -> Lab:
    return qemu_lab


@pytest.fixture
def changed(lab: Lab, machine: MachineSpec) -> Iterator[MachineSpec]:
    """A machine that a test changes.  Whatever it was given besides is removed afterwards."""
    yield machine
    lab.driver.delete(machine.uuid)
    for name in lab.files():
        if name.startswith(str(machine.uuid)):
            lab.storage.storageVolLookupByName(name).delete()


def snapshot(domain: Any) -> None:
    domain.snapshotCreateXML(SNAPSHOT, DISK_ONLY)


def snapshot_while_it_runs(domain: Any) -> None:
    domain.create()
    snapshot(domain)
    domain.destroy()


def save(domain: Any) -> None:
    domain.create()
    domain.managedSave()


def attach_disk(domain: Any) -> None:
    domain.attachDeviceFlags(
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/etc/hostname'/>"
        "<target dev='vdc' bus='virtio'/><readonly/></disk>",
        libvirt.VIR_DOMAIN_AFFECT_CONFIG,
    )


def share_a_folder(domain: Any) -> None:
    domain.attachDeviceFlags(
        "<filesystem type='mount'><source dir='/etc'/><target dir='x'/></filesystem>",
        libvirt.VIR_DOMAIN_AFFECT_CONFIG,
    )


def attach_vsock(domain: Any) -> None:
    domain.attachDeviceFlags(
        "<vsock model='virtio'><cid auto='yes'/></vsock>", libvirt.VIR_DOMAIN_AFFECT_CONFIG
    )


def attach_screen(domain: Any) -> None:
    with_screen = domain.XMLDesc(STORED).replace(
        "</devices>", "<graphics type='vnc'/><video><model type='vga'/></video></devices>"
    )
    domain.connect().defineXML(with_screen)


def attach_card(domain: Any) -> None:
    domain.attachDeviceFlags(
        "<interface type='network'><source network='vps'/><model type='virtio'/></interface>",
        libvirt.VIR_DOMAIN_AFFECT_CONFIG,
    )


def give_firmware(domain: Any) -> None:
    with_firmware = domain.XMLDesc(STORED).replace(
        "</os>",
        "<loader readonly='yes' type='pflash'>/usr/share/seabios/bios.bin</loader>"
        "<nvram>/var/lib/libvirt/qemu/nvram/x.fd</nvram></os>",
    )
    domain.connect().defineXML(with_firmware)


CHANGES = [
    (snapshot, "has another disk: "),
    (snapshot_while_it_runs, "has another disk: "),
    (attach_disk, "has another disk: /etc/hostname"),
    (share_a_folder, "has a device that we never give: filesystem"),
    (attach_vsock, "has a device that we never give: vsock"),
    (attach_screen, "has a device that we never give: graphics"),
    (attach_card, "has 2 network cards, and we give one"),
    (give_firmware, "has memory of its firmware"),
    (save, "has saved memory"),
]


@pytest.mark.parametrize(("change", "told"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_a_machine_that_was_changed_is_neither_defined_nor_started(
    lab: Lab, changed: MachineSpec, change: Callable[[Any], None], told: str
) -> None:
    """Guard: require_unchanged in LibvirtDriver.define and start."""
    lab.driver.require_unchanged(changed.uuid)
    change(lab.domain(changed))
    before = lab.domain(changed).XMLDesc(STORED)
    with pytest.raises(MachineChanged, match=told):
        lab.driver.require_unchanged(changed.uuid)
    with pytest.raises(MachineChanged, match=told):
        lab.driver.define(changed)
    with pytest.raises(MachineChanged, match=told):
        lab.driver.start(changed.uuid)
    assert lab.domain(changed).XMLDesc(STORED) == before
    assert not lab.domain(changed).isActive()
    [machine] = [machine for machine in lab.driver.machines() if machine.uuid == changed.uuid]
    assert any(words.startswith(told) for words in machine.changes)


def test_what_is_only_attached_until_the_next_stop_is_seen_too(lab: Lab, machine: MachineSpec) -> None:
    """Guard: the live definition in changes_of."""
    lab.driver.start(machine.uuid)
    lab.domain(machine).attachDeviceFlags(
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/etc/hostname'/>"
        "<target dev='sda' bus='usb'/><readonly/></disk>",
        libvirt.VIR_DOMAIN_AFFECT_LIVE,
    )
    with pytest.raises(MachineChanged, match="/etc/hostname"):
        lab.driver.define(machine)
    lab.driver.power_off(machine.uuid)
    lab.driver.start(machine.uuid)


def test_a_machine_that_was_forgotten_is_not_made_again_below_a_snapshot(
    lab: Lab, changed: MachineSpec
) -> None:
    """Guard: overlays in require_unchanged."""
    snapshot(lab.domain(changed))
    lab.domain(changed).undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
    with pytest.raises(MachineChanged, match=f"has a disk over its disk: {changed.uuid}.x"):
        lab.driver.define(changed)


def test_a_machine_that_was_only_forgotten_is_made_again(lab: Lab, machine: MachineSpec) -> None:
    lab.domain(machine).undefine()
    lab.driver.define(machine)
    lab.driver.start(machine.uuid)


def test_a_machine_that_its_host_will_forget_says_so(lab: Lab, machine: MachineSpec) -> None:
    lab.driver.start(machine.uuid)
    lab.domain(machine).undefine()
    [told] = [told for told in lab.driver.machines() if told.uuid == machine.uuid]
    assert told.changes == ("is not stored on its host, which forgets it when it stops",)
    lab.driver.define(machine)
    assert lab.domain(machine).isPersistent()


def test_what_was_written_after_a_snapshot_is_still_there(lab: Lab, changed: MachineSpec) -> None:
    """A definition of ours would bring the disk back that the machine had before the snapshot."""
    boot(lab, changed)
    snapshot(lab.domain(changed))
    written = "echo precious | dd of=/dev/vda bs=1M seek=700 conv=fsync"
    assert run(lab, changed, written)[0] == 0
    lab.driver.shut_down(changed.uuid)
    until(lambda: lab.driver.power(changed.uuid).state == PowerState.OFF)
    with pytest.raises(MachineChanged):
        lab.driver.define(changed)
    with pytest.raises(MachineChanged):
        lab.driver.start(changed.uuid)
    lab.domain(changed).create()  # an operator's hand
    await_up(lab, changed)
    assert run(lab, changed, "dd if=/dev/vda bs=1M skip=700 count=1 | head -c 8")[1].startswith("precious")
