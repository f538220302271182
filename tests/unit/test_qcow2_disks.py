"""Disks in qcow2 files, read and written by us: QEMU's own tools say whether that is right."""

import random
import struct
import subprocess
from pathlib import Path

import pytest

from backups.drafts import Zeros
from backups.pieces import PIECE_BYTES
from backups.reading import Data
from provisioning.drivers.base import HypervisorError
from provisioning.drivers.qcow2_reading import Read, extents, size_of
from provisioning.drivers.qcow2_writing import CLUSTER, Qcow2File

MIB = 2**20
# Larger than one second-level table describes (512 MiB), and with an end within a cluster.
DISK_BYTES = 1200 * MIB + 3 * 512


def qemu_img(*arguments: object) -> None:
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True)


def qemu_io(file: Path, *commands: str) -> None:
    told = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *told, str(file)], check=True, capture_output=True)


def reader(file: Path) -> Read:
    def read(offset: int, length: int) -> bytes:
        with file.open("rb") as opened:
            opened.seek(min(offset, file.stat().st_size))
            return opened.read(length)

    return read


def shown(chain: list[Path], to: Path) -> bytes:
    """Writes what we read of a disk into a raw file, and compares that with what QEMU reads."""
    with to.open("wb") as raw:
        raw.truncate(size_of(reader(chain[0])))
        end = 0
        for extent in extents([reader(file) for file in chain]):
            assert extent.offset >= end
            if isinstance(extent, Zeros):
                end = extent.offset + extent.length
                continue
            raw.seek(extent.offset)
            raw.write(extent.data)
            end = extent.offset + len(extent.data)
    qemu_img("compare", "-f", "raw", "-F", "qcow2", to, chain[0])
    return b""


@pytest.mark.parametrize("cluster", [512, 64 * 1024, 2 * MIB])
@pytest.mark.parametrize("base", ["plain", "zlib", "zstd"])
def test_what_qemu_wrote_is_read_as_qemu_reads_it(tmp_path: Path, cluster: int, base: str) -> None:
    image, disk, raw = tmp_path / "image.qcow2", tmp_path / "disk.qcow2", tmp_path / "raw"
    source = tmp_path / "source.qcow2"
    qemu_img("create", "-f", "qcow2", source, 20 * MIB)
    qemu_io(source, "write -P 1 0 100k", "write -P 2 5M 3M", "write -P 3 19M 1M")
    how = [] if base == "plain" else ["-c", "-o", f"compression_type={base}"]
    qemu_img("convert", "-O", "qcow2", *how, source, image)
    size = 64 * MIB if cluster == 512 else DISK_BYTES
    qemu_img("create", "-f", "qcow2", "-b", image, "-F", "qcow2", "-o", f"cluster_size={cluster}", disk, size)
    qemu_io(
        disk,
        "write -P 4 50k 200k",  # over the image's bytes, not at the bounds of clusters
        "write -z 6M 1M",  # zeros over the image's bytes
        "write -P 5 30M 9M",
        f"write -P 6 {size - 512 - size % 512} 512",
        "discard 31M 2M",
    )
    shown([disk, image], raw)


def test_a_file_has_no_content_beyond_its_disks_end() -> None:
    with pytest.raises(ValueError, match="leaves the disk"):
        Qcow2File(8 * MIB, [(0, MIB), (6 * MIB, 4 * MIB)])


def test_two_clusters_at_one_place_are_both_read(tmp_path: Path) -> None:
    """As in an image from which doubled clusters were removed.  Guard: ``setdefault`` in ``_known``."""
    disk = tmp_path / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", disk, 16 * MIB)
    qemu_io(disk, "write -P 7 0 64k", "write -P 8 64k 64k")
    with disk.open("r+b") as file:
        (l1,) = struct.unpack_from(">Q", file.read(104), 40)
        file.seek(l1)
        l2 = struct.unpack(">Q", file.read(8))[0] & ~(1 << 63)
        file.seek(l2)
        first = file.read(8)
        file.write(first)
    shown([disk], tmp_path / "raw")
    assert (tmp_path / "raw").read_bytes()[: 128 * 1024] == b"\7" * 128 * 1024


def test_clusters_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", disk, 256 * MIB)
    places = list(range(0, 250, 3))
    random.Random(7).shuffle(places)
    qemu_io(disk, *(f"write -P {1 + at % 250} {at}M 130k" for at in places))
    shown([disk], tmp_path / "raw")


@pytest.mark.parametrize("spoil", ["magic", "encryption", "features", "bits", "size", "l1", "cut"])
def test_what_cannot_be_read_is_refused(tmp_path: Path, spoil: str) -> None:
    disk = tmp_path / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", disk, 8 * MIB)
    header = bytearray(disk.read_bytes())
    at, value = {
        "magic": (0, b"RFI"),
        "encryption": (32, b"\0\0\0\2"),
        "features": (72, b"\0\0\0\0\0\0\0\x14"),  # an external data file, extended L2 entries
        "bits": (20, b"\0\0\0\x40"),
        "size": (24, b"\xff" * 8),
        "l1": (36, b"\xff" * 4),
        "cut": (0, b""),
    }[spoil]
    header[at : at + len(value)] = value
    disk.write_bytes(header[: 16 if spoil == "cut" else None])
    with pytest.raises(HypervisorError, match="cannot be read"):
        list(extents([reader(disk)]))


def test_tables_that_lead_out_of_the_file_are_refused(tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", disk, 8 * MIB)
    spoilt = bytearray(disk.read_bytes())
    l1_at = int.from_bytes(spoilt[40:48], "big")
    spoilt[l1_at : l1_at + 8] = (2**55).to_bytes(8, "big")
    disk.write_bytes(spoilt)
    with pytest.raises(HypervisorError, match="lead out of its file"):
        list(extents([reader(disk)]))


SPANS: dict[str, list[tuple[int, int]]] = {
    "nothing": [],
    "the beginning": [(0, PIECE_BYTES)],
    "the end": [(DISK_BYTES - DISK_BYTES % PIECE_BYTES, DISK_BYTES % PIECE_BYTES)],
    "around the bound of two tables": [(508 * MIB, PIECE_BYTES), (512 * MIB, PIECE_BYTES)],
    "over the bound of two tables": [(510 * MIB, PIECE_BYTES)],
    "every other piece": [(at, PIECE_BYTES) for at in range(0, 1200 * MIB, 2 * PIECE_BYTES)],
}


@pytest.mark.parametrize("spans", SPANS.values(), ids=SPANS.keys())
def test_what_is_written_is_sound_for_qemu_and_shows_the_disk(
    tmp_path: Path, spans: list[tuple[int, int]]
) -> None:
    file, raw = tmp_path / "disk.qcow2", tmp_path / "raw"
    luck = random.Random(3)
    content = [
        Data(offset, (luck.randbytes(4096) * (length // 4096)).ljust(length, b"x"))
        for offset, length in spans
    ]
    layout = Qcow2File(DISK_BYTES, spans)
    with file.open("wb") as opened:
        opened.writelines(layout.chunks(content))
    assert file.stat().st_size == layout.size_bytes
    with raw.open("wb") as opened:
        opened.truncate(DISK_BYTES)
        for offset, data in content:
            opened.seek(offset)
            opened.write(data)
    qemu_img("check", "-f", "qcow2", file)
    qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, file)
    shown([file], tmp_path / "again")


def test_a_file_of_many_refcount_tables_is_laid_out_soundly() -> None:
    """16 TiB full: tables of tables.  Nothing but the places is made."""
    spans = [(at, PIECE_BYTES) for at in range(0, 2**44, 2**26)]
    layout = Qcow2File(2**44, spans)
    assert layout.size_bytes > sum(length for _, length in spans)
    assert layout.size_bytes % CLUSTER == 0


@pytest.mark.parametrize(
    "spans", [[(CLUSTER, CLUSTER), (0, CLUSTER)], [(0, 2 * CLUSTER), (CLUSTER, CLUSTER)]]
)
def test_spans_that_fall_or_overlap_are_refused(spans: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="overlap"):
        Qcow2File(2**30, spans)


def test_other_content_than_was_announced_is_refused() -> None:
    layout = Qcow2File(2**30, [(0, PIECE_BYTES)])
    with pytest.raises(ValueError, match="announced"):
        list(layout.chunks([Data(0, b"x")]))
