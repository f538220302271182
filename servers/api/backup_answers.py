"""The answers about backups and snapshots: the contract's fields in its order, then ours."""

from typing import Annotated, Any, Literal

from backups.kinds import BackupKind, BackupStatus, Verified
from backups.models import Backup as BackupRow
from core.api.answers import Answer, Id, Moment, Uuid, about, example, utc, utc_or_none, words
from servers.api.answers import ServerOfAction
from servers.models import Server as ServerModel
from servers.states import ServerStatus

MIB = 2**20
SNAPSHOT_MESSAGE = "Snapshot is being created. This may take 3-10 minutes depending on server size."
BACKUP_MESSAGE = "Backup is being created. This may take 3-10 minutes depending on server size."
RESTORE_MESSAGE = "Server is being restored from {what}. This may take 5-15 minutes."
SHOWN = [BackupStatus.IN_PROGRESS, BackupStatus.COMPLETED, BackupStatus.FAILED]

OF = {"id": 12345, "name": "web-server-01"}
OURS = {
    "uuid": "2932ea8e-a3c7-4333-9489-3fd281cee651",
    "consistent": True,
    "verified_at": "2025-01-16T03:04:10Z",
    "verified_by": "read",
    "minimum_storage": 80,
    "error": None,
}
UNDER_WAY = OURS | {"consistent": None, "verified_at": None, "verified_by": None}
BACKUP = {
    "id": 501,
    "server": OF,
    "backup_type": "automatic",
    "status": "completed",
    "size_mb": 4523,
    "created_at": "2025-01-16T03:00:00Z",
    "expires_at": "2025-02-16T03:00:00Z",
    "description": "Automatic daily backup",
    **OURS,
}
NEW_BACKUP = {
    **BACKUP,
    "backup_type": "manual",
    "status": "in_progress",
    "size_mb": None,
    "expires_at": None,
    "description": "",
    **UNDER_WAY,
    "message": BACKUP_MESSAGE,
}
SNAPSHOT = {
    "id": 801,
    "server": OF,
    "name": "pre-migration-snapshot",
    "status": "completed",
    "size_mb": 5120,
    "created_at": "2025-01-15T18:30:00Z",
    "description": "",
    **OURS,
}
NEW_SNAPSHOT = {
    **SNAPSHOT,
    "id": 802,
    "status": "in_progress",
    "size_mb": None,
    "created_at": "2025-01-16T16:00:00Z",
    **UNDER_WAY,
    "message": SNAPSHOT_MESSAGE,
}
RESTORING = {
    "status": "success",
    "message": RESTORE_MESSAGE.format(what="snapshot"),
    "snapshot": {"id": 801, "name": "pre-migration-snapshot", "created_at": "2025-01-15T18:30:00Z"},
    "server": OF | {"status": "restoring"},
}
RESTORING_BACKUP = {
    "status": "success",
    "message": RESTORE_MESSAGE.format(what="backup"),
    "backup": {"id": 501, "created_at": "2025-01-16T03:00:00Z"},
    "server": OF | {"status": "restoring"},
}


class ServerOfBackup(Answer):
    id: Id
    name: str


class BackupError(Answer):
    code: str
    message: str


BackupState = Annotated[str, words(SHOWN)]
SizeMb = Annotated[int | None, about("Of the disk, without what is empty. Null until it is complete.")]
Consistent = Annotated[
    bool | None,
    about(
        "Whether the file systems were at rest at that moment: the server was off, or its guest agent held "
        "them still. If not, a restore is like a start after a power cut."
    ),
]
VerifiedBy = Annotated[
    Verified | None,
    about("`read`: all of it was read back from the store. `booted`: a machine was started from it, too."),
]
VerifiedAt = Annotated[Moment | None, about("When it was last found whole.")]
MinimumStorage = Annotated[int, about("GB that a server needs to be made from it.")]


@example("A backup", BACKUP)
class Backup(Answer):
    id: Id
    server: ServerOfBackup
    backup_type: Annotated[str, words([BackupKind.AUTOMATIC, BackupKind.MANUAL])]
    status: BackupState
    size_mb: SizeMb
    created_at: Moment
    expires_at: Annotated[Moment | None, about("When it is removed by itself. Null: never.")]
    description: str
    uuid: Uuid
    consistent: Consistent
    verified_at: VerifiedAt
    verified_by: VerifiedBy
    minimum_storage: MinimumStorage
    error: BackupError | None


@example("A new backup", NEW_BACKUP, status=201)
class CreatedBackup(Backup):
    message: str


@example("A snapshot", SNAPSHOT)
class Snapshot(Answer):
    id: Id
    server: ServerOfBackup
    name: str
    status: BackupState
    size_mb: SizeMb
    created_at: Moment
    description: str
    uuid: Uuid
    consistent: Consistent
    verified_at: VerifiedAt
    verified_by: VerifiedBy
    minimum_storage: MinimumStorage
    error: BackupError | None


@example("A new snapshot", NEW_SNAPSHOT, status=201)
class CreatedSnapshot(Snapshot):
    message: str


class RestoredSnapshot(Answer):
    id: Id
    name: str
    created_at: Moment


class RestoredBackup(Answer):
    id: Id
    created_at: Moment


@example("On its way", RESTORING)
class RestoreOfSnapshot(Answer):
    status: Literal["success"]
    message: str
    snapshot: RestoredSnapshot
    server: ServerOfAction


@example("On its way", RESTORING_BACKUP)
class RestoreOfBackup(Answer):
    status: Literal["success"]
    message: str
    backup: RestoredBackup
    server: ServerOfAction


def backup(row: BackupRow) -> Backup:
    return Backup(**_beginning(row), **_backup(row), **_end(row))


def created_backup(row: BackupRow) -> CreatedBackup:
    return CreatedBackup(**_beginning(row), **_backup(row), **_end(row), message=BACKUP_MESSAGE)


def snapshot(row: BackupRow) -> Snapshot:
    return Snapshot(**_beginning(row), name=row.name, **_end(row))


def created_snapshot(row: BackupRow) -> CreatedSnapshot:
    return CreatedSnapshot(**_beginning(row), name=row.name, **_end(row), message=SNAPSHOT_MESSAGE)


def restore(row: BackupRow, server: ServerModel) -> RestoreOfSnapshot | RestoreOfBackup:
    restoring = ServerOfAction(id=server.pk, name=server.name, status=ServerStatus.RESTORING)
    if row.kind == BackupKind.SNAPSHOT:
        return RestoreOfSnapshot(
            status="success",
            message=RESTORE_MESSAGE.format(what="snapshot"),
            snapshot=RestoredSnapshot(id=row.pk, name=row.name, created_at=utc(row.created_at)),
            server=restoring,
        )
    return RestoreOfBackup(
        status="success",
        message=RESTORE_MESSAGE.format(what="backup"),
        backup=RestoredBackup(id=row.pk, created_at=utc(row.created_at)),
        server=restoring,
    )


def _beginning(row: BackupRow) -> dict[str, Any]:
    size_mb = None if row.size_bytes is None else -(-row.size_bytes // MIB)
    return {
        "id": row.pk,
        "server": ServerOfBackup(id=row.server_id, name=row.server_name),
        "status": row.status,
        "size_mb": size_mb,
        "created_at": utc(row.created_at),
        "description": row.description,
    }


def _backup(row: BackupRow) -> dict[str, Any]:
    return {"backup_type": row.kind, "expires_at": utc_or_none(row.expires_at)}


def _end(row: BackupRow) -> dict[str, Any]:
    return {
        "uuid": str(row.uuid),
        "consistent": row.is_consistent,
        "verified_at": utc_or_none(row.verified_at),
        "verified_by": Verified(row.verified_by) if row.verified_by else None,
        "minimum_storage": row.disk_gib,
        "error": BackupError(code=row.error_code, message=row.message) if row.error_code else None,
    }
