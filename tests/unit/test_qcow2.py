"""An image comes from outside: its header must not lead to the host's files."""

import random
import struct
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from provisioning.drivers.base import ImageInvalid
from provisioning.drivers.qcow2 import inspect


def make(path: Path, *options: str) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), "64M"], check=True)
    return path


def patch(path: Path, offset: int, value: bytes) -> Path:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(value)
    return path


@pytest.mark.parametrize(
    "options", [(), ("-o", "compat=0.10"), ("-o", "extended_l2=on,compression_type=zstd")]
)
def test_what_qemu_img_makes_is_accepted(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert inspect(make(tmp_path / "image", *options)).virtual_size_bytes == 64 * 2**20


def test_a_backing_file_is_refused(tmp_path: Path) -> None:
    base = make(tmp_path / "base")
    image = make(tmp_path / "image", "-b", str(base), "-F", "qcow2")
    with pytest.raises(ImageInvalid, match="backing file"):
        inspect(image)


def test_an_external_data_file_is_refused(tmp_path: Path) -> None:
    image = make(tmp_path / "image", "-o", f"data_file={tmp_path / 'data'}")
    with pytest.raises(ImageInvalid, match="data file"):
        inspect(image)


def test_an_encrypted_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageInvalid, match="encrypted"):
        inspect(patch(make(tmp_path / "image"), 32, struct.pack(">I", 2)))


def test_a_corrupt_mark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageInvalid, match="corrupt"):
        inspect(patch(make(tmp_path / "image"), 72, struct.pack(">Q", 1 << 1)))


@pytest.mark.parametrize("size", [0, 2**63])
def test_an_impossible_size_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(ImageInvalid, match="bytes large"):
        inspect(patch(make(tmp_path / "image"), 24, struct.pack(">Q", size)))


def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageInvalid, match="version 9"):
        inspect(patch(make(tmp_path / "image"), 4, struct.pack(">I", 9)))


@pytest.mark.parametrize("content", [b"", b"QFI\xfb", b"\x7fELF" + bytes(200), b"QFI" * 40])
def test_what_is_no_qcow2_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "image"
    file.write_bytes(content)
    with pytest.raises(ImageInvalid, match="not a qcow2"):
        inspect(file)


def written(tmp_path: Path) -> Path:
    """An image with 1 MiB in it."""
    raw = tmp_path / "raw"
    raw.write_bytes(random.Random(1).randbytes(2**20))
    image = tmp_path / "image"
    subprocess.run(["qemu-img", "convert", "-q", "-O", "qcow2", str(raw), str(image)], check=True)
    return image


def field(image: Path, offset: int) -> int:
    return int.from_bytes(image.read_bytes()[offset : offset + 8])


def cut(image: Path, size: int) -> None:
    image.write_bytes(image.read_bytes()[:size])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut to its header": lambda image: cut(image, 80),
    "cut before its tables": lambda image: cut(image, 65_536),
    "cut in the middle": lambda image: cut(image, image.stat().st_size // 2),
    "a disk that is larger than its L1 table": lambda image: patch(image, 24, struct.pack(">Q", 2**40)),
    "an L1 table outside of the file": lambda image: patch(image, 40, struct.pack(">Q", 2**40)),
    "a refcount table outside of the file": lambda image: patch(image, 48, struct.pack(">Q", 2**40)),
    "garbage in the L1 table": lambda image: patch(image, field(image, 40), b"\xa5" * 8),
    "garbage in the refcount table": lambda image: patch(image, field(image, 48), b"\xa5" * 8),
    "clusters that are outside of the file": lambda image: patch(
        image, field(image, field(image, 40)) & (2**56 - 512), struct.pack(">Q", 1 << 63 | 2**40) * 4
    ),
    "clusters of an impossible size": lambda image: patch(image, 20, struct.pack(">I", 40)),
    "a huge header": lambda image: patch(image, 100, struct.pack(">I", 2**31)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_image_with_damaged_tables_is_refused(tmp_path: Path, damage: str) -> None:
    """Guard: ``_check_tables``."""
    image = written(tmp_path)
    assert inspect(image).virtual_size_bytes == 2**20
    DAMAGES[damage](image)
    with pytest.raises(ImageInvalid, match="damaged"):
        inspect(image)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_damaged_an_image_is_taken_or_refused(tmp_path: Path, seed: int) -> None:
    luck = random.Random(seed)
    image = written(tmp_path)
    for _ in range(luck.randint(1, 8)):
        where = luck.choice([luck.randrange(112), luck.randrange(5 * 65_536)])
        patch(image, where, luck.randbytes(luck.randint(1, 8)))
    with suppress(ImageInvalid):
        inspect(image)
