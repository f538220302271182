"""Cuts the changes of a disk, whose boundaries are arbitrary, into pieces."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from backups.manifests import length_of
from backups.pieces import PIECE_BYTES
from backups.reading import Data


class Zeros(NamedTuple):
    """So many zero bytes of a disk, at an offset."""

    offset: int
    length: int


Extent = Data | Zeros


@dataclass
class Draft:
    """What is known of one piece: bytes, and numbers of zero bytes, each at its place in the piece."""

    index: int
    length: int
    parts: list[tuple[int, memoryview | int]] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether the parts are all of the piece."""
        return sum(_length(part) for _, part in self.parts) == self.length

    @property
    def is_zero(self) -> bool:
        """Whether the parts are all of the piece, and hold no bytes."""
        return self.is_whole and all(isinstance(part, int) for _, part in self.parts)

    def over(self, base: bytes) -> bytes:
        """The piece: the parts, and outside of them ``base``, cut off or filled with zeros to its length."""
        if self.is_whole and len(self.parts) == 1 and isinstance(self.parts[0][1], memoryview):
            return bytes(self.parts[0][1])
        piece = bytearray(base[: self.length])
        piece.extend(bytes(self.length - len(piece)))
        for start, part in self.parts:
            piece[start : start + _length(part)] = bytes(part) if isinstance(part, int) else part
        return bytes(piece)


def drafts(changes: Iterable[Extent], disk_bytes: int) -> Iterator[Draft]:
    """The pieces that the changes touch, by rising index.

    Raises ValueError if the changes overlap, are not sorted by offset or leave the disk.
    """
    draft = None
    for extent in _checked(changes, disk_bytes):
        for index, start, part in _cut(extent):
            if draft and draft.index != index:
                yield draft
                draft = None
            draft = draft or Draft(index, length_of(disk_bytes, index))
            draft.parts.append((start, part))
    if draft:
        yield draft


def _checked(changes: Iterable[Extent], disk_bytes: int) -> Iterator[Extent]:
    end = 0
    for extent in changes:
        length = extent.length if isinstance(extent, Zeros) else len(extent.data)
        if length < 0 or extent.offset < end or extent.offset + length > disk_bytes:
            raise ValueError(
                f"{length} bytes at {extent.offset} are not after {end}, or leave the disk of {disk_bytes}"
            )
        end = extent.offset + length
        yield extent


def _cut(extent: Extent) -> Iterator[tuple[int, int, memoryview | int]]:
    """Index of the piece, offset in it, and the bytes or the number of zeros."""
    data = extent.length if isinstance(extent, Zeros) else memoryview(extent.data)
    done = 0
    while done < _length(data):
        index, start = divmod(extent.offset + done, PIECE_BYTES)
        length = min(_length(data) - done, PIECE_BYTES - start)
        yield index, start, length if isinstance(data, int) else data[done : done + length]
        done += length


def _length(part: memoryview | int) -> int:
    return part if isinstance(part, int) else len(part)
