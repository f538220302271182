"""Workers die at random moments while customers ask for this and that: make chaos, for as long as you like.

Guard: the lease, the fence and the repeatable steps, all of them; take ``attempt=operation.attempt`` out of
lifecycle._fenced, or the look for what is there already out of libvirt_disks.create_disk.
"""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from backups.kinds import BackupKind
from backups.models import Backup
from core.errors import Refusal
from plans.models import Plan
from servers import backup_services, services
from servers.models import Server
from servers.states import GONE, SuspensionReason
from tests.chaos.conftest import Plant, await_end, boot
from tests.chaos.luck import TRIALS
from tests.chaos.truth import assert_all_is_true
from tests.factories import AccountFactory, PlanFactory

pytestmark = pytest.mark.timeout(120 + 10 * TRIALS)

AT_ONCE = 6
EVERY = 10  # so many deaths of one process, then one of the whole worker


def test_whenever_workers_die_everything_ends_true(
    plant: Plant, order: Callable[..., Server], luck: random.Random
) -> None:
    account = AccountFactory.create(credits=1_000_000)
    plans = [
        order(account=account).plan,
        PlanFactory.create(slug="bigger", vcpus=2, memory_mib=192, disk_gib=1),
    ]
    for trial in range(1, TRIALS + 1):
        for _ in range(2):
            ask_something(luck, plans, lambda: order(account=account))
        time.sleep(luck.uniform(0.05, 1.0))
        if trial % EVERY:
            plant.kill_one(luck)
        else:
            plant.kill_worker()
            await_end(plant)
            assert_all_is_true()
    await_end(plant)
    assert_all_is_true()


def ask_something(luck: random.Random, plans: list[Plan], create: Callable[[], object]) -> None:
    """One thing that somebody may ask, of a new server or of one that is there; it may be refused."""
    servers = list(Server.objects.exclude(status__in=GONE).select_related("plan", "os_version"))
    if len(servers) < AT_ONCE:
        create()
        return
    server = luck.choice(servers)
    asks: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (services.start_server, {}),
        (services.stop_server, {}),
        (services.hard_stop_server, {}),
        (services.reboot_server, {}),
        (services.resize_server, {"plan": luck.choice(plans)}),
        (services.rebuild_server, {"os_version": server.os_version}),
        (services.suspend_server, {"reason": SuspensionReason.ABUSE}),
        (services.unsuspend_server, {}),
        (services.delete_server, {}),
        (backup_services.take_backup, {"kind": BackupKind.MANUAL}),
        (backup_services.take_backup, {"kind": BackupKind.SNAPSHOT, "name": "x"}),
        (_of_its_backups(luck, backup_services.restore_backup), {}),
        (_of_its_backups(luck, backup_services.delete_backup), {}),
        (_of_its_backups(luck, boot), {}),
    ]
    service, wanted = luck.choice(asks)
    with suppress(Refusal):
        service(server=server, **wanted)


def _of_its_backups(luck: random.Random, service: Callable[..., Any]) -> Callable[..., Any]:
    """The same of one of a server's backups, if it has any."""

    def ask(server: Server) -> None:
        if there := list(Backup.objects.filter(server_id=server.pk, deleted_at=None)):
            service(backup=luck.choice(there))

    return ask
