"""What an operation should achieve beside its kind: typed here, stored as JSON in ``Operation.wish``.

A wish is frozen when it is ordered: a plan that staff change meanwhile changes neither
the machine nor the price that the customer ordered.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from plans.models import OsVersion, Plan
from servers.prices import USAGE
from servers.states import BackupOperationKind, HostOperationKind, OperationKind

Kind = OperationKind | HostOperationKind | BackupOperationKind


class WishInvalid(ValueError):
    """A wish that its kind does not know, or that says nothing sound: a bug of ours."""


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing beside the kind."""


class ComponentPrice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Credits for an hour, and the most for a calendar month."""

    hourly: Decimal
    monthly: Decimal

    def __post_init__(self) -> None:
        if not all(amount.is_finite() and amount >= 0 for amount in (self.hourly, self.monthly)):
            raise ValueError("a price is 0 or more")


class Size(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a server takes of its host."""

    vcpus: int
    memory_mib: int
    disk_gib: int


class ResizeWish(Wish, frozen=True):
    """The plan to be, as it was when it was ordered; its price by component.

    ``held`` is what the server held until then, for an undo.  None: what its plan says.
    """

    plan_id: int
    vcpus: int
    memory_mib: int
    disk_gib: int
    speed_mbps: int | None
    prices: dict[str, ComponentPrice]
    held: Size | None

    def __post_init__(self) -> None:
        sizes = (self.vcpus, self.memory_mib, self.disk_gib, self.speed_mbps)
        if any(size is not None and size < 1 for size in sizes):
            raise ValueError("each size is 1 or more")
        if USAGE not in self.prices:
            raise ValueError(f"the price of {USAGE} is missing")


class RebuildWish(Wish, frozen=True):
    """The system to be, the image that it had when it was ordered, and the number of the disk to be."""

    os_version_id: int
    image_id: int
    disk_number: int

    def __post_init__(self) -> None:
        if self.disk_number < 2:
            raise ValueError("the first disk is a create's")


class CreateWish(Wish, frozen=True):
    """The backup that the first disk is made from; None: the image of the system."""

    backup_id: int | None


class RestoreWish(Wish, frozen=True):
    """The backup to restore, and the number of the disk to be."""

    backup_id: int
    disk_number: int

    def __post_init__(self) -> None:
        if self.disk_number < 2:
            raise ValueError("the first disk is a create's")


def made_from(wish: Wish) -> int | None:
    """The id of the backup that a wish has a disk made from, if it does."""
    return wish.backup_id if isinstance(wish, CreateWish | RestoreWish) else None


WISHES: dict[Kind, type[Wish]] = {
    OperationKind.CREATE: CreateWish,
    OperationKind.START: Wish,
    OperationKind.STOP: Wish,
    OperationKind.HARD_STOP: Wish,
    OperationKind.REBOOT: Wish,
    OperationKind.RESIZE: ResizeWish,
    OperationKind.REBUILD: RebuildWish,
    OperationKind.RESTORE: RestoreWish,
    OperationKind.SUSPEND: Wish,
    OperationKind.UNSUSPEND: Wish,
    OperationKind.DELETE: Wish,
    HostOperationKind.CHECK: Wish,
    BackupOperationKind.TAKE: Wish,
    BackupOperationKind.VERIFY: Wish,
    BackupOperationKind.BOOT: Wish,
    BackupOperationKind.REMOVE: Wish,
}


def resize_to(plan: Plan, *, held: Size | None = None) -> ResizeWish:
    price = ComponentPrice(hourly=Decimal(plan.price_hourly), monthly=Decimal(plan.price_monthly))
    return ResizeWish(
        plan_id=plan.pk,
        vcpus=plan.vcpus,
        memory_mib=plan.memory_mib,
        disk_gib=plan.disk_gib,
        speed_mbps=plan.speed_mbps,
        prices={USAGE: price},
        held=held,
    )


def rebuild_with(os_version: OsVersion, *, disk_number: int) -> RebuildWish:
    image = os_version.image_to_start_from
    return RebuildWish(os_version_id=os_version.pk, image_id=image.pk, disk_number=disk_number)


def column_of(kind: Kind, wish: Wish) -> dict[str, Any]:
    """What ``Operation.wish`` keeps.  Raises WishInvalid for a wish that is not of this kind."""
    column: dict[str, Any] = msgspec.to_builtins(wish)
    if wish_of(kind, column) != wish:
        raise WishInvalid(f"{wish!r} is no wish of a {kind}")
    return column


def wish_of(kind: Kind, column: Mapping[str, Any]) -> Wish:
    """The wish that ``Operation.wish`` keeps.  Raises WishInvalid for anything else."""
    try:
        return msgspec.convert(column, WISHES[kind])
    except (msgspec.ValidationError, ValueError) as error:
        raise WishInvalid(f"{column!r} is no wish of a {kind}: {error}") from None
