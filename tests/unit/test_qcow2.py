"""An image comes from outside: its header must not lead to the host's files."""

import struct
import subprocess
from pathlib import Path

import pytest

from provisioning.hypervisors.base import ImageInvalid
from provisioning.hypervisors.qcow2 import inspect


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
