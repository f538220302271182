"""What a libvirtd that was killed leaves of its network filters stands in nobody's way."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from provisioning.hypervisors.base import MachineSpec, Power
from servers.states import PowerState
from tests.contract.labs import Lab

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
    lab.hypervisor.start(spec.uuid)
    return spec


@pytest.fixture
def leave(
    lab: Lab, neighbour: MachineSpec, cards: Callable[[], dict[str, str]]
) -> Iterator[Callable[[object], list[str]]]:
    """Leave filters behind for the cards that libvirt will number next, as if of a certain machine."""
    left: list[str] = []

    def make(machine: object) -> list[str]:
        [(card, xml)] = [(c, x) for c, x in cards().items() if str(neighbour.uuid) in x]
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
    left = {*leave(spec.uuid), *leave(uuid4())}
    lab.hypervisor.start(spec.uuid)
    assert lab.hypervisor.power(spec.uuid) == RUNNING
    after = cards()
    assert before.items() <= after.items()
    [ours] = after.keys() - before.keys()
    assert str(spec.uuid) in after[ours]
    assert not left & (after.keys() - {ours})
