"""Pieces that no backup needs are removed, and none that a backup needs, whoever dies or runs meanwhile."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import settings
from django.db import connection, connections

from accounts.models import Account
from backups import collecting, manifests
from backups.collecting import Collected, collect
from backups.drafts import Extent
from backups.errors import CollectingNow, HoldLost, ManifestBad, PiecesHeld
from backups.manifests import Manifest
from backups.pieces import PIECE_BYTES
from backups.reading import Data, check, read
from backups.services import keeping_pieces, vault_of
from backups.store import Store
from backups.vaults import DIGITS, Vault
from deploy.local.folder import PROJECT
from deploy.local.processes import wait_for
from tests.factories import AccountFactory
from tests.private_services import POSTGRES
from tests.s3 import S3
from tests.vaults import contents, manifest_path, names_of, piece_path, random_disk, whole, written

pytestmark = pytest.mark.django_db(transaction=True)

WHATEVER_AGE = timedelta(minutes=-5)


@pytest.fixture(autouse=True)
def configured(store: Store, request: pytest.FixtureRequest, settings: Any) -> dict[str, str]:
    """The test's own store is the configured one."""
    told = {"VPS_BACKUP_STORE": store.address}
    if store.address.startswith("s3://"):
        server: S3 = request.getfixturevalue("s3")
        told |= {f"VPS_BACKUP_S3_{name.upper()}": value for name, value in server.access._asdict().items()}
    for name, value in told.items():
        setattr(settings, name, value)
    return told


@pytest.fixture
def account() -> Account:
    account: Account = AccountFactory.create()
    return account


@pytest.fixture
def vault(account: Account) -> Vault:
    return vault_of(account, settings.VPS_BACKUP_STORE, make_key=True)


def elsewhere(call: Callable[[], Any]) -> Any:
    """Call as another process does, with a session of Postgres of its own."""

    def alone() -> Any:
        try:
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(alone).result()


def pieces_in(vault: Vault) -> set[bytes]:
    return {piece.name for digit in DIGITS for piece in vault.list_pieces(digit)}


def session_of_this_thread() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    return int(pid)


def end(pid: int) -> None:
    """What a restart of Postgres does to a session."""

    def terminate() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [pid])

    elsewhere(terminate)


def test_pieces_go_when_no_backup_of_the_account_needs_them(account: Account, vault: Vault) -> None:
    disk = random_disk(3)
    first = written(vault, whole(disk), len(disk)).manifest
    second = written(vault, [Data(0, b"new")], len(disk), parent=first).manifest
    bobs = vault_of(AccountFactory.create(), settings.VPS_BACKUP_STORE, make_key=True)
    his = written(bobs, whole(disk), len(disk)).manifest

    assert collect(account, settings.VPS_BACKUP_STORE, rest=WHATEVER_AGE) == (0, 0)
    manifests.remove(vault, first.backup)
    counted = collect(account, settings.VPS_BACKUP_STORE, rest=WHATEVER_AGE, dry_run=True)
    assert counted.pieces == 1
    assert 0.9 * PIECE_BYTES < counted.size_bytes < 1.1 * PIECE_BYTES
    assert pieces_in(vault) == {*names_of(first), *names_of(second)}
    assert collect(account, settings.VPS_BACKUP_STORE, rest=WHATEVER_AGE) == counted
    assert pieces_in(vault) == set(names_of(second))
    assert contents(vault, second) == b"new" + disk[3:]
    assert check(bobs, his) == []
    manifests.remove(vault, second.backup)
    assert collect(account, settings.VPS_BACKUP_STORE, rest=WHATEVER_AGE).pieces == 3
    assert pieces_in(vault) == set()


def test_a_piece_stays_for_a_day(account: Account, vault: Vault) -> None:
    """Guard: ``rest``."""
    written(vault, [Data(0, b"x")], 10)
    [backup] = vault.list_manifests()
    manifests.remove(vault, backup)

    assert collect(account, settings.VPS_BACKUP_STORE) == (0, 0)
    assert len(pieces_in(vault)) == 1
    if not vault.store.address.startswith("s3://"):
        [name] = pieces_in(vault)
        file = Path(vault.store.address, piece_path(vault, name))
        for hours, gone in ((23, 0), (25, 1)):
            os.utime(file, (time.time() - hours * 3600,) * 2)
            assert collect(account, settings.VPS_BACKUP_STORE).pieces == gone


def test_while_a_manifest_cannot_be_read_nothing_goes(account: Account, vault: Vault) -> None:
    """Guard: ``manifests.get`` in ``_unneeded`` raises.  Nobody knows which pieces that manifest names."""
    disk = random_disk(2)
    kept, damaged = (written(vault, whole(disk[shift:]), len(disk) - shift).manifest for shift in (0, 5))
    vault.store.put(manifest_path(vault, damaged.backup), b"damaged")
    manifests.remove(vault, kept.backup)
    before = pieces_in(vault)

    with pytest.raises(ManifestBad, match=str(damaged.backup)):
        collect(account, settings.VPS_BACKUP_STORE, rest=WHATEVER_AGE)
    assert pieces_in(vault) == before
    manifests.remove(vault, damaged.backup)
    assert collect(account, settings.VPS_BACKUP_STORE, rest=WHATEVER_AGE).pieces == len(before)


def test_files_that_are_not_ours_are_left_alone(account: Account, vault: Vault) -> None:
    foreign = [f"{vault.folder}/{path}" for path in ("pieces/a/notes", "pieces/a/ab", "manifests/lost+found")]
    for path in foreign:
        vault.store.put(path, b"x")

    assert collect(account, settings.VPS_BACKUP_STORE, rest=WHATEVER_AGE) == (0, 0)
    assert {found.path for found in vault.store.list(vault.folder)} == set(foreign)


# A write or a read that runs at the same time.


def test_a_write_keeps_the_pieces_that_it_relies_on(account: Account, vault: Vault) -> None:
    """Guard: ``try_share``.  The parent is deleted meanwhile: for a while no manifest names its pieces."""
    disk = random_disk(3)
    parent = written(vault, whole(disk), len(disk)).manifest

    def changes() -> Iterator[Extent]:
        yield Data(0, b"new")
        manifests.remove(vault, parent.backup)
        with pytest.raises(PiecesHeld):
            elsewhere(lambda: collect(account, settings.VPS_BACKUP_STORE, rest=WHATEVER_AGE))
        assert (
            elsewhere(
                lambda: collect(account, settings.VPS_BACKUP_STORE, rest=WHATEVER_AGE, dry_run=True)
            ).pieces
            >= 3
        )

    with keeping_pieces(account) as hold:
        taken = written(vault, changes(), len(disk), parent=parent, require_hold=hold.require).manifest

    assert elsewhere(lambda: collect(account, settings.VPS_BACKUP_STORE, rest=WHATEVER_AGE)).pieces == 1
    assert contents(vault, taken) == b"new" + disk[3:]


def test_a_restore_keeps_the_pieces_of_a_backup_that_is_deleted_meanwhile(
    account: Account, vault: Vault
) -> None:
    disk = random_disk(8)
    taken = written(vault, whole(disk), len(disk)).manifest
    restored = bytearray()
    with keeping_pieces(account):
        for _, data in read(vault, taken):
            restored += data
            manifests.remove(vault, taken.backup)
            with pytest.raises(PiecesHeld):
                elsewhere(lambda: collect(account, settings.VPS_BACKUP_STORE, rest=WHATEVER_AGE))

    assert bytes(restored) == disk
    assert collect(account, settings.VPS_BACKUP_STORE, rest=WHATEVER_AGE).pieces == 8


def test_several_write_at_once_and_none_while_pieces_are_collected(
    account: Account, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: ``try_lock`` in ``collect``."""
    written(vault, [Data(0, b"x")], 10)
    [backup] = vault.list_manifests()
    manifests.remove(vault, backup)
    remove = Vault.remove_pieces
    refused = []

    def keep() -> None:
        with keeping_pieces(account):
            pass

    def remove_meanwhile(self: Vault, names: list[bytes]) -> None:
        with pytest.raises(CollectingNow):
            elsewhere(keep)
        with pytest.raises(PiecesHeld):
            elsewhere(lambda: collect(account, settings.VPS_BACKUP_STORE))
        refused.append(names)
        remove(self, names)

    monkeypatch.setattr(Vault, "remove_pieces", remove_meanwhile)
    with keeping_pieces(account):
        elsewhere(keep)
    assert collect(account, settings.VPS_BACKUP_STORE, rest=WHATEVER_AGE).pieces == len(refused) == 1
    elsewhere(keep)


def test_a_write_whose_session_has_ended_is_no_backup(account: Account, vault: Vault) -> None:
    """Guard: ``require_hold``.  From the end of the session on, pieces may be collected."""

    def attempt() -> None:
        session = session_of_this_thread()

        def changes() -> Iterator[Extent]:
            yield Data(0, b"x")
            end(session)

        with keeping_pieces(account) as hold:
            written(vault, changes(), 10, require_hold=hold.require)

    with pytest.raises(HoldLost):
        elsewhere(attempt)
    assert list(vault.list_manifests()) == []
    with keeping_pieces(account) as hold:
        written(vault, [Data(0, b"x")], 10, require_hold=hold.require)


def test_collecting_stops_when_its_session_has_ended(
    account: Account, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: ``hold.require`` before each batch.  A writer may rely on the rest by then."""
    disk = random_disk(4)
    taken = written(vault, whole(disk), len(disk)).manifest
    manifests.remove(vault, taken.backup)
    remove = Vault.remove_pieces

    def remove_and_end(self: Vault, names: list[bytes]) -> None:
        remove(self, names)
        end(session_of_this_thread())

    monkeypatch.setattr(Vault, "remove_pieces", remove_and_end)
    monkeypatch.setattr(collecting, "BATCH", 1)
    with pytest.raises(HoldLost):
        elsewhere(lambda: collect(account, settings.VPS_BACKUP_STORE, rest=WHATEVER_AGE))
    assert len(pieces_in(vault)) == 3


# A worker that dies in the middle.

WORKER = """
import sys
import django
django.setup()
from uuid import UUID
from django.conf import settings
from accounts.models import Account
from backups.pieces import PIECE_BYTES
from backups.reading import Data
from backups.services import keeping_pieces, vault_of
from tests.vaults import random_disk, written

account = Account.objects.get(pk=sys.argv[1])
disk = random_disk(4)

def changes():
    for offset in range(0, len(disk), PIECE_BYTES):
        yield Data(offset, disk[offset : offset + PIECE_BYTES])
    sys.stdin.read()

with keeping_pieces(account) as hold:
    vault = vault_of(account, settings.VPS_BACKUP_STORE, make_key=True)
    written(vault, changes(), len(disk), backup=UUID(sys.argv[2]), require_hold=hold.require)
"""


@contextmanager
def worker(account: Account, backup: UUID, told: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes a backup and stops in the middle: three pieces of four are on their way."""
    database = f"{POSTGRES.url.rpartition('/')[0]}/{connection.settings_dict['NAME']}"
    env = os.environ | told | {"DATABASE_URL": database, "DJANGO_SETTINGS_MODULE": "vpsorg.settings"}
    command = [sys.executable, "-c", WORKER, str(account.pk), str(backup)]
    with subprocess.Popen(command, cwd=PROJECT, env=env, stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("age", ["young", "old"])
def test_a_worker_that_died_in_the_middle_holds_nothing_up_and_loses_nothing(
    account: Account, vault: Vault, configured: dict[str, str], age: str
) -> None:
    backup = uuid4()
    with worker(account, backup, configured) as process:
        assert wait_for(lambda: process.poll() is not None or len(pieces_in(vault)) == 3, 60)
        with pytest.raises(PiecesHeld):
            collect(account, settings.VPS_BACKUP_STORE, rest=WHATEVER_AGE)
        os.kill(process.pid, signal.SIGKILL)
    assert wait_for(lambda: not held(account), 30), "the dead worker's lock"

    assert list(vault.list_manifests()) == []
    removed = collect(
        account, settings.VPS_BACKUP_STORE, rest=WHATEVER_AGE if age == "old" else collecting.REST
    )
    assert removed.pieces == (3 if age == "old" else 0)
    disk = random_disk(4)
    with keeping_pieces(account) as hold:
        again = written(vault, whole(disk), len(disk), backup=backup, require_hold=hold.require)
    assert again.new_pieces == (4 if age == "old" else 1)
    assert contents(vault, again.manifest) == disk


def held(account: Account) -> bool:
    try:
        collect(account, settings.VPS_BACKUP_STORE, rest=timedelta(days=1000))
    except PiecesHeld:
        return True
    return False


# All at once.


def test_of_writers_deletions_and_collecting_at_once_no_backup_is_lost(
    account: Account, vault: Vault
) -> None:
    """Guard: the lock.  The disks are made of few different pieces: for moments nobody names most of them."""
    kinds = [random_disk(0.02, kind) for kind in range(4)]
    done = threading.Event()
    collected: list[Collected] = []

    def collect_on_and_on() -> None:
        while not done.is_set():
            try:
                collected.append(collect(account, settings.VPS_BACKUP_STORE, rest=WHATEVER_AGE))
            except PiecesHeld:
                time.sleep(0.005)
            else:
                time.sleep(0.02)

    def write_on_and_on(seed: int) -> int:
        luck = random.Random(seed)
        parent: Manifest | None = None
        for turn in range(12):
            if turn % 3 == 2:  # else there might never be a moment in which nobody writes
                before = len(collected)
                assert wait_for(lambda: len(collected) > before, 200), "nothing is collected"  # noqa: B023
            changes: list[Extent] = [
                Data(index * PIECE_BYTES, luck.choice(kinds)) for index in range(3) if luck.random() < 0.7
            ]
            size = 2 * PIECE_BYTES + len(kinds[0])
            latest = write_patiently(account, vault, changes, size, parent)
            assert check(vault, latest) == []
            if parent and luck.random() < 0.8:
                manifests.remove(vault, parent.backup)
            parent = latest
            if luck.random() < 0.3:
                manifests.remove(vault, parent.backup)
                parent = None
        return seed

    def alone(work: Callable[..., Any], *args: Any) -> Any:
        try:
            return work(*args)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(3) as threads:
        collector = threads.submit(alone, collect_on_and_on)
        writers = [threads.submit(alone, write_on_and_on, seed) for seed in (1, 2)]
        try:
            assert [writer.result() for writer in writers] == [1, 2]
        finally:
            done.set()
        collector.result()
    for backup in vault.list_manifests():
        assert check(vault, manifests.get(vault, backup)) == []
    assert sum(found.pieces for found in collected) > 0


def write_patiently(
    account: Account, vault: Vault, changes: list[Extent], size: int, parent: Manifest | None
) -> Manifest:
    while True:
        try:
            with keeping_pieces(account) as hold:
                return written(vault, changes, size, parent=parent, require_hold=hold.require).manifest
        except CollectingNow:
            time.sleep(0.005)
