"""The findings of verify, each with a stable code.  docs/verify.md has the remedies."""

from enum import auto

from core.findings import FindingCode, Severity


class Code(FindingCode):
    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:
        return name

    HOST_UNREACHABLE = auto()
    HOST_WRONG = auto()
    HOST_MISCONFIGURED = auto()
    HOST_NOT_VERIFIED = auto()
    HOST_NOT_SEEN = auto()
    HOST_DISABLED = auto()
    HOST_COUNTERS = auto()
    HOST_DOMAIN_TYPE = auto()
    HOST_MEMORY_OVERSOLD = auto()
    HOST_DISK_OVERSOLD = auto()
    HOST_DISK_NEARLY_FULL = auto()
    HOST_NOT_SAMPLED = auto()

    MACHINE_ORPHAN = auto()
    MACHINE_ON_WRONG_HOST = auto()
    MACHINE_COPY = auto()
    MACHINE_SAME_MAC = auto()
    MACHINE_SAME_ADDRESS = auto()
    VOLUME_ORPHAN = auto()
    VOLUME_FOREIGN = auto()

    SERVER_MACHINE_MISSING = auto()
    SERVER_DISK_MISSING = auto()
    SERVER_SPARE_DISK = auto()
    SERVER_IMAGE_MISSING = auto()
    SERVER_SEED_MISSING = auto()
    SERVER_UNREADABLE = auto()
    SERVER_CHANGED = auto()
    SERVER_VCPUS = auto()
    SERVER_MEMORY = auto()
    SERVER_MAC = auto()
    SERVER_UNFILTERED = auto()
    SERVER_OFF_NETWORK = auto()
    SERVER_ADDRESSES = auto()
    SERVER_POWER = auto()
    SERVER_PAUSED = auto()
    SERVER_RUNS_SUSPENDED = auto()
    SERVER_KEEPS_DYING = auto()
    SERVER_STUCK = auto()
    SERVER_UNPLACED = auto()
    SERVER_WITHOUT_PORT = auto()
    SERVER_LOCATION = auto()
    SERVER_SIZE = auto()
    SERVER_REPORTED_ADDRESS = auto()

    OPERATION_STATUS = auto()
    OPERATION_OVERDUE = auto()
    OPERATION_ABANDONED = auto()
    OPERATION_FORGOTTEN = auto()
    OPERATION_DELETE_STUCK = auto()

    PLACEMENT_UNUSED = auto()
    PLACEMENT_OF_DELETED = auto()
    PLACEMENT_OF_FAILED = auto()
    PORT_UNUSED = auto()
    PORT_WITHOUT_ADDRESS = auto()
    ADDRESS_LOCATION = auto()
    ADDRESSES_NEARLY_GONE = auto()
    BACKUP_MISSED = auto()
    BACKUP_DAMAGED = auto()
    BACKUP_UNVERIFIED = auto()
    BACKUP_CHECKPOINT_UNKNOWN = auto()
    BACKUP_SCRATCH_LEFT = auto()
    GUEST_FROZEN = auto()
    IMAGE_MISSING = auto()
    IMAGE_UNKNOWN = auto()

    @property
    def severity(self) -> Severity:
        return Severity.WARNING if self in WARNINGS else Severity.ERROR


WARNINGS = frozenset(
    {
        Code.HOST_NOT_SEEN,
        Code.HOST_DISABLED,
        Code.HOST_DOMAIN_TYPE,
        Code.HOST_MEMORY_OVERSOLD,
        Code.HOST_DISK_OVERSOLD,
        Code.HOST_NOT_SAMPLED,
        Code.MACHINE_COPY,
        Code.VOLUME_FOREIGN,
        Code.SERVER_SPARE_DISK,
        Code.SERVER_SEED_MISSING,
        Code.SERVER_POWER,
        Code.SERVER_SIZE,
        Code.SERVER_REPORTED_ADDRESS,
        Code.PLACEMENT_OF_FAILED,
        Code.ADDRESSES_NEARLY_GONE,
        Code.BACKUP_UNVERIFIED,
        Code.BACKUP_CHECKPOINT_UNKNOWN,
        Code.BACKUP_SCRATCH_LEFT,
        Code.IMAGE_UNKNOWN,
    }
)
