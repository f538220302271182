"""Events come as they happen; a host that goes away is said to be gone, and nothing of it is kept."""

import gc
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import takewhile
from typing import Any
from uuid import UUID, uuid4

import libvirt
import pytest

from provisioning.drivers import libvirt_events
from provisioning.drivers.base import HostUnreachable, MachineEvent, MachineSpec
from servers.states import PowerState
from tests.contract.guests import until
from tests.contract.labs import Lab
from tests.contract.wire import Wire

PATIENCE_S = 0.1
GIVE_UP_S = 10
BOUND_S = 15  # see libvirt_connection: a silent host is given up after 12 seconds


Events = Generator[MachineEvent | None, None, None]


@pytest.fixture
def events(lab: Lab) -> Iterator[Events]:
    """What a driver tells from now on."""
    told = lab.new_driver().lifecycle_events(PATIENCE_S)
    with closing(told):
        assert next(told) is None, "it listens"
        yield told


def next_of_any(events: Events) -> MachineEvent:
    give_up_at = time.monotonic() + GIVE_UP_S
    for event in events:
        if event:
            return event
        assert time.monotonic() < give_up_at, "nothing was told"
    raise AssertionError("the events ended")


def next_about(events: Events, machine: UUID) -> PowerState:
    while (event := next_of_any(events)).machine != machine:
        pass
    return event.power


def test_each_change_of_power_is_told(lab: Lab, machine: MachineSpec, events: Events) -> None:
    lab.driver.start(machine.uuid)
    assert next_about(events, machine.uuid) == PowerState.RUNNING
    lab.domain(machine).suspend()
    paused = next_about(events, machine.uuid)
    # QEMU starts every machine paused and lets it go on: it may tell of both.
    while paused == PowerState.RUNNING:
        paused = next_about(events, machine.uuid)
    assert paused == PowerState.PAUSED
    lab.driver.power_off(machine.uuid)
    while (power := next_about(events, machine.uuid)) != PowerState.OFF:
        assert power in {PowerState.PAUSED, PowerState.RUNNING}
    lab.driver.delete(machine.uuid)
    assert next_about(events, machine.uuid) == PowerState.UNKNOWN


def test_of_machines_of_others_nothing_is_told(lab: Lab, machine: MachineSpec, events: Events) -> None:
    """Guard: domain_name in event_of."""
    uuid = uuid4()
    foreign = lab.libvirt.defineXML(
        f"<domain type='{lab.domain_type}'><name>not-ours</name><uuid>{uuid}</uuid>"
        "<memory unit='MiB'>32</memory><os><type arch='x86_64'>hvm</type></os></domain>"
    )
    try:
        foreign.create()
        foreign.destroy()
    finally:
        foreign.undefine()
    lab.driver.start(machine.uuid)
    assert next_of_any(events).machine == machine.uuid


def test_news_that_nobody_fetches_is_dropped(
    lab: Lab, machine: MachineSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: the queue's size; libvirt's event loop must not wait for anybody, nor memory fill."""
    monkeypatch.setattr(libvirt_events, "QUEUE_SIZE", 1)
    with closing(lab.new_driver().lifecycle_events(0.5)) as events:
        assert next(events) is None
        for _ in range(3):
            lab.driver.start(machine.uuid)
            lab.driver.power_off(machine.uuid)
        time.sleep(2)
        assert next(events) is not None
        assert next(events) is None
        lab.driver.start(machine.uuid)
        assert next_about(events, machine.uuid) == PowerState.RUNNING


def test_a_host_that_hangs_up_is_told_of_at_once(qemu_lab: Lab, wire: Wire) -> None:
    with closing(qemu_lab.new_driver(wire.uri).lifecycle_events(PATIENCE_S)) as events:
        assert next(events) is None
        wire.cut()
        assert _seconds_until_unreachable(events) < 2


def test_a_host_that_falls_silent_is_told_of(qemu_lab: Lab, wire: Wire) -> None:
    """Guard: isAlive in lifecycle_events, which keepalive makes false."""
    with closing(qemu_lab.new_driver(wire.uri).lifecycle_events(PATIENCE_S)) as events:
        assert next(events) is None
        wire.silence()
        assert _seconds_until_unreachable(events) < BOUND_S


def test_a_host_where_nobody_listens_is_unreachable(qemu_lab: Lab, tmp_path: Any) -> None:
    with pytest.raises(HostUnreachable):
        next(
            qemu_lab.new_driver(f"qemu+unix:///system?socket={tmp_path}/nobody").lifecycle_events(PATIENCE_S)
        )


def test_listening_again_and_again_leaves_no_connection_open(qemu_lab: Lab, wire: Wire) -> None:
    """Guard: domainEventDeregisterAny; without it libvirt holds on to each connection for ever."""
    driver = qemu_lab.new_driver(wire.uri)
    before = _connections()
    for _ in range(5):
        with closing(driver.lifecycle_events(PATIENCE_S)) as events:
            next(events)
            wire.cut()
            _seconds_until_unreachable(events)
    until(lambda: _connections() <= before + 1, GIVE_UP_S)


def test_each_listening_has_a_connection_of_its_own(qemu_lab: Lab, wire: Wire) -> None:
    """Guard: another() in lifecycle_events of the driver; see libvirt_events for who would hear nothing."""
    driver = qemu_lab.new_driver(wire.uri)
    driver.powers()
    for opened in (2, 3):
        with closing(driver.lifecycle_events(PATIENCE_S)) as events:
            next(events)
            assert wire.opened == opened


def _seconds_until_unreachable(events: Events) -> float:
    began = time.monotonic()
    with pytest.raises(HostUnreachable):
        deque(takewhile(lambda _: time.monotonic() - began < 2 * BOUND_S, events))
    return time.monotonic() - began


def _connections() -> int:
    # Not isinstance: it would ask a weak proxy for the class of what is gone.
    return sum(issubclass(type(thing), libvirt.virConnect) for thing in gc.get_objects())
