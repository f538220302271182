"""Reads the disk that a qcow2 file shows, from any place in it: the file may be on a far host.

For what QEMU and vendors of images write: docs/interop/qcow2.txt in QEMU's source.  A guest or a vendor had a
hand in the file: whatever its tables say, only the file itself is read, a few MiB at once.
"""

import struct
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

import zstandard

from backups.drafts import Extent, Zeros
from backups.reading import Data

from .base import HypervisorError
from .qcow2 import MAGIC

# magic, version, backing file (2), cluster_bits, size, crypt_method, l1_size, l1_table_offset, and from
# version 3 on incompatible_features at byte 72 and compression_type at byte 104.
_HEADER = struct.Struct(">4sIQIIQIIQ24xQ24xB")
_COMPRESSION = 1 << 3
_CAN_BE_READ = 1 << 0 | 1 << 1 | _COMPRESSION  # dirty, corrupt, compression type
_OFFSET = 0x00FF_FFFF_FFFF_FE00
_IS_COMPRESSED = 1 << 62
_IS_ZERO = 1
_LARGEST = 2**46
_MOST_L1 = 4 * 2**20  # QEMU's own limit
_WINDOW = 4 * 2**20  # so much of the disk is read at once
_GAP = 256 * 1024  # rather read so much in vain than ask once more

# Bytes of the file: (offset, length) -> so many, or fewer at its end.
Read = Callable[[int, int], bytes | bytearray]


class _Span(NamedTuple):
    """Where in the file one compressed cluster is, or several others that follow each other."""

    offset: int
    length: int
    is_compressed: bool = False


# A cluster that is all zeros, whatever a file below it says.
_ALL_ZERO = "zeros"
_Place = _Span | str
# Offset and length in the disk, and place.
_Known = tuple[int, int, _Place]


class _File:
    """One qcow2 file, by its tables."""

    def __init__(self, read: Read) -> None:
        start = read(0, _HEADER.size).ljust(_HEADER.size, b"\0")
        magic, version, _, _, bits, size, encryption, l1_size, l1_offset, features, packing = _HEADER.unpack(
            start
        )
        features = features if version >= 3 else 0
        if magic != MAGIC or encryption or features & ~_CAN_BE_READ:
            raise HypervisorError(
                "A disk cannot be read: it is no qcow2 file, or of a kind that is not known."
            )
        if not 9 <= bits <= 21 or not 0 < size <= _LARGEST or l1_size > _MOST_L1:
            raise HypervisorError("A disk cannot be read: its header says what cannot be.")
        self._read = read
        self.cluster_bytes = 1 << bits
        self.size_bytes: int = size
        self._is_zstd = bool(features & _COMPRESSION) and packing == 1
        self._compressed_bits = 62 - (bits - 8)
        table = read(l1_offset, 8 * l1_size) if l1_size else b""
        self._l1 = struct.unpack(f">{len(table) // 8}Q", table)
        self._last: tuple[int, tuple[int, ...]] = (0, ())

    def places(self, start: int, length: int) -> Iterator[_Known]:
        """What the file has of this part of the disk, whole clusters, by rising offset."""
        last: _Known | None = None
        end = min(start + length, self.size_bytes)
        for offset in range(start - start % self.cluster_bytes, end, self.cluster_bytes):
            if (place := self._place(offset)) is None:
                continue
            this = offset, self.cluster_bytes, place
            longer = last and _together(last, this)
            if last and not longer:
                yield last
            last = longer or this
        if last:
            yield last

    def fetch(self, spans: Collection[_Span]) -> Iterator[tuple[_Span, memoryview]]:
        """The bytes of spans, with few questions where they lie close together."""
        for start, end, together in _runs(sorted(spans)):
            data = memoryview(self._read(start, end - start))
            for span in together:
                part = data[span.offset - start : span.offset - start + span.length]
                most = self.cluster_bytes if span.is_compressed else span.length
                plain = memoryview(self._unpacked(part)) if span.is_compressed else part
                if len(plain) < most:  # the file ends here
                    plain = memoryview(bytes(plain).ljust(most, b"\0"))
                yield span, plain[:most]

    def _place(self, offset: int) -> _Place | None:
        table, index = divmod(offset // self.cluster_bytes, self.cluster_bytes // 8)
        at = self._l1[table] & _OFFSET if table < len(self._l1) else 0
        if not at:
            return None
        entry = self._l2(at)[index]
        if entry & _IS_COMPRESSED:
            return self._compressed(entry & (_IS_COMPRESSED - 1))
        if entry & _IS_ZERO:
            return _ALL_ZERO
        return _Span(entry & _OFFSET, self.cluster_bytes) if entry & _OFFSET else None

    def _compressed(self, descriptor: int) -> _Span:
        offset = descriptor & ((1 << self._compressed_bits) - 1)
        sectors = descriptor >> self._compressed_bits
        return _Span(offset, (sectors + 1) * 512 - offset % 512, is_compressed=True)

    def _l2(self, offset: int) -> tuple[int, ...]:
        if self._last[0] != offset:
            table = self._read(offset, self.cluster_bytes)
            if len(table) < self.cluster_bytes:
                raise HypervisorError("A disk cannot be read: its tables lead out of its file.")
            self._last = offset, struct.unpack(f">{self.cluster_bytes // 8}Q", table)
        return self._last[1]

    def _unpacked(self, packed: memoryview) -> bytes:
        try:
            if self._is_zstd:
                return zstandard.ZstdDecompressor().decompressobj().decompress(packed)
            return zlib.decompressobj(-15).decompress(packed, self.cluster_bytes)
        except (zlib.error, zstandard.ZstdError) as error:
            raise HypervisorError(f"A disk cannot be read: {error}") from None


def size_of(read: Read) -> int:
    """The size of the disk in bytes.  Raises HypervisorError for what is no qcow2 file."""
    return _File(read).size_bytes


def extents(chain: Sequence[Read]) -> Iterator[Extent]:
    """What the first file says of its disk, and where it says nothing the next one, by rising offset.

    Where no file says anything, nothing is given.  Raises HypervisorError for what cannot be read.
    """
    files = [_File(read) for read in chain]
    size = files[0].size_bytes
    for start in range(0, size, _WINDOW):
        yield from _known(files, start, min(_WINDOW, size - start))


def _known(files: Sequence[_File], start: int, length: int) -> list[Extent]:
    """What is known of a part of the disk, by rising offset."""
    unit = min(file.cluster_bytes for file in files)
    unknown = set(range(start, start + length, unit))
    found: list[Extent] = []
    for file in files:
        wanted: dict[_Span, list[tuple[int, list[tuple[int, int]]]]] = {}  # several may be at one place
        for offset, covered, place in file.places(start, length):
            mine = unknown.intersection(range(offset, offset + covered, unit))
            unknown -= mine
            stretches = _stretches(sorted(mine), unit, start + length)
            if not isinstance(place, _Span):
                found += [Zeros(*stretch) for stretch in stretches]
            elif stretches:
                wanted.setdefault(place, []).append((offset, stretches))
        for span, data in file.fetch(wanted):
            for first, stretches in wanted[span]:
                found += [Data(at, data[at - first : at - first + size]) for at, size in stretches]
    return sorted(found, key=itemgetter(0))


def _together(last: _Known, next_one: _Known) -> _Known | None:
    """Both as one, if they follow each other in the disk and in the file, or are both zeros."""
    first, length, place = last
    offset, more, next_place = next_one
    if first + length != offset:
        return None
    if place == next_place == _ALL_ZERO:
        return first, length + more, place
    if not isinstance(place, _Span) or not isinstance(next_place, _Span):
        return None
    if place.is_compressed or next_place.is_compressed or place.offset + length != next_place.offset:
        return None
    return first, length + more, _Span(place.offset, length + more)


def _stretches(offsets: Sequence[int], unit: int, end: int) -> list[tuple[int, int]]:
    """Offset and length of those that follow each other, cut off at the end."""
    found: list[tuple[int, int]] = []
    for offset in offsets:
        if found and sum(found[-1]) == offset:
            found[-1] = found[-1][0], found[-1][1] + unit
        else:
            found.append((offset, unit))
    return [(offset, min(length, end - offset)) for offset, length in found]


def _runs(spans: Sequence[_Span]) -> Iterator[tuple[int, int, list[_Span]]]:
    """Start and end in the file of spans that lie close together, and these spans."""
    together: list[_Span] = []
    end = 0
    for span in spans:
        if together and (
            span.offset > end + _GAP or span.offset + span.length - together[0].offset > _WINDOW
        ):
            yield together[0].offset, end, together
            together, end = [], 0
        together.append(span)
        end = max(end, span.offset + span.length)
    if together:
        yield together[0].offset, end, together
