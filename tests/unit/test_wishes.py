"""What an operation may be asked for: typed for each kind, and kept as JSON."""

from decimal import Decimal
from typing import Any

import orjson
import pytest

from images.models import Image
from plans.models import OsVersion, Plan
from provisioning.workflows import WORKFLOWS
from servers.prices import USAGE
from servers.states import (
    BACKUP_RULES,
    HOST_DEADLINES,
    BackupOperationKind,
    HostOperationKind,
    OperationKind,
)
from servers.wishes import (
    WISHES,
    ComponentPrice,
    CreateWish,
    Kind,
    RebuildWish,
    ResizeWish,
    RestoreWish,
    Wish,
    WishInvalid,
    column_of,
    rebuild_with,
    resize_to,
    wish_of,
)

K = OperationKind
EVERY_KIND: list[Kind] = [*OperationKind, *HostOperationKind, *BackupOperationKind]
PLAN = Plan(
    pk=7,
    vcpus=2,
    memory_mib=4096,
    disk_gib=80,
    speed_mbps=1000,
    price_hourly=Decimal("0.0140"),
    price_monthly=Decimal("10.00"),
)
SOUND: dict[type[Wish], Wish] = {
    Wish: Wish(),
    ResizeWish: resize_to(PLAN),
    RebuildWish: rebuild_with(OsVersion(pk=5, image=Image(pk=6)), disk_number=2),
    CreateWish: CreateWish(backup_id=7),
    RestoreWish: RestoreWish(backup_id=7, disk_number=2),
}

each_kind = pytest.mark.parametrize("kind", EVERY_KIND)


@each_kind
def test_every_kind_has_its_type_of_wish_and_its_workflow(kind: Kind) -> None:
    assert kind in WISHES
    assert kind in WORKFLOWS


@pytest.mark.parametrize("kind", HostOperationKind)
def test_every_kind_about_a_host_ends_at_last(kind: HostOperationKind) -> None:
    assert kind in HOST_DEADLINES


@pytest.mark.parametrize("kind", BackupOperationKind)
def test_every_kind_about_a_backup_has_its_rule(kind: BackupOperationKind) -> None:
    assert kind in BACKUP_RULES


def test_no_word_means_one_thing_to_a_server_and_another_to_a_host() -> None:
    assert len({kind.value for kind in EVERY_KIND}) == len(EVERY_KIND)


@each_kind
def test_a_wish_is_read_as_it_was_written(kind: Kind) -> None:
    wish = SOUND[WISHES[kind]]
    assert wish_of(kind, orjson.loads(orjson.dumps(column_of(kind, wish)))) == wish


@each_kind
def test_a_wish_of_another_kind_is_refused(kind: Kind) -> None:
    """Guard: ``wish_of`` in ``column_of``: a resize without a plan must not be opened."""
    for other, wish in SOUND.items():
        if other is not WISHES[kind]:
            with pytest.raises(WishInvalid):
                column_of(kind, wish)


@each_kind
def test_a_wish_with_a_word_that_is_unknown_is_refused(kind: Kind) -> None:
    """Guard: ``forbid_unknown_fields`` of Wish."""
    column = column_of(kind, SOUND[WISHES[kind]])
    with pytest.raises(WishInvalid):
        wish_of(kind, column | {"colour": "red"})


@each_kind
def test_a_wish_that_lacks_a_word_is_refused(kind: Kind) -> None:
    column = column_of(kind, SOUND[WISHES[kind]])
    for word in column:
        with pytest.raises(WishInvalid):
            wish_of(kind, {name: value for name, value in column.items() if name != word})


@pytest.mark.parametrize(
    "wrong",
    [
        {"plan_id": "7"},
        {"plan_id": None},
        {"memory_mib": 0},
        {"vcpus": -1},
        {"disk_gib": 1.5},
        {"prices": {}},
        {"prices": {"backups": {"hourly": "1", "monthly": "1"}}},
        {"prices": {USAGE: {"hourly": "-1", "monthly": "1"}}},
        {"prices": {USAGE: {"hourly": "NaN", "monthly": "1"}}},
        {"prices": {USAGE: {"hourly": "1"}}},
        {"prices": {USAGE: {"hourly": "1", "monthly": "1", "daily": "1"}}},
    ],
)
def test_a_resize_to_nothing_sound_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(WishInvalid):
        wish_of(K.RESIZE, column_of(K.RESIZE, resize_to(PLAN)) | wrong)


def test_a_wish_that_could_not_be_read_again_is_refused_when_it_is_written() -> None:
    """Guard: ``wish_of`` in ``column_of``: constructors check no types."""
    wrong: Any = "seven"
    with pytest.raises(WishInvalid):
        column_of(K.REBUILD, RebuildWish(os_version_id=wrong, image_id=6, disk_number=2))


def test_prices_are_kept_to_the_last_decimal() -> None:
    price = ComponentPrice(hourly=Decimal("0.0140"), monthly=Decimal("10.00"))
    kept = column_of(K.RESIZE, resize_to(PLAN))
    assert kept["prices"] == {USAGE: {"hourly": "0.0140", "monthly": "10.00"}}
    read = wish_of(K.RESIZE, kept)
    assert isinstance(read, ResizeWish)
    assert read.prices == {USAGE: price}
