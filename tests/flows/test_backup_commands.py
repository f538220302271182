"""What operators type about the store of backups."""

import os
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from accounts.models import Account
from backups import manifests
from backups.errors import StoreFull
from backups.reading import Data
from backups.services import MARK, vault_of
from backups.store import Store
from backups.vaults import Vault
from tests.factories import AccountFactory
from tests.vaults import names_of, piece_path, random_disk, whole, written

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.VPS_BACKUP_STORE = str(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def alice() -> Account:
    alice: Account = AccountFactory.create(email="alice@example.com")
    return alice


def run(*words: str) -> str:
    out = StringIO()
    call_command(*words, stdout=out, stderr=out)
    return out.getvalue().strip()


def stored(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_store_is_tried_out_and_nothing_stays(alice: Account, folder: Path) -> None:
    vault_of(alice, settings.VPS_BACKUP_STORE, make_key=True)

    assert "written, read back and removed" in (told := run("check_backup_store"))
    assert told.endswith("1 account keys open")
    assert stored(folder) == [MARK]


def test_a_store_that_cannot_be_used_is_said(folder: Path, settings: Any) -> None:
    (folder.parent / "file").write_text("")
    settings.VPS_BACKUP_STORE = str(folder.parent / "file")

    with pytest.raises(CommandError, match="cannot be a store"):
        run("check_backup_store")


def test_a_store_that_gives_back_something_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "get", lambda self, path: memoryview(b"\1nothing of the kind"))

    with pytest.raises(CommandError, match="does not decrypt"):
        run("check_backup_store")


def test_a_trial_that_breaks_off_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = Vault.put_piece
    few = iter(range(2))

    def full(self: Vault, *piece: Any) -> None:
        if next(few, None) is None:
            raise StoreFull("no room")
        put(self, *piece)

    monkeypatch.setattr(Vault, "put_piece", full)
    with pytest.raises(CommandError, match="no room"):
        run("check_backup_store")
    assert stored(folder) == [MARK]


def test_a_wrong_key_is_said(alice: Account, settings: Any) -> None:
    vault_of(alice, settings.VPS_BACKUP_STORE, make_key=True)
    settings.VPS_BACKUP_KEY = os.urandom(32)

    with pytest.raises(CommandError, match="VPS_BACKUP_KEY is not the key"):
        run("check_backup_store")


def test_what_is_collected_is_told_by_account(alice: Account, folder: Path, settings: Any) -> None:
    vault = vault_of(alice, settings.VPS_BACKUP_STORE, make_key=True)
    taken = written(vault, [Data(0, b"x")], 10).manifest
    manifests.remove(vault, taken.backup)
    [piece] = [path for path in folder.rglob("*") if path.name == names_of(taken)[0].hex()]
    size = piece.stat().st_size
    os.utime(piece, (0, 0))
    vault_of(AccountFactory.create(), settings.VPS_BACKUP_STORE, make_key=True)

    what, where = f"alice@example.com: 1 pieces, {size} bytes", f"from {settings.VPS_BACKUP_STORE}"
    assert run("collect_backups", "--dry-run") == f"{what} would be removed {where}"
    assert run("collect_backups", "--account", "Alice@example.com") == f"{what} removed {where}"
    assert run("collect_backups") == ""
    with pytest.raises(CommandError, match=r"There is no account bob@example\.com"):
        run("collect_backups", "--account", "bob@example.com")


def test_an_account_that_cannot_be_collected_does_not_stop_the_others(alice: Account, folder: Path) -> None:
    vaults = [
        vault_of(account, settings.VPS_BACKUP_STORE, make_key=True)
        for account in (alice, AccountFactory.create(email="bob@example.com"))
    ]
    for vault in vaults:
        manifests.remove(vault, written(vault, [Data(0, b"x")], 10).manifest.backup)
    for path in folder.rglob("*"):
        os.utime(path, (0, 0))
    vaults[0].store.put(f"accounts/{alice.uuid}/manifests/{uuid4()}", b"damaged")
    out = StringIO()

    with pytest.raises(CommandError, match="Nothing could be collected of 1 accounts"):
        call_command("collect_backups", stdout=out, stderr=out)
    assert "alice@example.com: The manifest of backup" in out.getvalue()
    assert "bob@example.com: 1 pieces" in out.getvalue()


def test_a_backup_is_exported_as_it_was(alice: Account, tmp_path: Path) -> None:
    disk = random_disk(1.2) + bytes(10_000_000)
    vault = vault_of(alice, settings.VPS_BACKUP_STORE, make_key=True)
    taken = written(vault, whole(disk), len(disk)).manifest
    file = tmp_path / "disk.raw"
    words = ["export_backup", str(taken.backup), "--account", alice.email, "--to", str(file)]

    assert run(*words) == f"{file}: {len(disk)} bytes, {taken.data_bytes} of them data"
    assert file.read_bytes() == disk
    assert file.stat().st_blocks * 512 < len(disk) - 4_000_000, "zeros take room"
    with pytest.raises(CommandError, match="File exists"):
        run(*words)
    assert file.read_bytes() == disk


def test_an_export_of_a_damaged_backup_leaves_no_file(alice: Account, tmp_path: Path) -> None:
    disk = random_disk(3)
    vault = vault_of(alice, settings.VPS_BACKUP_STORE, make_key=True)
    taken = written(vault, whole(disk), len(disk)).manifest
    name = names_of(taken)[2]
    vault.store.put(piece_path(vault, name), b"damaged")
    file = tmp_path / "disk.raw"

    with pytest.raises(CommandError, match=f"Piece {name.hex()} at offset"):
        run("export_backup", str(taken.backup), "--account", alice.email, "--to", str(file))
    assert not file.exists()


def test_a_backup_of_another_account_is_not_exported(alice: Account, tmp_path: Path) -> None:
    taken = written(vault_of(alice, settings.VPS_BACKUP_STORE, make_key=True), [Data(0, b"x")], 10).manifest
    AccountFactory.create(email="charlie@example.com")
    file = tmp_path / "disk.raw"

    with pytest.raises(CommandError, match="has no backup key"):
        run("export_backup", str(taken.backup), "--account", "charlie@example.com", "--to", str(file))
    assert not file.exists()
