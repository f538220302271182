"""A host whose storage pool is full: nothing new comes, what waits goes on, and each is told what it is."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from backups.pieces import PIECE_BYTES
from backups.reading import Data
from core.errors import NotAllowedNow, Refusal
from deploy.local.guest import sha256
from deploy.local.libvirtd import Libvirtd
from deploy.local.processes import as_root, wait_for
from inventory.models import Hypervisor
from provisioning import host_facts, hypervisors
from provisioning.drivers import base
from provisioning.drivers.storage_names import disk_volume
from provisioning.reconcile import reconcile
from provisioning.verify.findings import Code
from provisioning.verify.verification import verify
from servers import services
from servers.models import Server
from servers.states import PowerState, ServerStatus
from tests.factories import OsVersionFactory, PlanFactory
from tests.flows.conftest import SMALL_MIB, finish, full
from tests.private_services import VAR
from tests.vaults import nothing_to_hold

pytestmark = pytest.mark.django_db(transaction=True)

# A boot sector that writes over the disk that it came from, 127 sectors at a time, for ever.
WRITER = (
    bytes.fromhex(
        "31c0 8ed8 8ed0 bc007c"  # no segments, a stack
        "be197c b80043 cd13"  # write what the packet says
        "668306217c7f ebf0"  # go 127 sectors on, and again
        "1000 7f00 0000 00f0 0008000000000000"  # the packet: how many, from the BIOS, to sector 2048
    ).ljust(510, b"\0")
    + b"\x55\xaa"
)


@pytest.fixture(scope="session")
def writing_image() -> Path:
    raw, image = VAR / "images" / "writer.raw", VAR / "images" / "writer.qcow2"
    raw.parent.mkdir(parents=True, exist_ok=True)
    raw.write_bytes(WRITER.ljust(2**20, b"\0"))
    subprocess.run(["qemu-img", "convert", "-q", "-O", "qcow2", str(raw), str(image)], check=True)
    return image.rename(image.parent / f"{sha256(image)}.qcow2")


@pytest.fixture
def order_there(small: Hypervisor, order: Callable[..., Server]) -> Callable[..., Server]:
    return lambda **changes: order(location=small.location, **changes)


def power_of(server: Server, host: Hypervisor) -> base.Power:
    return hypervisors.bare_driver_for(host).power(server.uuid)


def test_a_host_whose_pool_is_nearly_full_is_not_on_offer(
    small: Hypervisor,
    small_libvirtd: Libvirtd,
    order_there: Callable[..., Server],
) -> None:
    """Guard: ``fault_of_room``."""
    reconcile(small)
    order_there()
    with full(small_libvirtd):
        reconcile(small)
        with pytest.raises(Refusal) as refusal:
            order_there()
        assert refusal.value.code == "no_capacity"
        assert "nearly full" in host_facts.ask(small)
        small.refresh_from_db()
        assert "nearly full" in small.last_error
        assert Code.HOST_DISK_NEARLY_FULL in {finding.code for finding in verify()}
    reconcile(small)
    order_there()


def test_a_create_that_meets_a_full_pool_says_so_and_leaves_nothing(
    small: Hypervisor,
    small_libvirtd: Libvirtd,
    order_there: Callable[..., Server],
) -> None:
    """Guards: ``is_about_room``; what ``write`` and ``put_image`` read back."""
    driver = hypervisors.bare_driver_for(small)
    server = order_there()
    with full(small_libvirtd):
        finish(server)
    create = server.operations.get()
    assert (server.status, create.error_code) == (ServerStatus.ERROR, "pool_full"), create.error_detail
    assert server.uuid not in {volume.machine for volume in driver.volumes()}
    again = finish(order_there())
    assert again.status == ServerStatus.ACTIVE


def test_an_image_that_does_not_fit_is_not_called_damaged(
    small: Hypervisor,
    small_libvirtd: Libvirtd,
    tmp_path: Path,
) -> None:
    raw, source = tmp_path / "raw", tmp_path / "image.qcow2"
    raw.write_bytes(os.urandom(2**20))  # no pool has it yet
    subprocess.run(["qemu-img", "convert", "-q", "-O", "qcow2", str(raw), str(source)], check=True)
    driver, image = hypervisors.bare_driver_for(small), base.Image(sha256=sha256(source))
    with full(small_libvirtd), pytest.raises(base.PoolFull):
        driver.put_image(image, source)
    assert not driver.has_image(image)
    driver.put_image(image, source)
    assert driver.has_image(image)


def test_two_restored_disks_do_not_fill_a_pool_together(small: Hypervisor) -> None:
    """Each fits, both do not.  Guard: ``is_allocated``: a file that grows holds no room."""
    driver = hypervisors.bare_driver_for(small)
    pieces = int(driver.room().free_bytes * 0.6 / PIECE_BYTES)
    spans = [(index * PIECE_BYTES, PIECE_BYTES) for index in range(pieces)]

    def spec() -> base.MachineSpec:
        image = base.Image(sha256="0" * 64)
        return base.MachineSpec(
            uuid=uuid4(),
            name="restored",
            account="alice",
            hostname="restored",
            vcpus=1,
            memory_mib=128,
            disk_gib=1,
            image=image,
            nics=(),
        )

    def another_begins() -> None:
        with pytest.raises(base.PoolFull):
            driver.write_disk(spec(), spans, iter(()), require_ours=nothing_to_hold)

    content = (Data(offset, b"x" * length) for offset, length in spans)
    first = spec()
    driver.write_disk(first, spans, content, require_ours=another_begins)
    assert disk_volume(first.uuid) in {volume.name for volume in driver.volumes()}


def test_what_waits_for_room_is_shown_and_goes_on_when_there_is_some(
    small: Hypervisor,
    small_libvirtd: Libvirtd,
    order_there: Callable[..., Server],
    writing_image: Path,
) -> None:
    """Guards: ``_resume``; ``refusal`` by power."""
    system = OsVersionFactory.create(name="writer", image__sha256=writing_image.stem)
    server = finish(
        order_there(os_version=system, plan=PlanFactory.create(vcpus=1, memory_mib=128, disk_gib=1))
    )
    assert server.status == ServerStatus.ACTIVE
    assert wait_for(lambda: power_of(server, small).waits_for_room, 60), "it never fills the pool"

    reconcile(small)
    server.refresh_from_db()
    assert (server.status, server.power_state) == (ServerStatus.ACTIVE, PowerState.PAUSED)
    assert Code.SERVER_PAUSED in {finding.code for finding in verify()}
    with pytest.raises(NotAllowedNow) as refusal:
        services.start_server(server=server)
    assert refusal.value.code == "paused"
    assert power_of(server, small).waits_for_room, "there is no room yet"

    driver = hypervisors.bare_driver_for(small)
    grow(small_libvirtd, SMALL_MIB + 8)
    assert driver.room().free_bytes > 7 * 2**20
    reconcile(small)
    assert wait_for(lambda: driver.room().free_bytes < 4 * 2**20, 60), "it did not go on"
    driver.delete(server.uuid)
    grow(small_libvirtd, SMALL_MIB)


def grow(libvirtd: Libvirtd, size_mib: int) -> None:
    pool = str(libvirtd.folder / "pool")
    subprocess.run(as_root("mount", "-o", f"remount,size={size_mib}m", pool), check=True)


def test_a_machine_that_somebody_paused_stays_so(
    small: Hypervisor,
    order_there: Callable[..., Server],
) -> None:
    """Guard: ``waits_for_room``."""
    server = finish(order_there())
    hypervisors.bare_driver_for(small).resume(server.uuid)
    subprocess.run(["virsh", "-q", "-c", small.uri, "suspend", f"vps-{server.uuid}"], check=True)
    reconcile(small)
    hypervisors.bare_driver_for(small).resume(server.uuid)
    assert power_of(server, small).state == PowerState.PAUSED
