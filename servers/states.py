"""The statuses of a server, and which operation may be ordered in which status.

Pure tables: no models, no Django.  ``RULES`` is the validator, the test matrix
and the documentation at once.  A new kind of operation needs a row here, a type of
wish in ``servers.wishes`` and a workflow in ``provisioning.workflows``; tests hold the
three together.
"""

from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple

from backups.kinds import BackupStatus, Verified


class ServerStatus(StrEnum):
    """What the customer was promised; the provider's words first, then ours."""

    PROVISIONING = "provisioning"
    ACTIVE = "active"
    STOPPED = "stopped"
    SUSPENDED = "suspended"
    STARTING = "starting"
    STOPPING = "stopping"
    REBOOTING = "rebooting"
    RESIZING = "resizing"
    REBUILDING = "rebuilding"
    RESTORING = "restoring"
    SUSPENDING = "suspending"
    UNSUSPENDING = "unsuspending"
    ERROR = "error"
    DELETING = "deleting"
    DELETED = "deleted"


class PowerState(StrEnum):
    """What the hypervisor last reported; ``unknown`` while it cannot be reached."""

    RUNNING = "running"
    PAUSED = "paused"
    OFF = "off"
    UNKNOWN = "unknown"


class OperationKind(StrEnum):
    CREATE = "create"
    START = "start"
    STOP = "stop"
    HARD_STOP = "hard_stop"
    REBOOT = "reboot"
    RESIZE = "resize"
    REBUILD = "rebuild"
    RESTORE = "restore"
    SUSPEND = "suspend"
    UNSUSPEND = "unsuspend"
    DELETE = "delete"


class HostOperationKind(StrEnum):
    """Operations about a hypervisor.  They change no server's status."""

    CHECK = "check"  # record its capabilities, capacity and faults now


class BackupOperationKind(StrEnum):
    """Operations about a backup.  They change no server's status, and a server's operations never wait."""

    TAKE = "take_backup"
    VERIFY = "verify_backup"  # read all of it again
    BOOT = "boot_backup"  # start a trial machine from it
    REMOVE = "remove_backup"


class SuspensionReason(StrEnum):
    """Why a server is suspended.  A top-up brings back what billing suspended, and nothing else."""

    BILLING = "billing"
    ABUSE = "abuse"


class OperationStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN_OPERATION = frozenset({OperationStatus.QUEUED, OperationStatus.RUNNING})


class Rule(NamedTuple):
    """One row of the table: the life of one kind of operation.

    ``succeeds_in`` None means: as before; for an unsuspend, as before the suspension.
    ``fails_in`` None means: what the host says then, see ``status_after_failure``.
    ``deadline`` None means: tried again until it is done.
    """

    allowed_in: frozenset[ServerStatus]
    shows: ServerStatus
    succeeds_in: ServerStatus | None
    fails_in: ServerStatus | None
    deadline: timedelta | None


S, K = ServerStatus, OperationKind
GONE = {S.DELETING, S.DELETED}
CHANGEABLE = {S.ACTIVE, S.STOPPED}
AT_REST = CHANGEABLE | {S.SUSPENDED}  # no operation is open, and the power on the host should agree

RULES: dict[OperationKind, Rule] = {
    #                 may be asked for in       shows           then         on failure  within
    K.CREATE:    Rule(frozenset(),              S.PROVISIONING, S.ACTIVE,    S.ERROR, timedelta(minutes=30)),
    K.START:     Rule(frozenset({S.STOPPED}),   S.STARTING,     S.ACTIVE,    None,    timedelta(minutes=15)),
    K.STOP:      Rule(frozenset({S.ACTIVE}),    S.STOPPING,     S.STOPPED,   None,    timedelta(minutes=15)),
    K.HARD_STOP: Rule(frozenset({S.ACTIVE}),    S.STOPPING,     S.STOPPED,   None,    timedelta(minutes=15)),
    K.REBOOT:    Rule(frozenset({S.ACTIVE}),    S.REBOOTING,    S.ACTIVE,    None,    timedelta(minutes=20)),
    K.RESIZE:    Rule(frozenset(CHANGEABLE),    S.RESIZING,     None,        None,    timedelta(minutes=30)),
    K.REBUILD:   Rule(frozenset(CHANGEABLE),    S.REBUILDING,   S.ACTIVE,    None,    timedelta(minutes=30)),
    K.RESTORE:   Rule(frozenset(CHANGEABLE),    S.RESTORING,    None,        None,    timedelta(hours=6)),
    K.SUSPEND:   Rule(frozenset(CHANGEABLE),    S.SUSPENDING,   S.SUSPENDED, None,    timedelta(minutes=15)),
    K.UNSUSPEND: Rule(frozenset({S.SUSPENDED}), S.UNSUSPENDING, None,        None,    timedelta(minutes=15)),
    K.DELETE:    Rule(frozenset(S) - GONE,      S.DELETING,     S.DELETED,   None,    None),
}  # fmt: skip


class BackupRule(NamedTuple):
    """The life of one kind of operation about a backup.

    ``fails_in`` and ``deadline`` None mean: tried again until it is done.  ``proves``: it changes no status,
    and a success shows that the backup is whole.
    """

    succeeds_in: BackupStatus
    fails_in: BackupStatus | None
    deadline: timedelta | None
    proves: Verified | None = None


BACKUP_RULES: dict[BackupOperationKind, BackupRule] = {
    BackupOperationKind.TAKE: BackupRule(BackupStatus.COMPLETED, BackupStatus.FAILED, timedelta(hours=12)),
    BackupOperationKind.VERIFY: BackupRule(
        BackupStatus.COMPLETED, BackupStatus.COMPLETED, timedelta(hours=12), Verified.READ
    ),
    BackupOperationKind.BOOT: BackupRule(
        BackupStatus.COMPLETED, BackupStatus.COMPLETED, timedelta(hours=12), Verified.BOOTED
    ),
    BackupOperationKind.REMOVE: BackupRule(BackupStatus.DELETED, None, None),
}

HOST_DEADLINES: dict[HostOperationKind, timedelta] = {HostOperationKind.CHECK: timedelta(minutes=5)}

# What costs nothing: not there yet or any more, or withheld from its owner.
FREE_STATUSES = {S.PROVISIONING, S.ERROR, S.SUSPENDED, S.UNSUSPENDING, *GONE}

STATUS_OF_POWER = {PowerState.RUNNING: S.ACTIVE, PowerState.PAUSED: S.ACTIVE, PowerState.OFF: S.STOPPED}


def status_after_failure(kind: OperationKind, before: ServerStatus, power: PowerState) -> ServerStatus:
    """The status of a server after a failed operation, from its status before and the power on its host.

    Running is active and off is stopped; a suspended server that is off stays suspended,
    so that somebody unsuspends it.  While the power is unknown, the status before stays.
    """
    if fails_in := RULES[kind].fails_in:
        return fails_in
    told = STATUS_OF_POWER.get(power, before)
    return before if (before, told) == (S.SUSPENDED, S.STOPPED) else told


# What a customer may see and filter by: a server being deleted is gone.
PUBLIC_STATUSES = [status for status in S if status not in GONE]


def refusal(kind: OperationKind, status: ServerStatus, power: PowerState) -> tuple[str, str]:
    """The code and the sentence that refuse an operation in this status, and with this power."""
    if status == S.SUSPENDED:
        return "suspended", "This server is suspended. Top up your credits or ask support."
    if status == S.ERROR:
        return "server_in_error", "This server could not be made. Delete it and create another."
    if kind == K.START and status == S.ACTIVE and power == PowerState.PAUSED:
        return "paused", (
            "This server is paused: its host has no room for what it writes, or is being worked on. "
            "It goes on by itself."
        )
    if kind == K.START and status == S.ACTIVE:
        return "already_running", "This server is already running."
    if kind in {K.STOP, K.HARD_STOP, K.REBOOT} and status == S.STOPPED:
        return "not_running", "This server is not running. Start it first."
    return "not_allowed_now", f"Cannot {kind} a server that is {status}."
