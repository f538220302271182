"""Lays a disk out as a qcow2 file that needs no other file, to be written from its first byte to its last.

docs/interop/qcow2.txt in QEMU's source.  What is in the disk must be known by place beforehand: then every
table can be made when its turn comes, and no more than one of them is in memory.
"""

import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from backups.reading import Data

from .qcow2 import MAGIC

CLUSTER = 64 * 1024
_BITS = 16
_PER_L2 = CLUSTER // 8  # clusters of the disk in one table
_PER_REFCOUNTS = CLUSTER // 2  # clusters of the file in one table
_USED_ONCE = 1 << 63
_VERSION, _NO_ENCRYPTION, _REFCOUNT_ORDER, _HEADER_BYTES = 3, 0, 4, 104
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")


class Qcow2File:
    """The file for a disk of this size with content only at these spans, (offset, length), by rising offset.

    ``offset``s are multiples of CLUSTER.
    """

    def __init__(self, disk_bytes: int, spans: Sequence[tuple[int, int]]) -> None:
        self._disk_bytes = disk_bytes
        # The first cluster of each span, and how many.
        self._firsts = [offset // CLUSTER for offset, _ in spans]
        self._counts = [_clusters(length) for _, length in spans]
        if any(first + count > after for first, count, after in self._followed()):
            raise ValueError("spans overlap or fall")
        if spans and sum(spans[-1]) > disk_bytes:
            raise ValueError("a span leaves the disk")
        clusters = _clusters(disk_bytes)
        self._l1_size = -(-clusters // _PER_L2)
        tables = self._tables()
        self._l1_clusters = _clusters(8 * self._l1_size)
        data = sum(self._counts)
        rest = 1 + self._l1_clusters + len(tables) + data
        self._refcounts = self._refcount_table = 1
        while self._refcounts * _PER_REFCOUNTS < rest + self._refcounts + self._refcount_table:
            self._refcounts += 1
            self._refcount_table = _clusters(8 * self._refcounts)
        self._clusters = rest + self._refcounts + self._refcount_table
        self._l1_at = 1 + self._refcount_table + self._refcounts
        self._l2_at = self._l1_at + self._l1_clusters
        self._data_at = self._l2_at + len(tables)
        self._l2 = tables
        self.size_bytes = self._clusters * CLUSTER

    def chunks(self, content: Iterable[Data]) -> Iterator[bytes]:
        """The bytes of the file, in order.  ``content`` has the spans' bytes, by rising offset."""
        yield _padded(self._header())
        yield _padded(_entries((1 + self._refcount_table + i) * CLUSTER for i in range(self._refcounts)))
        for block in range(self._refcounts):
            used = min(_PER_REFCOUNTS, self._clusters - block * _PER_REFCOUNTS)
            yield _padded(b"\0\1" * used)
        yield _padded(self._l1())
        before = 0
        for table in self._l2:
            entries, count = self._l2_table(table, before)
            before += count
            yield entries
        written = 0
        for _, data in content:
            yield _padded(data)
            written += _clusters(len(data))
        if written != sum(self._counts):
            raise ValueError("the content is not what was announced")

    def _followed(self) -> Iterator[tuple[int, int, int]]:
        for (first, count), (after, _) in pairwise(zip(self._firsts, self._counts, strict=True)):
            yield first, count, after

    def _tables(self) -> list[int]:
        """The numbers of the second-level tables that have content."""
        tables: dict[int, None] = {}
        for first, count in zip(self._firsts, self._counts, strict=True):
            tables |= dict.fromkeys(range(first // _PER_L2, (first + count - 1) // _PER_L2 + 1))
        return list(tables)

    def _header(self) -> bytes:
        return _HEADER.pack(
            *(MAGIC, _VERSION, 0, 0, _BITS, self._disk_bytes, _NO_ENCRYPTION, self._l1_size),
            *(self._l1_at * CLUSTER, CLUSTER, self._refcount_table, 0, 0, 0, 0, 0),
            *(_REFCOUNT_ORDER, _HEADER_BYTES),
        )

    def _l1(self) -> bytes:
        places = {table: (self._l2_at + i) * CLUSTER | _USED_ONCE for i, table in enumerate(self._l2)}
        return _entries(places.get(table, 0) for table in range(self._l1_size))

    def _l2_table(self, table: int, before: int) -> tuple[bytes, int]:
        """One second-level table, and how many clusters it has; so many came before it."""
        start, end = table * _PER_L2, (table + 1) * _PER_L2
        entries = [0] * _PER_L2
        count = 0
        at = max(0, bisect_left(self._firsts, start) - 1)  # the span before may reach into it
        while at < len(self._firsts) and self._firsts[at] < end:
            first, last = max(self._firsts[at], start), min(self._firsts[at] + self._counts[at], end)
            for cluster in range(first, last):
                entries[cluster - start] = (self._data_at + before + count) * CLUSTER | _USED_ONCE
                count += 1
            at += 1
        return _entries(entries), count


def _clusters(length: int) -> int:
    return -(-length // CLUSTER)


def _padded(data: bytes | memoryview) -> bytes:
    return bytes(data).ljust(_clusters(len(data)) * CLUSTER, b"\0")


def _entries(numbers: Iterable[int]) -> bytes:
    listed = list(numbers)
    return struct.pack(f">{len(listed)}Q", *listed)
