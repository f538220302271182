"""Backups when something dies, fills up, or happens meanwhile.

The machines have no system inside; what a guest would write is written through QEMU's block layer.
"""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from threading import Lock
from time import sleep
from typing import Any

import libvirt
import pytest

from backups import manifests, writing
from backups.drafts import Zeros
from backups.errors import BackupError, StoreFull, StoreUnreachable
from backups.kinds import BackupKind, BackupStatus
from backups.models import Backup
from backups.pieces import PIECE_BYTES
from backups.services import manifest_of, vault_of
from backups.vaults import Vault
from core import clock
from core.errors import NotAllowedNow, OperationInProgress, Refusal
from deploy.local.libvirtd import Libvirtd
from inventory.models import Hypervisor
from provisioning import hypervisors
from provisioning.drivers.base import GuestFrozen, HostBusy, HostUnreachable
from provisioning.drivers.storage_names import is_scratch
from provisioning.engine import carry_out
from provisioning.reconcile import reconcile
from provisioning.verify.verification import verify
from servers import backup_services, services
from servers.models import Operation, Server
from servers.states import OPEN_OPERATION, ServerStatus, SuspensionReason
from tests.contract.guests import write_through_qemu
from tests.factories import OsVersionFactory, PlanFactory
from tests.flows.conftest import FaultyHost, Killed, finish, full
from tests.flows.test_backups import assert_clean, end, take

pytestmark = pytest.mark.django_db(transaction=True)
S, B = ServerStatus, BackupStatus
MIB = 2**20


def write(server: Server, byte: int, at_mib: int = 0, mib: int = 4) -> None:
    """What a guest writes, and has on its disk."""
    domain = libvirt.open(server.claim.hypervisor.uri).lookupByUUIDString(str(server.uuid))
    write_through_qemu(domain, byte, at_mib, mib)


def on_disk(server: Server, at_mib: int = 0) -> int:
    """The byte that stands there.  The machine must be off."""
    content = hypervisors.bare_driver_for(server.claim.hypervisor).read_disk(server.uuid, server.disk_number)
    for extent in content.extents:
        data = b"" if isinstance(extent, Zeros) else extent.data
        if extent.offset <= at_mib * MIB < extent.offset + len(data):
            return data[at_mib * MIB - extent.offset]
    return 0


def off(server: Server) -> Server:
    services.hard_stop_server(server=server)
    return finish(server)


def let_leases_end() -> None:
    """What time does when a worker has died."""
    Operation.objects.exclude(lease_until=None).update(lease_until="2020-01-01T00:00:00Z")


def order(server: Server, kind: BackupKind = BackupKind.MANUAL) -> Backup:
    return backup_services.take_backup(server=server, kind=kind, name="x")


def step(backup: Backup, until: str) -> None:
    """Carry the backup out up to this step, which is not begun."""
    advance(Operation.objects.get(backup=backup, status__in=OPEN_OPERATION), until)


def advance(operation: Operation, until: str) -> None:
    while operation.step != until:
        Operation.objects.filter(pk=operation.pk).update(due_at="2020-01-01T00:00:00Z")
        backup_steps_stop_at(until, operation)
        operation.refresh_from_db()


class Reached(BaseException):
    """The step at which a test stops a worker."""


def backup_steps_stop_at(name: str, operation: Operation) -> None:
    from provisioning import workflows

    kind: Any = operation.kind
    before = workflows.WORKFLOWS[kind]

    def stop(job: Any) -> None:
        raise Reached

    stop.__name__ = name
    workflows.WORKFLOWS[kind] = tuple(stop if step.__name__ == name else step for step in before)
    try:
        carry_out(operation.pk)
    except Reached:
        pass
    finally:
        workflows.WORKFLOWS[kind] = before
        let_leases_end()


@pytest.fixture
def written_to(active: Server) -> Server:
    write(active, 1)
    return active


# A worker that dies.


CALLS = ["power", "begin_backup", "backup_progress", "read_backup", "end_backup"]


@pytest.mark.parametrize("call", CALLS)
def test_a_worker_that_dies_while_it_takes_a_backup_is_followed_by_another(
    host: Hypervisor, written_to: Server, faulty: FaultyHost, call: str
) -> None:
    """tests/chaos has them die before and after each step, too."""
    backup = order(written_to)
    faulty.fail_next(call, Killed(), when="after")
    with pytest.raises(Killed):
        end(backup)
    let_leases_end()
    assert end(backup).status == B.COMPLETED
    assert_clean(host, written_to)
    write(written_to, 2)
    backup_services.restore_backup(backup=backup)
    assert on_disk(off(finish(written_to))) == 1


@pytest.mark.parametrize("where", ["manifests.put", "write"])
def test_a_worker_that_dies_at_the_store_is_followed_by_another(
    host: Hypervisor, written_to: Server, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    backup = order(written_to)
    real: Any = writing.write

    def dies(*args: Any, **given: Any) -> Any:
        if where == "write":
            real(*args, **given)
        raise Killed

    with monkeypatch.context() as patched:
        if where == "write":
            patched.setattr(writing, "write", dies)
        else:
            patched.setattr(manifests, "put", dies)
        with pytest.raises(Killed):
            end(backup)
    let_leases_end()
    assert end(backup).status == B.COMPLETED
    assert_clean(host, written_to)


RESTORES = [
    *("require_unchanged", "remove_spare_disks", "write_disk", "power_off", "write_seed", "define", "start"),
    *("power", "mark_delivered"),
]


@pytest.mark.parametrize("call", RESTORES)
def test_a_worker_that_dies_while_it_restores_is_followed_by_another(
    host: Hypervisor, written_to: Server, faulty: FaultyHost, call: str
) -> None:
    backup = take(written_to)
    write(written_to, 2)
    backup_services.restore_backup(backup=backup)
    faulty.fail_next(call, Killed(), when="after")
    with pytest.raises(Killed):
        finish(written_to)
    let_leases_end()
    restored = finish(written_to)
    assert (restored.status, restored.disk_number) == (S.ACTIVE, 2)
    assert_clean(host, restored)
    assert on_disk(off(restored)) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_that_dies_while_it_removes_a_backup_is_followed_by_another(
    written_to: Server, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    backup = take(written_to)
    backup_services.delete_backup(backup=backup)
    real = manifests.remove

    def dies(vault: Vault, uuid: Any) -> None:
        if when == "after":
            real(vault, uuid)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(manifests, "remove", dies)
        with pytest.raises(Killed):
            end(backup)
    let_leases_end()
    assert end(backup).status == B.DELETED
    assert list(vault_of(backup.account, backup.store).list_manifests()) == []


def test_a_backup_that_is_deleted_while_it_is_taken_leaves_nothing(
    host: Hypervisor, written_to: Server
) -> None:
    backup = order(written_to)
    step(backup, "await_backup")
    backup_services.delete_backup(backup=backup)
    let_leases_end()
    assert end(backup).status == B.DELETED
    assert_clean(host, written_to)
    domain = libvirt.open(host.uri).lookupByUUIDString(str(written_to.uuid))
    assert domain.listAllCheckpoints() == []
    assert take(written_to).status == B.COMPLETED


# The store.


def test_a_full_store_fails_the_backup_and_leaves_the_host_clean(
    host: Hypervisor, written_to: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Any) -> None:
        raise StoreFull("no room")

    with monkeypatch.context() as patched:
        patched.setattr(Vault, "put_piece", no_room)
        failed = take(written_to)
    assert (failed.status, failed.error_code) == (B.FAILED, "backup_store_full")
    assert "no room left" in failed.message
    assert_clean(host, written_to)
    again = take(written_to)
    assert (again.status, again.parent) == (B.COMPLETED, None)


def test_a_store_that_is_away_for_a_while_costs_a_delay(
    host: Hypervisor, written_to: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, away = Vault.put_piece, iter([True, False, True])

    def put(self: Vault, *piece: Any) -> None:
        if next(away, False):
            raise StoreUnreachable("away")
        real(self, *piece)

    monkeypatch.setattr(Vault, "put_piece", put)
    assert take(written_to).status == B.COMPLETED
    assert_clean(host, written_to)


def test_a_store_of_a_mib_a_second_holds_up_nobody_but_itself(
    host: Hypervisor, written_to: Server, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes longer than a lease, and by then the host is long done: the guest waits for no store.

    Guard: ``kept_lease``.
    """
    settings.VPS_OPERATION_LEASE = 2
    for at in range(3):
        write(written_to, at + 1, at_mib=4 * at)
    real, one_at_a_time = Vault.put_piece, Lock()
    on_host = []

    def put(self: Vault, *piece: Any) -> None:
        with one_at_a_time:
            sleep(PIECE_BYTES / MIB)
        domain = libvirt.open(host.uri).lookupByUUIDString(str(written_to.uuid))
        on_host.append((domain.jobInfo()[0], domain.blockJobInfo("vda")))
        real(self, *piece)

    monkeypatch.setattr(Vault, "put_piece", put)
    backup = take(written_to)
    assert backup.status == B.COMPLETED
    assert Operation.objects.get(backup=backup).retries == 0
    assert on_host == [(libvirt.VIR_DOMAIN_JOB_NONE, {})] * 3
    assert_clean(host, written_to)


def test_what_the_store_lost_is_found_and_named_and_the_next_backup_is_whole(written_to: Server) -> None:
    """Guard: ``_start_over_without_parent``."""
    write(written_to, 5, at_mib=100)
    first = take(written_to)
    vault = vault_of(first.account, first.store)
    lost = manifest_of(first, vault).name_at(100 * MIB // PIECE_BYTES)
    assert lost is not None
    vault.remove_pieces([lost])
    write(written_to, 6, at_mib=200)
    second = take(written_to)
    assert (second.status, second.parent) == (B.COMPLETED, None), "nothing was taken over from the first"
    assert manifest_of(second, vault).name_at(100 * MIB // PIECE_BYTES) == lost


def test_a_restore_with_a_bad_piece_leaves_the_old_disk(host: Hypervisor, written_to: Server) -> None:
    backup = take(written_to)
    vault = vault_of(backup.account, backup.store)
    [(_, name)] = list(manifest_of(backup, vault).named())
    vault.store.put(vault._piece(name), b"garbage")
    write(written_to, 2)
    operation = backup_services.restore_backup(backup=backup)
    after = finish(written_to)
    operation.refresh_from_db()
    assert (operation.error_code, after.status, after.disk_number) == ("backup_piece_bad", S.ACTIVE, 1)
    assert_clean(host, after)
    # Staff see it, and no backup is built on it.
    backup.refresh_from_db()
    assert name.hex() in backup.damage
    assert take(after).parent is None
    assert on_disk(off(after)) == 2


def test_an_empty_folder_where_the_store_was_is_not_taken_for_it(
    written_to: Server, settings: Any, tmp_path: Path
) -> None:
    """A mount that is gone, say.  Guard: the mark."""
    store = tmp_path / "store"
    settings.VPS_BACKUP_STORE = str(store)
    backup = take(written_to)
    store.rename(away := store.with_name("away"))
    store.mkdir()
    with pytest.raises(StoreUnreachable, match="Is it mounted"):
        vault_of(backup.account, backup.store)
    assert list(store.iterdir()) == []
    store.rmdir()
    away.rename(store)
    assert manifest_of(backup, vault_of(backup.account, backup.store)).count > 0


# The host.


def test_a_full_pool_refuses_the_backup(small: Hypervisor, small_libvirtd: Libvirtd, order_at: Any) -> None:
    server = finish(order_at(small))
    with full(small_libvirtd):
        failed = take(server)
    assert (failed.status, failed.error_code) == (B.FAILED, "pool_full")
    server.refresh_from_db()
    assert server.status == S.ACTIVE
    assert take(server).status == B.COMPLETED


@pytest.fixture
def order_at(order: Callable[..., Server]) -> Callable[[Hypervisor], Server]:
    return lambda host: order(location=host.location)


ERRORS = [HostUnreachable("gone"), HostBusy("somebody else"), GuestFrozen("does not thaw")]


@pytest.mark.parametrize("error", ERRORS, ids=[type(error).__name__ for error in ERRORS])
@pytest.mark.parametrize("call", ["begin_backup", "backup_progress", "end_backup"])
def test_what_passes_on_the_host_costs_a_delay(
    host: Hypervisor, written_to: Server, faulty: FaultyHost, call: str, error: Exception
) -> None:
    backup = order(written_to)
    faulty.fail_next(call, error)
    faulty.fail_next(call, error)
    assert end(backup).status == B.COMPLETED
    assert_clean(host, written_to)


def test_what_a_failed_backup_could_not_clear_is_cleared_by_reconcile(
    host: Hypervisor, written_to: Server, faulty: FaultyHost
) -> None:
    """The host is away when the time is up.  Guards: ``copies_left_on``, ``copied_as`` in ``clear_copy``."""
    backup = order(written_to)
    step(backup, "store_backup")
    Operation.objects.filter(backup=backup).update(deadline_at="2020-01-01T00:00:00Z")
    faulty.fail_next("end_backup", HostUnreachable("away"), when="before")
    assert end(backup).status == B.FAILED
    driver = hypervisors.bare_driver_for(host)
    assert any(is_scratch(volume.name) for volume in driver.volumes())
    reconcile(host)
    assert_clean(host, written_to)
    backup.refresh_from_db()
    assert backup.copied_as is None


def test_a_host_takes_no_more_at_once_than_it_may(
    order: Callable[..., Server], host: Hypervisor, settings: Any
) -> None:
    """Guard: ``copies_beside``: each needs room in the pool."""
    first, second = (finish(order(name=f"web-{n}")) for n in (1, 2))
    one, other = (backup_services.take_backup(server=s, kind=BackupKind.MANUAL) for s in (first, second))
    step(one, "await_backup")
    waiting = Operation.objects.get(backup=other)

    carry_out(waiting.pk)
    waiting.refresh_from_db()
    assert (waiting.status, waiting.step) == ("queued", "begin_backup")
    step(one, "end_backup")
    assert end(other).status == B.COMPLETED, "a guest that does not thaw holds up nobody else"


def test_a_copy_is_begun_anew_ever_later_and_says_why(written_to: Server) -> None:
    """A disk with a bad block is read in vain each time.  Guard: ``seconds_under_way`` in the engine."""
    backup = order(written_to)
    for hours, least_s in ((0, 4), (1, 300), (11, 500)):
        step(backup, "await_backup")
        libvirt.open(written_to.claim.hypervisor.uri).lookupByUUIDString(str(written_to.uuid)).destroy()
        operation = Operation.objects.get(backup=backup)
        begun = clock.now() - timedelta(hours=hours)
        Operation.objects.filter(pk=operation.pk).update(due_at="2020-01-01T00:00:00Z", started_at=begun)
        before = clock.now()
        carry_out(operation.pk)
        operation.refresh_from_db()
        assert operation.due_at - before > timedelta(seconds=least_s)
        assert "was lost" in operation.error_detail
        hypervisors.bare_driver_for(written_to.claim.hypervisor).start(written_to.uuid)


def test_a_copy_that_is_lost_again_and_again_holds_up_nobody_else(
    order: Callable[..., Server], host: Hypervisor
) -> None:
    """Guard: ``copied_as=None`` in ``await_backup``.  A customer may stop and start a server all night."""
    first, second = (finish(order(name=f"web-{n}")) for n in (1, 2))
    one, other = (backup_services.take_backup(server=s, kind=BackupKind.MANUAL) for s in (first, second))
    step(one, "await_backup")
    off(first)
    step(one, "begin_backup")
    services.start_server(server=first)
    finish(first)
    step(other, "await_backup")
    again = Operation.objects.get(backup=one)
    Operation.objects.filter(pk=again.pk).update(due_at="2020-01-01T00:00:00Z")
    carry_out(again.pk)
    one.refresh_from_db()
    assert one.copied_as is None, "now it waits for the other"
    assert end(other).status == B.COMPLETED
    assert end(one).status == B.COMPLETED


# What the customer does meanwhile: power wins, and nobody waits.


def _reboot(server: Server) -> None:
    services.hard_stop_server(server=server)
    finish(server)
    services.start_server(server=server)


MEANWHILE: dict[str, tuple[Callable[[Server], object], BackupStatus, ServerStatus]] = {
    "stopped": (lambda s: services.hard_stop_server(server=s), B.COMPLETED, S.STOPPED),
    "off and on": (_reboot, B.COMPLETED, S.ACTIVE),
    "resized": (
        lambda s: services.resize_server(server=s, plan=PlanFactory.create(slug="big", disk_gib=2)),
        B.COMPLETED,
        S.ACTIVE,
    ),
    "suspended": (
        lambda s: services.suspend_server(server=s, reason=SuspensionReason.ABUSE),
        B.COMPLETED,
        S.SUSPENDED,
    ),
    "rebuilt": (
        lambda s: services.rebuild_server(
            server=s, os_version=OsVersionFactory.create(name="Debian 12", image=s.base_image)
        ),
        B.FAILED,
        S.ACTIVE,
    ),
    "deleted": (lambda s: services.delete_server(server=s), B.FAILED, S.DELETED),
}


@pytest.fixture
def quick(settings: Any) -> None:
    settings.VPS_SHUTDOWN_TIMEOUT = 1


@pytest.mark.parametrize(
    ("what", "before"),
    [
        *((what, before) for what in MEANWHILE for before in ("await_backup", "store_backup")),
        *((what, before) for what in ("rebuilt", "deleted") for before in ("begin_backup", "end_backup")),
        ("resized", "begin_backup"),
    ],
)
def test_a_customers_order_waits_for_no_backup(
    host: Hypervisor, written_to: Server, quick: None, what: str, before: str
) -> None:
    deed, ends_as, status = MEANWHILE[what]
    backup = order(written_to)
    step(backup, before)
    deed(written_to)
    assert finish(written_to).status == status
    ended = end(backup)
    # What was copied before is a backup of that moment, unless it went with its server.
    is_lost = before == "await_backup" or (status == S.DELETED and before != "end_backup")
    expected = ends_as if before == "begin_backup" or is_lost else B.COMPLETED
    assert ended.status == expected, ended.message
    if expected == B.COMPLETED:
        manifest = manifest_of(ended, vault_of(ended.account, ended.store))
        assert manifest.disk_bytes == ended.disk_gib * 2**30
    if status != S.DELETED:
        assert_clean(host, written_to)
    else:
        assert [finding for finding in verify() if finding.machine == written_to.uuid] == []


def test_a_copy_is_never_of_the_disk_that_replaces_its_own(host: Hypervisor, written_to: Server) -> None:
    """Guard: ``_require_disk``: the machine runs on the new disk before the server's row says so."""
    backup = order(written_to)
    step(backup, "await_backup")
    system = OsVersionFactory.create(name="Debian 12", image=written_to.base_image)
    advance(services.rebuild_server(server=written_to, os_version=system), "deliver")
    operation = Operation.objects.get(backup=backup)
    for _ in range(4):
        Operation.objects.filter(pk=operation.pk).update(due_at="2020-01-01T00:00:00Z")
        carry_out(operation.pk)
    operation.refresh_from_db()
    assert operation.step == "begin_backup"
    assert finish(written_to).disk_number == 2
    assert end(backup).error_code == "disk_replaced"
    assert_clean(host, written_to)


def test_removing_a_backup_of_an_earlier_disk_leaves_what_the_next_builds_on(written_to: Server) -> None:
    """Guard: ``_checkpoint_to_keep`` asks for the disk that the server has now."""
    first = take(written_to)
    backup_services.restore_backup(backup=first)
    finish(written_to)
    second = take(written_to)
    backup_services.delete_backup(backup=first)
    assert end(first).status == B.DELETED
    assert take(written_to).parent == second.uuid


def test_a_server_that_is_started_while_its_disk_is_read_is_read_again(
    host: Hypervisor, written_to: Server, faulty: FaultyHost
) -> None:
    """Guard: ``_stillness``."""
    off(written_to)
    backup = order(written_to)

    def started() -> None:
        services.start_server(server=written_to)
        finish(written_to)
        write(written_to, 9)

    faulty.do_after("read_disk", started)
    ended = end(backup)
    assert (ended.status, ended.was_running) == (B.COMPLETED, True)
    backup_services.restore_backup(backup=backup)
    assert on_disk(off(finish(written_to))) == 9


# What is refused.


def test_one_copy_of_a_server_is_taken_at_a_time(written_to: Server) -> None:
    order(written_to)
    with pytest.raises(OperationInProgress):
        order(written_to, BackupKind.SNAPSHOT)


def test_more_than_a_server_may_have_are_refused_for_each_kind(written_to: Server, settings: Any) -> None:
    settings.VPS_MAX_MANUAL_BACKUPS = settings.VPS_MAX_SNAPSHOTS = 1
    for kind in (BackupKind.MANUAL, BackupKind.SNAPSHOT):
        kept = take(written_to, kind)
        with pytest.raises(Refusal) as refused:
            order(written_to, kind)
        assert refused.value.code == f"{kind}_limit_reached"
        backup_services.delete_backup(backup=kept)
        end(kept)
        take(written_to, kind)


def test_what_a_server_is_made_from_is_not_deleted(written_to: Server) -> None:
    backup = take(written_to)
    backup_services.restore_backup(backup=backup)
    with pytest.raises(OperationInProgress):
        backup_services.delete_backup(backup=backup)
    finish(written_to)
    backup_services.delete_backup(backup=backup)


def test_what_is_not_whole_is_not_restored(written_to: Server) -> None:
    backup = order(written_to)
    with pytest.raises(Refusal) as refused:
        backup_services.restore_backup(backup=backup)
    assert refused.value.code == "not_restorable"


def test_a_server_that_is_not_there_yet_is_not_backed_up(order: Callable[..., Server]) -> None:
    with pytest.raises(NotAllowedNow):
        backup_services.take_backup(server=order(), kind=BackupKind.MANUAL)


def test_without_a_key_there_are_no_backups(written_to: Server, settings: Any) -> None:
    settings.VPS_BACKUP_KEY = b""
    for deed in (
        lambda: order(written_to),
        lambda: services.update_server(server=written_to, backups_enabled=True),
    ):
        with pytest.raises(Refusal) as refused:
            deed()
        assert refused.value.code == "backups_unavailable"


def test_every_error_of_the_store_has_a_sentence_for_the_customer() -> None:
    def every(kind: type[BackupError]) -> Iterator[type[BackupError]]:
        yield kind
        for below in kind.__subclasses__():
            yield from every(below)

    assert all(json.dumps(kind.sentence) and kind.code for kind in every(BackupError))


# Read again.


def test_a_backup_that_is_read_again_is_whole_or_says_what_is_bad(written_to: Server) -> None:
    """What was damaged and is put right is whole again."""
    backup = take(written_to)
    Backup.objects.filter(pk=backup.pk).update(verified_at="2026-01-01T00:00:00Z")
    assert backup_services.verify_due_backups() == 1
    assert backup_services.verify_due_backups() == 0, "it is being read"
    read = end(backup)
    assert read.verified_at is not None
    assert (read.verified_at.year > 2025, read.damage) == (True, "")
    vault = vault_of(backup.account, backup.store)
    [(_, name)] = list(manifest_of(backup, vault).named())
    sound = bytes(vault.store.get(vault._piece(name)))
    vault.remove_pieces([name])
    operation = backup_services.verify_backup(backup=backup)
    damaged = end(backup)
    operation.refresh_from_db()
    assert (operation.error_code, damaged.status) == ("backup_piece_missing", B.COMPLETED)
    assert name.hex() in damaged.damage
    assert {str(finding.code) for finding in verify()} >= {"BACKUP_DAMAGED"}
    vault.store.put(vault._piece(name), sound)
    backup_services.verify_backup(backup=backup)
    assert end(backup).damage == ""


def test_an_incremental_was_read_when_its_parent_was(written_to: Server) -> None:
    """Guard: ``_read_since``.  What it takes from its parent was only looked for."""
    first = take(written_to)
    Backup.objects.filter(pk=first.pk).update(verified_at="2026-01-01T00:00:00Z")
    write(written_to, 2)
    second = take(written_to)
    assert second.verified_at is not None
    assert (second.parent, second.verified_at.year, second.verified_at.month) == (first.uuid, 2026, 1)
    assert backup_services.verify_due_backups() == 1
    read = end(second).verified_at
    write(written_to, 3)
    assert take(written_to).verified_at == read


def test_what_is_known_to_be_damaged_is_not_read_every_time(written_to: Server) -> None:
    backup = take(written_to)
    Backup.objects.filter(pk=backup.pk).update(verified_at="2026-01-01T00:00:00Z", damage="is bad")
    assert backup_services.verify_due_backups() == 0


def test_a_backup_whose_manifest_is_gone_is_damaged(written_to: Server) -> None:
    backup = take(written_to)
    assert backup.stored_as is not None
    manifests.remove(vault_of(backup.account, backup.store), backup.stored_as)
    backup_services.verify_backup(backup=backup)
    assert "no manifest" in end(backup).damage
