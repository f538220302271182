"""An image counts when all of it is there and was found right; whatever comes between, it does not count."""

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioning.drivers.base import HypervisorError, Image, ImageInUse, ImageInvalid, MachineSpec
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
    assert not lab.driver.has_image(image)
    lab.driver.put_image(image, source)
    assert lab.driver.has_image(image)
    lab.driver.put_image(image, source)
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
        lab.driver.put_image(image, source)
    assert not lab.driver.has_image(image)
    source.write_bytes(right)
    lab.driver.put_image(image, source)
    assert lab.driver.has_image(image)


def test_a_file_that_is_not_there_is_refused(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(ImageInvalid, match="cannot be read"):
        lab.driver.put_image(Image(sha256="ab" * 32), tmp_path / "nothing")


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
        lab.driver.put_image(digest(overlay), overlay)
    assert not lab.driver.has_image(digest(overlay))


def test_an_image_that_is_damaged_never_comes_into_the_pool(lab: Lab, source: Path) -> None:
    """80 bytes of one took the whole pool down.  Guard: ``inspect`` in put_image."""
    source.write_bytes(source.read_bytes()[:80])
    with pytest.raises(ImageInvalid, match="damaged"):
        lab.driver.put_image(digest(source), source)
    assert not lab.driver.has_image(digest(source))
    assert digest(source) not in [file.image for file in lab.driver.images()]


def test_a_copy_that_was_torn_does_not_count_and_can_be_repeated(lab: Lab, source: Path, wire: Wire) -> None:
    image = digest(source)
    torn = lab.new_driver(wire.uri)
    torn.powers()  # connected
    wire.cut_after(2**20)
    with pytest.raises(HypervisorError):
        torn.put_image(image, source)
    assert f"image-{image.sha256}.qcow2" in lab.files()
    assert not lab.driver.has_image(image)
    wire.mend()
    torn.put_image(image, source)
    assert lab.driver.has_image(image)


def test_a_marker_without_its_image_does_not_count(lab: Lab, source: Path) -> None:
    image = digest(source)
    lab.driver.put_image(image, source)
    lab.storage.storageVolLookupByName(f"image-{image.sha256}.qcow2").delete()
    assert not lab.driver.has_image(image)
    lab.driver.put_image(image, source)
    assert lab.driver.has_image(image)


def test_a_disk_smaller_than_its_image_is_refused(
    lab: Lab, tmp_path: Path, make_spec: Callable[..., MachineSpec]
) -> None:
    large = tmp_path / "large.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(large), "2G"], check=True)
    lab.driver.put_image(digest(large), large)
    with pytest.raises(HypervisorError, match="too small"):
        lab.driver.create_disk(make_spec(image=digest(large), disk_gib=1))
    lab.driver.create_disk(make_spec(image=digest(large), disk_gib=2))


def test_what_cannot_take_files_says_so(test_lab: Lab, source: Path) -> None:
    with pytest.raises(HypervisorError, match="not supported"):
        test_lab.driver.put_image(digest(source), source)
    assert not test_lab.driver.has_image(digest(source))


def _files_of(lab: Lab, image: Image) -> list[str]:
    return [name for name in lab.files() if image.sha256 in name]


def _is_whole(lab: Lab, image: Image) -> bool | None:
    return {copy.image: copy.is_whole for copy in lab.driver.images()}.get(image)


def test_an_image_goes_in_two_steps(lab: Lab, source: Path) -> None:
    image = digest(source)
    assert _is_whole(lab, image) is None
    lab.driver.put_image(image, source)
    assert _is_whole(lab, image) is True

    with pytest.raises(ImageInUse, match="not retired"):
        lab.driver.remove_image(image)
    lab.driver.retire_image(image)
    assert (_is_whole(lab, image), lab.driver.has_image(image)) == (False, False)
    for _ in range(2):
        lab.driver.remove_image(image)
        lab.driver.retire_image(image)
        assert _is_whole(lab, image) is None
    assert _files_of(lab, image) == []


@pytest.mark.parametrize("is_named_as_ours", [True, False])
def test_an_image_that_a_disk_is_backed_by_stays(
    lab: Lab, source: Path, make_spec: Callable[..., MachineSpec], is_named_as_ours: bool
) -> None:
    """Also when the disk is not ours: somebody's copy of one needs the image just as much.

    Guards: ``_refuse_if_in_use`` in retire_image and in remove_image in libvirt_images.py.
    """
    image = digest(source)
    lab.driver.put_image(image, source)
    disk = f"{make_disk(lab, make_spec(image=image))}"
    if not is_named_as_ours:
        path = Path(lab.storage.storageVolLookupByName(disk).path())
        path.rename(f"{path}.kept")
    for call in (lab.driver.retire_image, lab.driver.remove_image):
        with pytest.raises(ImageInUse, match=disk):
            call(image)
        if lab.driver.has_image(image):  # a crash may leave it without its marker
            lab.storage.storageVolLookupByName(f"image-{image.sha256}.ok").delete()
    assert _files_of(lab, image) == [f"image-{image.sha256}.qcow2"]


def test_an_image_that_was_retired_counts_again_without_another_copy(lab: Lab, source: Path) -> None:
    """Guard: ``_is_right`` in put_image in libvirt_images.py."""
    image = digest(source)
    lab.driver.put_image(image, source)
    lab.driver.retire_image(image)
    source.unlink()
    lab.driver.put_image(image, source)
    assert lab.driver.has_image(image)


def test_a_damaged_image_that_a_disk_is_backed_by_is_not_written_over(
    lab: Lab, source: Path, make_spec: Callable[..., MachineSpec]
) -> None:
    """Guard: ``_refuse_if_in_use`` in put_image in libvirt_images.py."""
    image = digest(source)
    lab.driver.put_image(image, source)
    make_disk(lab, make_spec(image=image))
    path = Path(lab.storage.storageVolLookupByName(f"image-{image.sha256}.qcow2").path())
    path.write_bytes(path.read_bytes() + b"x")
    path.with_suffix(".ok").unlink()
    assert path.name in lab.files()
    with pytest.raises(ImageInUse):
        lab.driver.put_image(image, source)
    assert path.read_bytes().endswith(b"x")


def make_disk(lab: Lab, spec: MachineSpec) -> str:
    lab.driver.create_disk(spec)
    return f"{spec.uuid}.qcow2"
