"""After a crash a file's name is all that says whose it is."""

import pytest

from provisioning.drivers import storage_names
from provisioning.drivers.base import Image
from tests.unit.machines import MACHINE

IMAGE = Image(sha256="ab" * 32)


@pytest.mark.parametrize("name", [storage_names.image_volume(IMAGE), storage_names.image_marker(IMAGE)])
def test_files_of_an_image_are_known(name: str) -> None:
    volume = storage_names.parse(name)
    assert volume is not None
    assert volume.machine is None


@pytest.mark.parametrize(
    "name",
    [
        storage_names.disk_volume(MACHINE),
        storage_names.disk_volume(MACHINE, 2),
        storage_names.disk_volume(MACHINE, 12),
        storage_names.seed_volume(MACHINE),
        storage_names.scratch_volume(MACHINE, MACHINE),
    ],
)
def test_files_of_a_machine_are_known(name: str) -> None:
    volume = storage_names.parse(name)
    assert volume is not None
    assert (volume.name, volume.machine, volume.is_ours) == (name, MACHINE, True)


@pytest.mark.parametrize(
    "name",
    [
        f"{MACHINE}.qcow2.before-repair",
        f"{MACHINE}.1.qcow2",
        f"{MACHINE}.02.qcow2",
        f"{MACHINE}.2.qcow2.bak",
        f"{MACHINE}.qcow2\n",
        f"{MACHINE}.qcow2.bak",
        f"{MACHINE}.raw",
        f"{MACHINE}-seed.iso~",
        f"{MACHINE}.x-snapshot",
        f"{storage_names.image_volume(IMAGE)}.part",
    ],
)
def test_a_file_that_is_called_after_ours_is_not_ours(name: str) -> None:
    volume = storage_names.parse(name)
    assert volume is not None
    assert not volume.is_ours


@pytest.mark.parametrize(
    "name",
    [
        "",
        "debian.iso",
        "lost+found",
        "image-debian.qcow2",
        str(MACHINE),
        f"{MACHINE}0.qcow2",
        f"{MACHINE.hex}.qcow2",
        f"{str(MACHINE).upper()}.qcow2",
    ],
)
def test_other_peoples_files_are_not_ours(name: str) -> None:
    assert storage_names.parse(name) is None
