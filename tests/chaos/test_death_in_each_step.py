"""A worker dies in each step of each operation, before and after it; another one goes on to the end.

Guard: ``lease_until__lt`` in lifecycle.begin; without it nobody goes on where the dead one stopped.
"""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction

from backups.kinds import BackupKind
from backups.models import Backup
from provisioning.trials import remove_trial
from provisioning.workflows import UNDO_STEPS, WORKFLOWS
from servers import backup_services, services
from servers.models import Operation, Server
from servers.states import BackupOperationKind, OperationKind, OperationStatus, ServerStatus, SuspensionReason
from tests.chaos.conftest import Plant, await_end, boot
from tests.chaos.truth import assert_all_is_true
from tests.factories import PlanFactory

pytestmark = pytest.mark.timeout(400)

K, S = OperationKind, ServerStatus
FIRST: dict[OperationKind | BackupOperationKind, Callable[..., Any]] = {
    K.START: services.hard_stop_server,
    K.UNSUSPEND: services.suspend_server,
}
ENDS = {
    K.CREATE: S.ACTIVE,
    K.STOP: S.STOPPED,
    K.HARD_STOP: S.STOPPED,
    K.SUSPEND: S.SUSPENDED,
    K.DELETE: S.DELETED,
}


def restore(server: Server) -> Operation:
    """Order the server's only backup to be restored."""
    return backup_services.restore_backup(backup=Backup.objects.get(server_id=server.pk))


def take(server: Server) -> Operation:
    backup = backup_services.take_backup(server=server, kind=BackupKind.MANUAL)
    return Operation.objects.get(backup=backup)


def remove(server: Server) -> Operation:
    backup = Backup.objects.get(server_id=server.pk)
    backup_services.delete_backup(backup=backup)
    return Operation.objects.get(backup=backup, kind=BackupOperationKind.REMOVE)


def verify(server: Server) -> Operation:
    return backup_services.verify_backup(backup=Backup.objects.get(server_id=server.pk))


SERVICES: dict[OperationKind | BackupOperationKind, Callable[..., Operation]] = {
    K.RESTORE: restore,
    BackupOperationKind.TAKE: take,
    BackupOperationKind.VERIFY: verify,
    BackupOperationKind.REMOVE: remove,
}
NEED_A_BACKUP = {K.RESTORE, BackupOperationKind.VERIFY, BackupOperationKind.REMOVE}


def wanted(kind: OperationKind | BackupOperationKind) -> dict[str, Any]:
    """What the service needs to know besides."""
    match kind:
        case K.RESIZE:
            return {"plan": PlanFactory.create(slug="bigger", vcpus=2, memory_mib=192, disk_gib=2)}
        case K.REBUILD:
            return {"os_version": Server.objects.latest("pk").os_version}
        case K.SUSPEND:
            return {"reason": SuspensionReason.ABUSE}
    return {}


@pytest.mark.parametrize("kind", [*OperationKind, *SERVICES])
def test_whoever_dies_in_a_step_is_followed_by_another(
    plant: Plant, order: Callable[[], Server], kind: OperationKind | BackupOperationKind
) -> None:
    deaths = [(step.__name__, when) for step in WORKFLOWS[kind] for when in ("before", "after")]
    operations = []
    if kind != K.CREATE:
        servers = [order() for _ in deaths]
        await_end(plant)
        if kind in FIRST:
            ask(servers, FIRST[kind], **wanted(K.SUSPEND if kind == K.UNSUSPEND else kind))
            await_end(plant)
        if kind in NEED_A_BACKUP:
            ask(servers, take)
            await_end(plant)
    with transaction.atomic():  # no worker sees an operation before its death is ordered
        if kind == K.CREATE:
            operations = [order().operations.get() for _ in deaths]
        else:
            service = SERVICES.get(kind) or getattr(services, f"{kind}_server")
            operations = ask(servers, service, **wanted(kind))
        for operation, (step, when) in zip(operations, deaths, strict=True):
            plant.order_death(operation, step, when)
    await_all_deaths(plant)
    for operation in operations:
        operation.refresh_from_db()
        assert (operation.status, operation.attempt >= 2) == (OperationStatus.SUCCEEDED, True)
    assert set(Server.objects.values_list("status", flat=True)) == {_ends_in(kind)}
    assert_all_is_true()


def test_whoever_dies_at_a_trial_of_a_backup_is_followed_by_another(
    plant: Plant, order: Callable[[], Server]
) -> None:
    steps = [step.__name__ for step in WORKFLOWS[BackupOperationKind.BOOT] if step is not remove_trial]
    places = [*steps, *(f"undo-{step.__name__}" for step in UNDO_STEPS[BackupOperationKind.BOOT])]
    deaths = [(place, when) for place in places for when in ("before", "after")]
    deaths.remove(("await_trial", "after"))  # it never ends well: nothing boots
    servers = [order() for _ in deaths]
    await_end(plant)
    ask(servers, take)
    await_end(plant)
    with transaction.atomic():
        operations = [boot(Backup.objects.get(server_id=server.pk)) for server in servers]
        for operation, (place, when) in zip(operations, deaths, strict=True):
            plant.order_death(operation, place, when)
    await_all_deaths(plant)
    for operation in operations:
        operation.refresh_from_db()
        assert (operation.status, operation.error_code) == (OperationStatus.FAILED, "did_not_boot")
        assert (operation.attempt >= 2, operation.trial_room) == (True, None)
    assert_all_is_true()


def await_all_deaths(plant: Plant) -> None:
    await_end(plant)
    assert plant.deaths_to_come() == [], "somebody was spared: the step was never reached"


def _ends_in(kind: OperationKind | BackupOperationKind) -> ServerStatus:
    return ENDS.get(kind, S.ACTIVE) if isinstance(kind, OperationKind) else S.ACTIVE


@pytest.mark.parametrize(
    ("kind", "failing", "ends_in"),
    [
        (K.CREATE, "power_on", S.ERROR),
        (K.REBOOT, "write_seed", S.ACTIVE),
        (K.RESIZE, "grow_disk", S.ACTIVE),
        (K.REBUILD, "await_guest", S.ACTIVE),
        (K.RESTORE, "await_guest_again", S.ACTIVE),
    ],
)
def test_whoever_dies_while_a_failure_is_undone_is_followed_by_another(
    plant: Plant, order: Callable[[], Server], kind: OperationKind, failing: str, ends_in: ServerStatus
) -> None:
    """Guard: ``step=UNDO`` in lifecycle.give_up; without it the heir begins the operation anew."""
    deaths = [(f"undo-{step.__name__}", when) for step in UNDO_STEPS[kind] for when in ("before", "after")]
    servers = [order() for _ in deaths] if kind != K.CREATE else []
    await_end(plant)
    if kind in NEED_A_BACKUP:
        ask(servers, take)
        await_end(plant)
    with transaction.atomic():
        operations = (
            ask(servers, SERVICES.get(kind) or getattr(services, f"{kind}_server"), **wanted(kind))
            if servers
            else [order().operations.get() for _ in deaths]
        )
        for operation, (step, when) in zip(operations, deaths, strict=True):
            plant.order_death(operation, failing, "fail")
            plant.order_death(operation, step, when)
    await_all_deaths(plant)
    for operation in operations:
        operation.refresh_from_db()
        assert (operation.status, operation.error_code) == (OperationStatus.FAILED, "host_misconfigured")
    assert set(Server.objects.values_list("status", flat=True)) == {ends_in}
    assert_all_is_true()


def ask(servers: list[Server], service: Callable[..., Any], **wanted: Any) -> list[Operation]:
    return [service(server=Server.objects.get(pk=server.pk), **wanted) for server in servers]
