"""A host that hangs, or is gone, costs its callers seconds.  What it has is then unknown, not off."""

import gc
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import libvirt
import pytest

from core.backoff import Backoff
from deploy.local.libvirtd import Libvirtd
from provisioning.drivers import libvirt_connection
from provisioning.drivers.base import HostBusy, HostUnreachable, MachineNotFound
from provisioning.drivers.libvirt import LibvirtDriver
from tests.contract.labs import Lab
from tests.contract.wire import Wire
from tests.daemons import hanging

BOUND_S = 15


@contextmanager
def taking_at_most(limit_s: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < limit_s


def test_a_host_where_nobody_listens_is_unreachable(qemu_lab: Lab, tmp_path: Path) -> None:
    driver = qemu_lab.new_driver(f"qemu+unix:///system?socket={tmp_path}/nobody")
    with taking_at_most(1), pytest.raises(HostUnreachable):
        driver.powers()


def test_a_libvirtd_that_hangs_is_given_up(qemu_lab: Lab, libvirtd: Libvirtd) -> None:
    """Guard: setKeepAlive in libvirt_connection.py; without it this takes as long as a call may."""
    driver = qemu_lab.new_driver()
    driver.powers()
    with hanging(libvirtd), taking_at_most(BOUND_S), pytest.raises(HostUnreachable):
        driver.powers()
    driver.powers()


def test_a_host_that_never_answers_a_new_connection_is_given_up(
    qemu_lab: Lab, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: the limit of opening, since keepalive has not begun by then.  All who wait share the wait."""
    monkeypatch.setattr(libvirt_connection, "OPEN_LIMIT_S", 2)
    driver = qemu_lab.new_driver(wire.uri)
    wire.silence()
    with taking_at_most(4), ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(driver.powers) for _ in range(4)]
    assert {type(answer.exception()) for answer in answers} == {HostUnreachable}
    wire.mend()
    driver.powers()


def test_a_libvirtd_that_hangs_costs_one_opening_however_often_it_is_tried(
    qemu_lab: Lab, libvirtd: Libvirtd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: ``self._opening is None``; a host listener tries for ever and would run out of descriptors."""
    monkeypatch.setattr(libvirt_connection, "OPEN_LIMIT_S", 0.3)
    driver = qemu_lab.new_driver()
    with hanging(libvirtd):
        costs = []
        for _ in range(10):
            with pytest.raises(HostUnreachable):
                driver.powers()
            costs.append(_threads_and_descriptors())
    assert all(later <= first for cost in costs for later, first in zip(cost, costs[0], strict=True)), costs
    monkeypatch.undo()
    driver.powers()


def test_an_opening_that_nobody_will_ever_answer_is_left_behind(
    qemu_lab: Lab, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: ``self._patient_until``; a host that was reset does not know of it and hangs up nothing."""
    monkeypatch.setattr(libvirt_connection, "OPEN_LIMIT_S", 0.5)
    monkeypatch.setattr(libvirt_connection, "PATIENCE", Backoff(first_s=1, longest_s=3600))
    driver = qemu_lab.new_driver(wire.uri)
    wire.silence()
    with pytest.raises(HostUnreachable):
        driver.powers()
    wire.lose()
    with pytest.raises(HostUnreachable):
        driver.powers()
    time.sleep(0.5)
    driver.powers()


def test_what_an_opening_failed_with_long_ago_is_not_told(
    qemu_lab: Lab, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: _opened_late."""
    monkeypatch.setattr(libvirt_connection, "OPEN_LIMIT_S", 1)
    driver = qemu_lab.new_driver(wire.uri)
    wire.silence()
    with pytest.raises(HostUnreachable):
        driver.powers()
    wire.cut()
    time.sleep(0.5)
    wire.mend()
    driver.powers()


def _threads_and_descriptors() -> tuple[int, int]:
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def test_a_libvirtd_that_was_restarted_is_not_noticed(qemu_lab: Lab, wire: Wire) -> None:
    driver = qemu_lab.new_driver(wire.uri)
    for _ in range(5):
        driver.powers()
        wire.cut()
        driver.powers()


def test_a_libvirtd_that_hangs_up_every_time_is_unreachable(qemu_lab: Lab, wire: Wire) -> None:
    driver = qemu_lab.new_driver(wire.uri)
    driver.powers()
    wire.cut_after(0)
    with taking_at_most(BOUND_S), pytest.raises(HostUnreachable):
        driver.powers()
    wire.mend()
    driver.powers()


def test_a_machine_that_hangs_does_not_make_its_host_unreachable(qemu_lab: Lab) -> None:
    """Guard: the question in _given_up; without it one hung QEMU takes its host out of service."""
    driver = qemu_lab.new_driver()
    with pytest.raises(HostBusy), taking_at_most(BOUND_S):
        driver._connection.call(0.5, lambda _: time.sleep(2))
    driver.powers()


def test_an_error_that_libvirt_python_lost_is_asked_for_again(test_lab: Lab) -> None:
    """Guard: is_lost; the garbage collector clears libvirt's last error now and then."""
    libvirt.virResetLastError()  # of an earlier test in this thread
    lost = libvirt.libvirtError("virDomainLookupByUUIDString() failed")
    assert lost.get_error_code() is None
    answers = iter([lost])

    def body(host: Any) -> str:
        for answer in answers:
            raise answer
        return str(host.getType())

    assert test_lab.new_driver()._connection.call(5, body) == "TEST"


def test_no_libvirt_object_is_left_to_the_garbage_collector(test_lab: Lab) -> None:
    """Guard: the two ``del answer`` in libvirt_connection.py."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            with suppress(MachineNotFound):
                test_lab.driver.power(uuid4())
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [thing for thing in gc.garbage if isinstance(thing, Future | libvirt.libvirtError)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []


def test_a_child_of_a_process_that_was_connected_is_refused(qemu_lab: Lab) -> None:
    """Guard: _refuse_a_fork; without it the child takes its parent's answers from the parent's sockets."""
    driver = qemu_lab.new_driver()
    driver.powers()
    for used_in_the_child in (driver, qemu_lab.new_driver()):
        assert _in_a_child(partial(_is_refused, used_in_the_child)) == 0
    driver.powers()


def _is_refused(driver: LibvirtDriver) -> None:
    with pytest.raises(RuntimeError, match="forked"):
        driver.powers()


def _in_a_child(work: Callable[[], object]) -> int:
    """The exit code of a forked child that did the work."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
