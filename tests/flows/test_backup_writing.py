"""A disk is written to the store and comes back; what is bad is found, named, and hurts nothing else."""

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from backups import manifests
from backups.drafts import Extent, Zeros
from backups.errors import (
    BackupError,
    HoldLost,
    ManifestBad,
    ManifestMissing,
    PieceBad,
    PieceMissing,
    StoreFull,
    StoreUnreachable,
)
from backups.pieces import PIECE_BYTES, compress, name_of, pack
from backups.reading import Data, check, read
from backups.sealing import Subkeys, new_key, subkeys_of
from backups.store import Store
from backups.vaults import DIGITS, Vault
from deploy.local.folder import PROJECT
from tests.flows.test_backup_store import small_folder as small_folder
from tests.s3 import S3, Fault, hanging_up, proxying, refusing
from tests.vaults import (
    contents,
    manifest_path,
    names_of,
    new_vault,
    piece_path,
    random_disk,
    stored_bytes,
    whole,
    written,
)

MIB = 1024 * 1024


def test_a_disk_comes_back_as_it_was(store: Store) -> None:
    vault = new_vault(store)
    disk = random_disk(1) + bytes(PIECE_BYTES) + random_disk(1) + random_disk(0.3, "end")
    full = written(vault, whole(disk), len(disk))

    found = manifests.get(vault, full.manifest.backup)
    assert found == full.manifest
    assert contents(vault, found) == disk
    assert check(vault, found) == []
    # Two equal pieces are stored once, zeros never.
    assert [offset for offset, _ in read(vault, found)] == [0, 2 * PIECE_BYTES, 3 * PIECE_BYTES]
    assert (full.new_pieces, len(set(names_of(found)))) == (2, 2)
    assert found.data_bytes == len(disk) - PIECE_BYTES
    assert sum(piece.size_bytes for digit in DIGITS for piece in vault.list_pieces(digit)) == full.new_bytes


def test_an_incremental_stores_what_is_new_and_needs_no_parent_to_be_read(store: Store) -> None:
    vault = new_vault(store)
    disk = random_disk(6)
    full = written(vault, whole(disk), len(disk)).manifest
    new = random_disk(0.1, "new")
    place = 2 * PIECE_BYTES - 1000
    second = written(vault, [Data(place, new), Zeros(5 * PIECE_BYTES, PIECE_BYTES)], len(disk), parent=full)
    manifests.remove(vault, full.backup)

    expected = disk[:place] + new + disk[place + len(new) : 5 * PIECE_BYTES] + bytes(PIECE_BYTES)
    assert contents(vault, second.manifest) == expected
    assert second.new_pieces == 2
    with pytest.raises(ManifestMissing):
        manifests.get(vault, full.backup)


def test_an_unchanged_disk_stores_nothing(store: Store) -> None:
    vault = new_vault(store)
    disk = random_disk(2.5)
    full = written(vault, whole(disk), len(disk)).manifest

    assert written(vault, [], len(disk), parent=full)[1:] == (0, 0)
    assert written(vault, whole(disk, 777_777), len(disk))[1:] == (0, 0)


@pytest.mark.parametrize(("before", "after"), [(1.5, 3.2), (3.2, 1.5), (2, 3), (3, 2), (1.2, 1.7), (1, 0)])
def test_a_disk_that_grew_or_shrank_without_a_change(store: Store, before: float, after: float) -> None:
    """Guard: ``_piece_of_another_length``."""
    vault = new_vault(store)
    disk = random_disk(before)
    full = written(vault, whole(disk), len(disk)).manifest
    size = int(after * PIECE_BYTES)
    second = written(vault, [], size, parent=full).manifest

    assert contents(vault, second) == disk[:size].ljust(size, b"\0")


# Random writes over several incrementals equal a plain bytearray.

SIZES = st.integers(0, 2 * PIECE_BYTES + 100_000)


@st.composite
def edits(draw: st.DrawFn, size: int) -> list[Extent]:
    spots = draw(
        st.lists(
            st.tuples(
                st.sampled_from([0, PIECE_BYTES, 2 * PIECE_BYTES]), st.integers(-5, 5), st.integers(0, 70_000)
            ),
            max_size=6,
        )
    )
    extents: list[Extent] = []
    end = 0
    for start, length in sorted((max(0, edge + shift), length) for edge, shift, length in spots):
        start, length = max(start, end), max(0, min(length, size - max(start, end)))
        if start > size:
            break
        data = draw(st.booleans())
        content = random.Random(f"{start} {length} {draw(st.integers(0, 3))}").randbytes(length)
        extents.append(Data(start, content) if data else Zeros(start, length))
        end = start + length
    return extents


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_random_writes_over_incrementals_equal_a_bytearray(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        vault = new_vault(Store(folder))
        disk, parent = bytearray(), None
        taken = []
        for _ in range(data.draw(st.integers(2, 4))):
            size = data.draw(SIZES)
            disk = disk[:size] + bytes(size - len(disk[:size]))
            changes = data.draw(edits(size))
            for extent in changes:
                content = extent.data if isinstance(extent, Data) else bytes(extent.length)
                disk[extent.offset : extent.offset + len(content)] = content
            parent = written(vault, changes, size, parent=parent).manifest
            taken.append((parent, bytes(disk)))
        for manifest, expected in taken:
            assert contents(vault, manifests.get(vault, manifest.backup)) == expected


# What is bad is found and named.


def spoil(store: Store, path: str, how: str) -> None:
    content = bytearray(store.get(path))
    if how == "missing":
        store.remove([path])
        return
    if how == "a byte changed":
        content[len(content) // 2] ^= 1
    if how == "cut off":
        del content[-1:]
    if how == "empty":
        content.clear()
    store.put(path, bytes(content))


DAMAGES = ["a byte changed", "cut off", "empty", "missing"]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_bad_piece_is_named_and_other_backups_come_back(store: Store, how: str) -> None:
    vault = new_vault(store)
    first, second = random_disk(4, "first"), random_disk(4, "second")
    second = second[:PIECE_BYTES] + first[PIECE_BYTES : 2 * PIECE_BYTES] + second[2 * PIECE_BYTES :]
    one, two = (written(vault, whole(disk), len(disk)).manifest for disk in (first, second))
    name = names_of(one)[2]
    spoil(store, piece_path(vault, name), how)

    [bad] = check(vault, one)
    assert (bad.name, bad.offset) == (name, 2 * PIECE_BYTES)
    assert isinstance(bad, PieceMissing) == (how == "missing")
    assert name.hex() in str(bad)
    with pytest.raises(PieceBad, match=f"{name.hex()} at offset {2 * PIECE_BYTES} "):
        contents(vault, one)
    assert check(vault, two) == []
    assert contents(vault, two) == second


@pytest.mark.parametrize("how", DAMAGES)
def test_a_bad_piece_heals_when_a_disk_with_it_is_written(store: Store, how: str) -> None:
    """Guard: ``has_sound_piece``.  A name that is there says nothing about what it holds."""
    vault = new_vault(store)
    disk = random_disk(3)
    first = written(vault, whole(disk), len(disk)).manifest
    spoil(store, piece_path(vault, names_of(first)[1]), how)
    second = written(vault, whole(disk), len(disk))

    assert second.new_pieces == 1
    assert check(vault, second.manifest) == check(vault, first) == []


@pytest.mark.parametrize("how", DAMAGES)
def test_a_bad_piece_of_the_parent_is_named_when_it_is_needed(store: Store, how: str) -> None:
    vault = new_vault(store)
    disk = random_disk(3)
    full = written(vault, whole(disk), len(disk)).manifest
    spoil(store, piece_path(vault, names_of(full)[1]), how)
    backup = uuid4()

    with pytest.raises(PieceBad, match=f"at offset {PIECE_BYTES} "):
        written(vault, [Data(PIECE_BYTES + 5, b"new")], len(disk), parent=full, backup=backup)
    with pytest.raises(ManifestMissing):
        manifests.get(vault, backup)
    # A full backup does not need it.
    assert contents(vault, written(vault, whole(disk), len(disk)).manifest) == disk


def test_an_incremental_whose_parent_lost_a_piece_is_no_backup(store: Store) -> None:
    """Guard: ``_require_inherited``.  Nobody reads unchanged pieces: the loss would go from day to day."""
    vault = new_vault(store)
    disk = random_disk(5)
    full = written(vault, whole(disk), len(disk)).manifest
    store.remove([piece_path(vault, names_of(full)[3])])
    backup = uuid4()

    with pytest.raises(PieceMissing, match=f"at offset {3 * PIECE_BYTES} "):
        written(vault, [Data(0, b"new")], len(disk), parent=full, backup=backup)
    with pytest.raises(ManifestMissing):
        manifests.get(vault, backup)


class Forgetful(Store):
    """A store that says yes and keeps something else."""

    def put(self, path: str, data: bytes | bytearray) -> None:
        super().put(path, data[:-1] if self.where in path else data)

    where = "pieces"


@pytest.mark.parametrize(("where", "error"), [("pieces", PieceBad), ("manifests", ManifestBad)])
def test_what_a_store_did_not_keep_is_found_at_once(
    tmp_path: Path, where: str, error: type[BackupError]
) -> None:
    """Guards: ``_read_back`` in ``_store``, ``get`` in ``manifests.put``."""
    store = Forgetful(str(tmp_path))
    store.where = where
    vault = new_vault(store)
    backup = uuid4()

    with pytest.raises(error):
        written(vault, [Data(0, b"x")], 10, backup=backup)
    assert list(store.list("accounts/" + str(vault.account) + "/manifests")) == []


class Crowded(Store):
    """A store into which another backup puts each piece at the same moment, and ends last."""

    def put(self, path: str, data: bytes | bytearray) -> None:
        super().put(path, data)
        if "pieces" in path:
            super().put(path, pack(self.keys, self.name, compress(self.plain)))

    keys: Subkeys
    name: bytes
    plain = b"of both backups"


def test_a_piece_that_another_backup_puts_at_the_same_moment_is_as_good(tmp_path: Path) -> None:
    """Encryption is never twice the same.  Guard: ``piece_at`` in ``_read_back``."""
    store = Crowded(str(tmp_path))
    vault = new_vault(store)
    store.keys = vault.keys
    store.name = name_of(vault.keys, store.plain) or b""

    manifest = written(vault, [Data(0, store.plain)], len(store.plain)).manifest

    assert contents(vault, manifest) == store.plain


# Manifests.


@pytest.mark.parametrize("how", ["a byte changed", "cut off", "empty"])
def test_a_changed_manifest_is_found(store: Store, how: str) -> None:
    vault = new_vault(store)
    manifest = written(vault, [Data(0, b"x")], 10).manifest
    spoil(store, manifest_path(vault, manifest.backup), how)

    with pytest.raises(ManifestBad, match=str(manifest.backup)):
        manifests.get(vault, manifest.backup)


def test_a_manifest_moved_to_another_backup_or_account_is_found(store: Store) -> None:
    """Guards: the label of a manifest, and the key of its account."""
    alice, bob = new_vault(store), new_vault(store)
    manifest = written(alice, [Data(0, b"alice's")], 10).manifest
    sealed = bytes(store.get(manifest_path(alice, manifest.backup)))
    other = uuid4()
    store.put(manifest_path(alice, other), sealed)
    store.put(manifest_path(bob, manifest.backup), sealed)

    with pytest.raises(ManifestBad, match="does not decrypt"):
        manifests.get(alice, other)
    with pytest.raises(ManifestBad, match="does not decrypt"):
        manifests.get(bob, manifest.backup)
    # Even with her keys it is not his.
    with pytest.raises(ManifestBad, match="does not decrypt"):
        manifests.get(Vault(store, bob.account, alice.keys), manifest.backup)


def test_accounts_share_no_piece(store: Store) -> None:
    alice, bob = new_vault(store), new_vault(store)
    disk = random_disk(1)
    hers, his = (written(vault, whole(disk), len(disk)) for vault in (alice, bob))

    assert (hers.new_pieces, his.new_pieces) == (1, 1)
    assert not set(names_of(hers.manifest)) & set(names_of(his.manifest))
    [name] = names_of(hers.manifest)
    store.put(piece_path(bob, name), bytes(store.get(piece_path(alice, name))))
    with pytest.raises(BackupError, match="does not decrypt"):
        bob.get_piece(name)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"version": 2}, "has version 2"),
        ({"version": None}, "is no manifest"),
        ({"backup": str(uuid4())}, "is that of backup"),
        ({"account": str(uuid4())}, "is that of backup"),
        ({"piece_bytes": 512}, "has pieces of 512 bytes"),
        ({"disk_bytes": 3 * PIECE_BYTES}, "bytes of names"),
        ({"disk_bytes": -1, "names": b""}, "bytes of names"),
        ({"names": b"short"}, "bytes of names"),
        ({"names": "text"}, "is no manifest"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(
    tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    """Guards: ``_decoded`` and ``_require_sound``, for another version of ours or one with a fault."""
    vault = new_vault(Store(str(tmp_path)))
    manifest = written(vault, [Data(0, b"x")], 10).manifest
    said = msgspec.to_builtins(manifest, builtin_types=[bytes]) | changes
    vault.put_manifest(manifest.backup, zstandard.compress(msgspec.msgpack.encode(said)))

    with pytest.raises(ManifestBad, match=told):
        manifests.get(vault, manifest.backup)


@pytest.mark.parametrize("data", [b"", b"no zstandard", zstandard.compress(b"no msgpack")])
def test_a_manifest_of_nonsense_is_refused(tmp_path: Path, data: bytes) -> None:
    vault = new_vault(Store(str(tmp_path)))
    backup = uuid4()
    vault.put_manifest(backup, data)

    with pytest.raises(ManifestBad, match="is no manifest"):
        manifests.get(vault, backup)


def test_another_key_reads_nothing_and_says_so(store: Store) -> None:
    vault = new_vault(store)
    manifest = written(vault, [Data(0, b"x")], 10).manifest
    stranger = Vault(store, vault.account, subkeys_of(new_key()))

    with pytest.raises(ManifestBad, match="does not decrypt"):
        manifests.get(stranger, manifest.backup)
    [bad] = check(stranger, manifest)
    assert bad.offset == 0


# A store that fails in the middle.


def test_a_store_that_fills_up_fails_the_backup_and_keeps_the_older_ones(small_folder: Path) -> None:
    store = Store(str(small_folder))
    vault = new_vault(store)
    disk = random_disk(1)
    older = written(vault, whole(disk), len(disk)).manifest
    backup = uuid4()
    larger = random_disk(6, "larger")

    with pytest.raises(StoreFull):
        written(vault, whole(larger), len(larger), backup=backup)
    with pytest.raises(ManifestMissing):
        manifests.get(vault, backup)
    assert contents(vault, older) == disk


@pytest.mark.parametrize("fault", [refusing(500, "InternalError"), refusing(403, "AccessDenied"), hanging_up])
@pytest.mark.parametrize("requests", [1, 5, 9, 12])
def test_a_store_that_fails_in_the_middle_fails_the_backup_and_the_next_try_goes_on(
    s3: S3, fault: Fault, requests: int
) -> None:
    """From the Nth request on: between pieces, and at the manifest's put and get."""
    with proxying(s3) as proxy:
        vault = new_vault(proxy.new_store())
        disk, backup = random_disk(3.5), uuid4()
        left = [requests]

        def fail_then(request: BaseHTTPRequestHandler) -> bool:
            left[0] -= 1
            return left[0] < 0 and fault(request)

        proxy.fault = fail_then
        with pytest.raises(StoreUnreachable):
            written(vault, whole(disk), len(disk), backup=backup)
        proxy.fault = lambda request: False

        again = written(vault, whole(disk), len(disk), backup=backup)
        assert contents(vault, again.manifest) == disk
        assert again.new_pieces < 4 or requests < 9
        assert [str(each) for each in vault.list_manifests()] == [str(backup)]


def test_changes_that_break_off_are_no_backup(store: Store) -> None:
    vault = new_vault(store)
    backup = uuid4()

    def broken() -> Iterator[Extent]:
        yield Data(0, random_disk(2))
        raise ConnectionResetError("the host is gone")

    with pytest.raises(ConnectionResetError):
        written(vault, broken(), 3 * PIECE_BYTES, backup=backup)
    with pytest.raises(ManifestMissing):
        manifests.get(vault, backup)


def test_a_backup_whose_hold_was_lost_has_no_manifest(store: Store) -> None:
    """Guard: ``_take_back``.  Its pieces may have been collected meanwhile."""
    vault = new_vault(store)
    backup = uuid4()

    def lost() -> None:
        raise HoldLost("lost")

    with pytest.raises(HoldLost):
        written(vault, [Data(0, b"x")], 10, backup=backup, require_hold=lost)
    assert list(vault.list_manifests()) == []


# What it costs.

MEMORY = """
import os, resource, sys
from backups.reading import Data, check, read
from backups.store import Store
from tests.vaults import new_vault, written

MIB = 1024 * 1024
vault = new_vault(Store(sys.argv[1]))
size = int(sys.argv[2]) * MIB
written(vault, [Data(0, os.urandom(4 * MIB))], 4 * MIB)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
changes = (Data(offset, os.urandom(2 * MIB)) for offset in range(0, size, 2 * MIB))
manifest = written(vault, changes, size).manifest
for _ in read(vault, manifest):
    pass
assert check(vault, manifest) == []
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_does_not_grow_with_the_disk(tmp_path: Path) -> None:
    """Guard: AT_ONCE.  The disk is five times as large as what may be taken.

    MALLOC_ARENA_MAX as in the Dockerfile: glibc keeps freed memory in up to eight arenas for each core.
    """
    ended = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "store"), "512"],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": str(PROJECT), "MALLOC_ARENA_MAX": "2"},
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < 100, f"{ended.stdout.strip()} MiB"


def compressible(size: int, luck: random.Random) -> bytes:
    block = luck.randbytes(128 * 1024)
    return (block * (size // len(block) + 1))[:size]


def test_ten_backups_with_one_percent_changed_take_at_most_a_fifth_more_than_one(tmp_path: Path) -> None:
    luck = random.Random(11)
    store = Store(str(tmp_path))
    vault = new_vault(store)
    size = 512 * PIECE_BYTES
    pieces = (Data(offset, compressible(PIECE_BYTES, luck)) for offset in range(0, size, PIECE_BYTES))
    latest = written(vault, pieces, size).manifest
    one = stored_bytes(store)
    for _ in range(10):
        change = Data(luck.randrange(size - size // 100), compressible(size // 100, luck))
        latest = written(vault, [change], size, parent=latest).manifest

    assert check(vault, latest) == []
    assert stored_bytes(store) <= 1.2 * one, f"{stored_bytes(store) / one:.3f}"
