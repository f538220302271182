"""What deaths alone do not show: wrong clocks, frozen processes, a Redis that hangs, full pools.

The worker's clock jumps forwards and backwards.  A process stops in the middle of its work and goes on
when its lease is over.  Redis accepts connections and does not answer.  Somebody copies files into a pool,
or fills one.

Guard: Postgres's clock for all that two processes compare; the fence; the short budget for messages; names of
files that are matched whole; a full pool that is told from a damaged image.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from core.errors import Refusal
from deploy.local.libvirtd import Libvirtd
from deploy.local.processes import as_root
from inventory.models import Hypervisor
from servers.models import Server
from tests.chaos.conftest import LEASE_S, Plant, await_end
from tests.chaos.luck import TRIALS
from tests.chaos.test_random_moments import ask_something
from tests.chaos.truth import assert_all_is_true
from tests.chaos.wrong_clock import WrongClock
from tests.factories import AccountFactory, PlanFactory
from tests.flows.conftest import full
from tests.private_services import REDIS

MOMENTS = max(6, TRIALS // 3)
WRONG_BY_S = (-400, -65, 0, 65, 150, 400, 3600)

pytestmark = pytest.mark.timeout(300 + 10 * MOMENTS)


@pytest.fixture
def environment(environment: dict[str, str], wrong_clock: WrongClock) -> dict[str, str]:
    return environment | wrong_clock.environment


@pytest.fixture
def foreign(libvirtd: Libvirtd) -> Iterator[list[bytes]]:
    """Paths of files that the test copies into the pool; removed afterwards."""
    paths: list[bytes] = []
    yield paths
    if paths:
        subprocess.run([*as_root("rm", "-f"), *paths], check=True)


def test_whatever_is_odd_everything_ends_true(
    plant: Plant,
    order: Callable[..., Server],
    luck: random.Random,
    libvirtd: Libvirtd,
    small_libvirtd: Libvirtd,
    small: Hypervisor,
    foreign: list[bytes],
    wrong_clock: WrongClock,
) -> None:
    account = AccountFactory.create(credits=1_000_000)
    plans = [
        order(account=account).plan,
        PlanFactory.create(slug="bigger", vcpus=2, memory_mib=192, disk_gib=1),
    ]
    locations = [small.location, order(account=account).location]
    pool = os.fsencode(libvirtd.folder / "pool")

    def create() -> None:
        with suppress(Refusal):
            order(account=account, location=luck.choice(locations))

    def set_clock() -> None:
        wrong_clock.set(luck.choice(WRONG_BY_S))

    def freeze_process() -> None:
        if pid := plant.one_of_its_processes(luck):
            with frozen(pid):
                time.sleep(LEASE_S + luck.uniform(0.5, 2))

    def hang_redis() -> None:
        assert REDIS.pid
        with frozen(REDIS.pid):
            time.sleep(luck.uniform(0.5, 2))

    def copy_into_pool() -> None:
        names = [b"caf\xe9-%d.qcow2" % len(foreign)]
        names += [f"{server.uuid}.qcow2.before-repair".encode() for server in Server.objects.all()[:2]]
        foreign.extend(pool + b"/" + name for name in names)
        subprocess.run([*as_root("touch"), *foreign], check=True)

    def fill_pool() -> None:
        with full(small_libvirtd):
            time.sleep(luck.uniform(0.5, 2))

    oddities = [set_clock, freeze_process, hang_redis, copy_into_pool, fill_pool]
    luck.shuffle(oddities)
    for moment in range(MOMENTS):
        for _ in range(3):
            ask_something(luck, plans, create)
        time.sleep(luck.uniform(0.05, 0.5))
        oddities[moment % len(oddities)]()
    await_end(plant)
    kept = subprocess.run([*as_root("ls"), pool], stdout=subprocess.PIPE, check=True).stdout.splitlines()
    assert {path.rpartition(b"/")[2] for path in foreign} <= set(kept), "a file that is not ours was removed"
    assert_all_is_true()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that does nothing meanwhile, and does not know it afterwards."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
