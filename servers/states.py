"""Which words a server's state is told in, and what may be asked of it when.

Pure tables: no models, no Django.  ``RULES`` is the validator, the test matrix
and the documentation at once.  Whoever adds a kind of operation adds a row here
and a workflow in ``provisioning.workflows``; tests hold the two together.
"""

from enum import StrEnum
from typing import NamedTuple


class ServerStatus(StrEnum):
    """What the customer was promised; the provider's words, then ours."""

    PROVISIONING = "provisioning"
    ACTIVE = "active"
    STOPPED = "stopped"
    SUSPENDED = "suspended"
    STARTING = "starting"
    STOPPING = "stopping"
    REBOOTING = "rebooting"
    ERROR = "error"
    DELETING = "deleting"
    DELETED = "deleted"


class PowerState(StrEnum):
    """What the hypervisor last said.  A host that cannot be asked says nothing: ``unknown``."""

    RUNNING = "running"
    PAUSED = "paused"
    OFF = "off"
    UNKNOWN = "unknown"


class OperationKind(StrEnum):
    CREATE = "create"
    START = "start"
    STOP = "stop"
    REBOOT = "reboot"
    DELETE = "delete"


class OperationStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN_OPERATION = frozenset({OperationStatus.QUEUED, OperationStatus.RUNNING})
