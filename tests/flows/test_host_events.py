"""Events: what happens on a host is followed within seconds, without reconcile."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

import pytest
from django.db import connection

from deploy.local.folder import PROJECT
from inventory.models import Hypervisor
from provisioning import host_events, hypervisors, reconcile
from provisioning.drivers.base import HypervisorError
from provisioning.host_events import HostEvents
from servers import services
from servers.models import Operation, Server
from servers.states import OperationKind, PowerState, ServerStatus
from tests.contract.wire import Wire
from tests.factories import HypervisorFactory
from tests.flows.conftest import finish
from tests.flows.test_reconcile import kill_qemu
from tests.private_services import POSTGRES

HOLD_BACK_S = 1.0
PATIENCE_S = 15


@contextmanager
def listening(*locations: str, hold_back_s: float = HOLD_BACK_S) -> Iterator[None]:
    over = Event()
    thread = Thread(target=HostEvents(locations, hold_back_s=hold_back_s).run, args=[over])
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> Callable[[str, int], None]:
    """Wait until the log says so that many times."""
    caplog.set_level("INFO")

    def wait(text: str, times: int = 1) -> None:
        until(lambda: caplog.text.count(text) >= times)

    return wait


Heard = Callable[..., None]


def until(question: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not question():
        assert time.monotonic() < give_up_at, "it did not come true in time"
        time.sleep(0.1)


def becomes(server: Server, status: ServerStatus) -> None:
    def is_so() -> bool:
        server.refresh_from_db()
        return server.status == status

    until(is_so)


def test_a_server_that_was_switched_off_on_its_host_is_stopped(active: Server, heard: Heard) -> None:
    with listening():
        heard("listening to")
        hypervisors.driver_of(active).power_off(active.uuid)
        becomes(active, ServerStatus.STOPPED)
    assert active.power_state == PowerState.OFF
    assert not Operation.objects.filter(kind=OperationKind.START).exists()


def test_a_server_whose_process_died_is_started_again(active: Server, heard: Heard) -> None:
    with listening():
        heard("listening to")
        kill_qemu(active)
        becomes(active, ServerStatus.STARTING)
    assert finish(active).status == ServerStatus.ACTIVE


def test_a_server_that_is_off_for_a_moment_only_is_not_stopped(active: Server, heard: Heard) -> None:
    """Guard: the delay in Pending.note; without it the customer's server is called stopped meanwhile."""
    with listening(hold_back_s=8):
        heard("listening to")
        hypervisors.driver_of(active).power_off(active.uuid)
        time.sleep(0.5)
        active.refresh_from_db()
        assert active.status == ServerStatus.ACTIVE
        hypervisors.driver_of(active).start(active.uuid)
        time.sleep(9)
    before = active.updated_at
    active.refresh_from_db()
    assert (active.status, active.updated_at) == (ServerStatus.ACTIVE, before)


def test_what_a_worker_does_is_left_alone(active: Server, heard: Heard) -> None:
    with listening(hold_back_s=0):
        heard("listening to")
        services.reboot_server(server=active)
        hypervisors.driver_of(active).power_off(active.uuid)
        time.sleep(1.5)
        active.refresh_from_db()
    assert active.status == ServerStatus.REBOOTING


def test_a_host_is_not_asked_about_what_a_worker_does(active: Server, monkeypatch: Any) -> None:
    """Guard: the early return in reconcile_some; else every step of every operation asks once more."""
    services.reboot_server(server=active)
    asked: list[Hypervisor] = []
    monkeypatch.setattr(hypervisors, "driver_for", asked.append)
    reconcile.reconcile_some(hypervisors.home_of(active).hypervisor, [active.uuid])
    assert asked == []


def test_a_host_that_went_away_is_listened_to_again_and_costs_the_others_nothing(
    active: Server, host: Hypervisor, heard: Heard, qemu_uri: str
) -> None:
    nowhere = HypervisorFactory.create(name="nowhere", location=host.location)
    with TemporaryDirectory(prefix="wire") as folder:
        wire = Wire(Path(folder) / "socket", qemu_uri)
        Hypervisor.objects.filter(pk=host.pk).update(uri=wire.uri)
        with listening():
            heard(f"following nowhere ({nowhere.uri})")
            heard(f"listening to {wire.uri}")
            wire.cut()
            heard(f"listening to {wire.uri}", times=2)
            hypervisors.driver_for(host).power_off(active.uuid)
            becomes(active, ServerStatus.STOPPED)
        wire.close()


def test_hosts_come_and_go_as_their_rows_do(host: Hypervisor, heard: Heard, monkeypatch: Any) -> None:
    monkeypatch.setattr(host_events, "REREAD_S", 0.2)
    Hypervisor.objects.filter(pk=host.pk).update(status=Hypervisor.Status.DISABLED)
    with listening("us-west"):
        time.sleep(0.5)
        Hypervisor.objects.filter(pk=host.pk).update(status=Hypervisor.Status.DRAINING)
        heard(f"following {host} ({host.uri})")
        Hypervisor.objects.filter(pk=host.pk).update(status=Hypervisor.Status.DISABLED)
        heard(f"following {host} no longer")


def test_hosts_of_other_locations_are_left_to_others(host: Hypervisor, heard: Heard, caplog: Any) -> None:
    with listening("eu-central"):
        time.sleep(0.5)
    assert "following" not in caplog.text


def test_a_host_that_answers_nonsense_does_not_end_the_listening(
    active: Server, heard: Heard, monkeypatch: Any
) -> None:
    """Guard: ``except Exception`` in HostListener.run."""
    faults: list[Exception] = [HypervisorError("no such thing"), RuntimeError("a bug of ours")]
    real = reconcile.reconcile_some

    def reconcile_some(*args: Any) -> None:
        if faults:
            raise faults.pop(0)
        real(*args)

    monkeypatch.setattr(reconcile, "reconcile_some", reconcile_some)
    with listening(hold_back_s=0):
        for times in (1, 2):
            heard("listening to", times)
            hypervisors.driver_of(active).power_off(active.uuid)
            heard("no such thing" if times == 1 else "a bug of ours")
            hypervisors.driver_of(active).start(active.uuid)
        heard("listening to", 3)
        hypervisors.driver_of(active).power_off(active.uuid)
        becomes(active, ServerStatus.STOPPED)


@contextmanager
def command() -> Iterator[subprocess.Popen[str]]:
    """As make run and docker compose have it: a process of its own, which listens."""
    database = connection.settings_dict["NAME"]
    env = os.environ | {"DATABASE_URL": POSTGRES.url.rpartition("/")[0] + f"/{database}"}
    words = [sys.executable, "manage.py", "host_events", "--location", "us-west", "--hold-back", "1"]
    with subprocess.Popen(words, cwd=PROJECT, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            while "listening to" not in (line := process.stderr.readline()):
                assert line, "it ended"
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> str:
    """What it says until its end after SIGTERM, which comes within seconds."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    assert time.monotonic() - began < 8
    assert process.stderr is not None
    said: str = process.stderr.read()
    return said


def test_the_command_listens_until_sigterm(active: Server, host: Hypervisor) -> None:
    with command() as process:
        hypervisors.driver_of(active).power_off(active.uuid)
        becomes(active, ServerStatus.STOPPED)
        assert f"following {host} no longer" in ended(process)


def test_sigterm_ends_it_also_while_a_host_is_silent(host: Hypervisor, qemu_uri: str) -> None:
    """Guard: the limit of join in HostEvents._stop; libvirt waits 12 seconds for such a host."""
    with TemporaryDirectory(prefix="wire") as folder:
        wire = Wire(Path(folder) / "socket", qemu_uri)
        Hypervisor.objects.filter(pk=host.pk).update(uri=wire.uri)
        with command() as process:
            wire.silence()
            ended(process)
        wire.close()
