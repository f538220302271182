"""What a machine costs in calls to its host: each is a round trip, and the host may be far away."""

from collections.abc import Callable
from typing import Any

from tests.contract.labs import Lab
from tests.contract.wire import Wire

# To make, start and remove one: no more than these.
MOST = {
    "has_image": 3,
    "create_disk": 9,
    "write_seed": 5,  # one reads it back: libvirt does not tell of a disk that was full
    "define": 8,
    "start": 10,
    "power": 2,
    "delete": 15,
}


def test_no_step_asks_its_host_more_often_than_it_must(qemu_lab: Lab, wire: Wire) -> None:
    """Guard: whatever asks libvirt.  Take ``cached_property`` from libvirt_storage's folder, and define asks
    for it thrice."""
    driver, spec = qemu_lab.new_driver(wire.uri), qemu_lab.spec(memory_mib=128)
    steps: dict[str, Callable[[], Any]] = {
        "has_image": lambda: driver.has_image(spec.image),
        "create_disk": lambda: driver.create_disk(spec),
        "write_seed": lambda: driver.write_seed(spec),
        "define": lambda: driver.define(spec),
        "start": lambda: driver.start(spec.uuid),
        "power": lambda: driver.power(spec.uuid),
        "delete": lambda: driver.delete(spec.uuid),
    }
    driver.powers()  # the connection is open from now on
    made = {}
    try:
        for name, step in steps.items():
            before = wire.calls
            step()
            made[name] = wire.calls - before
    finally:
        qemu_lab.driver.delete(spec.uuid)
    assert all(made.values()), "the wire counts"
    assert {name: calls for name, calls in made.items() if calls > MOST[name]} == {}
