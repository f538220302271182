"""What our backups restore is compared with what somebody else's tool restores, byte by byte."""

import subprocess
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from backups.models import Backup
from deploy.local.libvirtd import Libvirtd
from deploy.local.processes import as_root
from inventory.models import Hypervisor
from provisioning import hypervisors, machine_specs
from provisioning.backup_steps import write_disk_from
from provisioning.drivers.domain_xml import domain_name
from provisioning.drivers.storage_names import disk_volume
from servers.models import Server
from servers.wishes import Wish
from tests.flows.test_backups import guest, inside, put, system, take
from tests.vaults import nothing_to_hold

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]
__all__ = ["guest", "system"]  # fixtures


def test_debians_virtnbdbackup_restores_the_same_bytes(
    host: Hypervisor, guest: Server, libvirtd: Libvirtd, tmp_path: Path
) -> None:
    """An incremental of ours on a full one, beside a full one of theirs, of a guest that runs."""
    put(guest, "one")
    take(guest)
    put(guest, "two")
    # Else each freeze writes the time into it: theirs would be of another moment.
    inside(guest).run("/bin/sh", "-c", "umount /data && losetup -d /dev/loop0 && sync")
    copy = take(guest)
    assert copy.parent is not None
    theirs = _taken_and_restored_by_virtnbdbackup(guest, tmp_path)
    ours = libvirtd.folder / "pool" / _restored(host, guest, copy)
    for command in (["check", ours], ["compare", ours, theirs]):
        done = subprocess.run(as_root("qemu-img", *map(str, command)), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def _taken_and_restored_by_virtnbdbackup(server: Server, folder: Path) -> Path:
    taken, restored = folder / "taken", folder / "restored"
    uri = server.claim.hypervisor.uri.replace("qemu+unix:", "qemu:")  # the first it takes for a far host
    for command in (
        ["virtnbdbackup", "-U", uri, "-d", domain_name(server.uuid), "-l", "copy", "-i", "vda", "-o", taken],
        ["virtnbdrestore", "-U", uri, "-i", taken, "-o", restored],
    ):
        done = subprocess.run(as_root(*map(str, command), "-n"), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    (disk,) = (path for path in restored.iterdir() if path.suffix not in {".xml", ".log"})
    return disk


def _restored(host: Hypervisor, server: Server, copy: Backup) -> str:
    """The name of a disk beside the server's own."""
    driver, own = hypervisors.bare_driver_for(host), machine_specs.spec_of(server, Wish())
    spec = replace(own, uuid=uuid4())
    write_disk_from(copy, driver, spec, nothing_to_hold)
    return disk_volume(spec.uuid, spec.disk_number)
