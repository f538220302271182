"""What is wrong with backups: those that were missed or found damaged, and what one has left on a host."""

from collections.abc import Collection, Iterator
from datetime import timedelta
from uuid import UUID

from backups.kinds import BackupStatus
from core.findings import Finding
from provisioning.drivers.base import HypervisorError
from provisioning.drivers.storage_names import is_scratch
from provisioning.verify.findings import Code
from provisioning.verify.snapshot import Answers, HostAnswer, Rows, ServerRow
from servers.states import CHANGEABLE

LATE = timedelta(hours=3)  # one that failed is taken once more within the hour
UNVERIFIED_FOR = timedelta(days=35)  # each server's last one is read, and a sample booted, within a month


def check_backup_rows(rows: Rows) -> Iterator[Finding]:
    for server in rows.servers.values():
        if server.status in CHANGEABLE:
            yield from _missed(rows, server)
    for backup in rows.backups.values():
        name = f"backup {backup.id}"
        if backup.damage:
            yield Finding(Code.BACKUP_DAMAGED, name, f"of server {backup.server_id}: {backup.damage}")
        elif backup.is_newest and backup.verified_at and rows.at - backup.verified_at > UNVERIFIED_FOR:
            when = f"{backup.verified_at:%Y-%m-%d}"
            yield Finding(
                Code.BACKUP_UNVERIFIED, name, f"of server {backup.server_id} was last read on {when}."
            )


def _missed(rows: Rows, server: ServerRow) -> Iterator[Finding]:
    due = server.backup_due_at
    if due is None:
        return
    if rows.at - due > LATE:
        what = f"should have been backed up at {due:%Y-%m-%d %H:%M} UTC, and nothing was begun."
        yield Finding(Code.BACKUP_MISSED, f"server {server.id}", what)
    elif server.last_automatic == BackupStatus.FAILED:
        yield Finding(Code.BACKUP_MISSED, f"server {server.id}", "has an automatic backup that failed last.")


def check_backups_on_hosts(rows: Rows, answers: Answers) -> Iterator[Finding]:
    at_work = {row.server for row in rows.backups.values() if row.is_open}
    known = {row.copied_as for row in rows.backups.values() if row.status == BackupStatus.COMPLETED}
    for name, answer in answers.items():
        if not isinstance(answer, HypervisorError):
            yield from _on_host(rows, name, answer, at_work, known)


def _on_host(
    rows: Rows, host: str, answer: HostAnswer, at_work: Collection[UUID], known: Collection[UUID | None]
) -> Iterator[Finding]:
    scratch = {volume.machine: volume.name for volume in answer.volumes if is_scratch(volume.name)}
    for machine in answer.machines:
        if not machine.is_ours or machine.uuid in at_work or machine.uuid not in rows.servers:
            continue
        name = f"server {rows.servers[machine.uuid].id}"
        if left := scratch.get(machine.uuid):
            what = f"has a file of a backup that nobody takes: {left} ({host})"
            yield Finding(Code.BACKUP_SCRATCH_LEFT, name, what, machine.uuid)
        if unknown := set(machine.checkpoints).difference(known):
            what = f"has checkpoints of no backup: {', '.join(sorted(map(str, unknown)))} ({host})"
            yield Finding(Code.BACKUP_CHECKPOINT_UNKNOWN, name, what, machine.uuid)
    for uuid in answer.frozen:
        if uuid in rows.servers and uuid not in at_work:
            name = f"server {rows.servers[uuid].id}"
            yield Finding(Code.GUEST_FROZEN, name, f"has file systems that are held still ({host})", uuid)
