"""What a libvirtd that was killed leaves behind stands in nobody's way, and is not taken for a machine."""

import re
import subprocess
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from deploy.local.libvirtd import Libvirtd
from deploy.local.processes import as_root
from provisioning.drivers.base import HostBusy, MachineSpec, Power
from servers.states import PowerState
from tests.contract.labs import Lab
from tests.contract.test_driver_guests import send
from tests.daemons import crash, process_id

RUNNING = Power(state=PowerState.RUNNING)
AHEAD = 5  # other tests' machines may start beside ours and take a number


@pytest.fixture
def lab(qemu_lab: Lab) -> Lab:
    """Libvirt's ``test:///`` has no filters."""
    return qemu_lab


@pytest.fixture
def cards(lab: Lab) -> Callable[[], dict[str, str]]:
    """Each network card that libvirt has a filter for, with the machine it belongs to."""

    def read() -> dict[str, str]:
        bindings = lab.libvirt.listAllNWFilterBindings()
        return {binding.portDev(): binding.XMLDesc() for binding in bindings}

    return read


@pytest.fixture
def neighbour(lab: Lab, make_spec: Callable[..., MachineSpec]) -> MachineSpec:
    spec = make_spec()
    lab.make(spec)
    lab.driver.start(spec.uuid)
    return spec


@pytest.fixture
def leave(
    lab: Lab, neighbour: MachineSpec, cards: Callable[[], dict[str, str]]
) -> Iterator[Callable[[object], list[str]]]:
    """Leave filters behind for the cards that libvirt will number next, as if of a certain machine."""
    left: list[str] = []

    def make(machine: object) -> list[str]:
        card, xml = next((c, x) for c, x in cards().items() if str(neighbour.uuid) in x)
        newest = max(int(name.removeprefix("vnet")) for name in cards())
        made = [f"vnet{newest + number}" for number in range(1, AHEAD + 1)]
        for name in made:
            another = xml.replace(f"'{card}'", f"'{name}'").replace(str(neighbour.uuid), str(machine))
            lab.libvirt.nwfilterBindingCreateXML(another)
        left.extend(made)
        return made

    yield make
    for name in set(left) & set(cards()):
        lab.libvirt.nwfilterBindingLookupByPortDev(name).delete()


def test_a_machine_starts_though_its_card_had_a_filter_already(
    lab: Lab,
    spec: MachineSpec,
    neighbour: MachineSpec,
    leave: Callable[[object], list[str]],
    cards: Callable[[], dict[str, str]],
) -> None:
    """Guard: remove_left_over in libvirt_domains.py.  What belongs to a machine that runs stays."""
    lab.make(spec)
    before = cards()
    left = {*leave(spec.uuid), *leave(uuid4()), *leave(neighbour.uuid)}
    lab.driver.start(spec.uuid)
    assert lab.driver.power(spec.uuid) == RUNNING
    after = cards()
    assert before.items() <= after.items()
    [ours] = after.keys() - before.keys()
    assert str(spec.uuid) in after[ours]
    assert not left & (after.keys() - {ours})


def test_a_machine_that_was_starting_is_neither_on_nor_off(
    libvirtd: Libvirtd, lab: Lab, machine: MachineSpec
) -> None:
    """libvirt 9.0, killed before it noted QEMU's process id, says so of a machine that nothing runs.

    Guards: _STARTING in libvirt_observation.py, HostBusy in libvirt_domains.py; without the first it counts
    as on, and is charged for.
    """
    lab.driver.start(machine.uuid)
    note = f"/proc/{process_id(libvirtd)}/root/run/libvirt/qemu/vps-{machine.uuid}.xml"
    there = subprocess.run(as_root("cat", note), check=True, capture_output=True, text=True).stdout
    torn, changes = re.subn(
        r"<domstatus .*>", "<domstatus state='paused' reason='starting up' pid='0'>", there
    )
    assert changes == 1
    subprocess.run(as_root("tee", note), check=True, input=torn, stdout=subprocess.DEVNULL, text=True)
    crash(libvirtd)
    driver = lab.new_driver()
    try:
        assert driver.power(machine.uuid).state == PowerState.UNKNOWN
        assert driver.powers()[machine.uuid].state == PowerState.UNKNOWN
        with pytest.raises(HostBusy, match="neither off nor running"):
            driver.start(machine.uuid)
    finally:
        send("KILL", machine)
