"""Changes with any boundaries are cut into pieces; what is not sorted or not on the disk is refused."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backups.drafts import Extent, Zeros, drafts
from backups.manifests import length_of, pieces_of
from backups.pieces import PIECE_BYTES
from backups.reading import Data

DISK = 2 * PIECE_BYTES + 12_345


def applied(changes: list[Extent], disk: bytes) -> bytes:
    """The slow way."""
    whole = bytearray(disk)
    for extent in changes:
        data = extent.data if isinstance(extent, Data) else bytes(extent.length)
        whole[extent.offset : extent.offset + len(data)] = data
    return bytes(whole)


@st.composite
def sorted_changes(draw: st.DrawFn) -> list[Extent]:
    near = st.sampled_from([0, PIECE_BYTES, 2 * PIECE_BYTES, DISK])
    places = st.one_of(st.integers(0, DISK), st.builds(lambda a, b: a + b, near, st.integers(-3, 3)))
    ends = sorted({0, DISK, *(place for place in draw(st.lists(places, max_size=12)) if 0 <= place <= DISK)})
    changes: list[Extent] = []
    for start, end in pairwise(ends):
        kind = draw(st.sampled_from(["left out", "zeros", "data"]))
        if kind == "zeros":
            changes.append(Zeros(start, end - start))
        elif kind == "data":
            changes.append(Data(start, bytes([1 + start % 255]) * (end - start)))
    return changes


@settings(max_examples=60, deadline=None)
@given(sorted_changes())
def test_the_pieces_are_what_the_changes_make_of_the_disk(changes: list[Extent]) -> None:
    base = bytes(range(256)) * (DISK // 256) + bytes(DISK % 256)
    disk = applied(changes, base)
    found = list(drafts(changes, DISK))

    assert [draft.index for draft in found] == sorted({draft.index for draft in found})
    rebuilt = bytearray(base)
    for draft in found:
        place = slice(draft.index * PIECE_BYTES, draft.index * PIECE_BYTES + draft.length)
        piece = draft.over(b"" if draft.is_whole else base[place])
        assert len(piece) == draft.length
        assert not draft.is_zero or not any(piece)
        rebuilt[place] = piece
    assert bytes(rebuilt) == disk


@pytest.mark.parametrize("base", [b"", b"abc", b"x" * 100])
def test_a_base_of_another_length_is_cut_off_or_filled_with_zeros(base: bytes) -> None:
    [draft] = drafts([Data(5, b"new")], 10)

    assert draft.over(base) == base[:5].ljust(5, b"\0") + b"new" + base[8:10].ljust(2, b"\0")


@pytest.mark.parametrize(
    "changes",
    [
        [Data(0, b"ab"), Data(1, b"c")],
        [Data(5, b"ab"), Data(0, b"c")],
        [Zeros(0, 10), Data(9, b"c")],
        [Data(99, b"ab")],
        [Zeros(0, 101)],
        [Zeros(0, -1)],
        [Data(-1, b"ab")],
    ],
)
def test_what_overlaps_or_leaves_the_disk_is_refused(changes: list[Extent]) -> None:
    """Guard: ``_checked``.  A driver with a fault must not become a backup with a fault."""
    with pytest.raises(ValueError, match="bytes at"):
        list(drafts(changes, 100))


def test_the_last_piece_is_as_long_as_the_disk_has_bytes() -> None:
    assert [length_of(DISK, index) for index in range(4)] == [PIECE_BYTES, PIECE_BYTES, 12_345, 0]
    assert [pieces_of(size) for size in (0, 1, PIECE_BYTES, PIECE_BYTES + 1)] == [0, 1, 1, 2]
