"""After a crash a file's name is all that says whose it is."""

import pytest

from provisioning.hypervisors import storage_names
from provisioning.hypervisors.base import Image
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
        storage_names.seed_volume(MACHINE),
        storage_names.console_volume(MACHINE),
        storage_names.console_volume(MACHINE) + ".0",  # virtlogd's doing
    ],
)
def test_files_of_a_machine_are_known(name: str) -> None:
    volume = storage_names.parse(name)
    assert volume is not None
    assert (volume.name, volume.machine) == (name, MACHINE)


@pytest.mark.parametrize(
    "name", ["", "debian.iso", "lost+found", str(MACHINE), f"{MACHINE}0.qcow2", f"{MACHINE.hex}.qcow2"]
)
def test_other_peoples_files_are_not_ours(name: str) -> None:
    assert storage_names.parse(name) is None
