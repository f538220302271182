"""An image counts when all of it is there and was found right; whatever comes between, it does not count."""

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioning.hypervisors.base import HypervisorError, Image, ImageInvalid, MachineSpec
from tests.contract.labs import Lab
from tests.contract.wire import Wire


def digest(path: Path) -> Image:
    return Image(sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def lab(qemu_lab: Lab) -> Lab:
    return qemu_lab


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small image that no other test has: what is in it does not matter."""
    path = tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "10M"], check=True)
    with path.open("ab") as file:
        file.write(str(tmp_path).encode() + bytes(3 * 2**20))
    return path


@pytest.fixture(autouse=True)
def clean_cache(lab: Lab) -> Iterator[None]:
    before = set(lab.files())
    yield
    for name in set(lab.files()) - before:
        lab.storage.storageVolLookupByName(name).delete()


def test_an_image_is_there_after_it_was_put(lab: Lab, source: Path) -> None:
    image = digest(source)
    assert not lab.hypervisor.has_image(image)
    lab.hypervisor.put_image(image, source)
    assert lab.hypervisor.has_image(image)
    lab.hypervisor.put_image(image, source)
    assert [name for name in lab.files() if image.sha256 in name] == [
        f"image-{image.sha256}.ok",
        f"image-{image.sha256}.qcow2",
    ]


@pytest.mark.parametrize("fault", ["changed", "cut short", "longer"])
def test_a_file_that_is_not_the_image_is_refused(lab: Lab, source: Path, fault: str) -> None:
    image, right = digest(source), source.read_bytes()
    wrong = {"changed": right[:-1] + b"x", "cut short": right[:-1], "longer": right + b"x"}
    source.write_bytes(wrong[fault])
    with pytest.raises(ImageInvalid, match="checksum"):
        lab.hypervisor.put_image(image, source)
    assert not lab.hypervisor.has_image(image)
    source.write_bytes(right)
    lab.hypervisor.put_image(image, source)
    assert lab.hypervisor.has_image(image)


def test_a_file_that_is_not_there_is_refused(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(ImageInvalid, match="cannot be read"):
        lab.hypervisor.put_image(Image(sha256="ab" * 32), tmp_path / "nothing")


def test_an_image_that_names_another_file_is_refused(lab: Lab, source: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.qcow2"
    command = [
        "qemu-img",
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        "/etc/passwd",
        str(overlay),
        "1M",
    ]
    subprocess.run(command, check=True)
    with pytest.raises(ImageInvalid, match="backing file"):
        lab.hypervisor.put_image(digest(overlay), overlay)
    assert not lab.hypervisor.has_image(digest(overlay))


def test_a_copy_that_was_torn_does_not_count_and_can_be_repeated(lab: Lab, source: Path, wire: Wire) -> None:
    image = digest(source)
    torn = lab.driver(wire.uri)
    torn.powers()  # connected
    wire.cut_after(2**20)
    with pytest.raises(HypervisorError):
        torn.put_image(image, source)
    assert f"image-{image.sha256}.qcow2" in lab.files()
    assert not lab.hypervisor.has_image(image)
    wire.mend()
    torn.put_image(image, source)
    assert lab.hypervisor.has_image(image)


def test_a_marker_without_its_image_does_not_count(lab: Lab, source: Path) -> None:
    image = digest(source)
    lab.hypervisor.put_image(image, source)
    lab.storage.storageVolLookupByName(f"image-{image.sha256}.qcow2").delete()
    assert not lab.hypervisor.has_image(image)
    lab.hypervisor.put_image(image, source)
    assert lab.hypervisor.has_image(image)


def test_a_disk_smaller_than_its_image_is_refused(
    lab: Lab, tmp_path: Path, make_spec: Callable[..., MachineSpec]
) -> None:
    large = tmp_path / "large.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(large), "2G"], check=True)
    lab.hypervisor.put_image(digest(large), large)
    with pytest.raises(HypervisorError, match="too small"):
        lab.hypervisor.create_disk(make_spec(image=digest(large), disk_gib=1))
    lab.hypervisor.create_disk(make_spec(image=digest(large), disk_gib=2))


def test_what_cannot_take_files_says_so(test_lab: Lab, source: Path) -> None:
    with pytest.raises(HypervisorError, match="not supported"):
        test_lab.hypervisor.put_image(digest(source), source)
    assert not test_lab.hypervisor.has_image(digest(source))
