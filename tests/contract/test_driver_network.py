"""A guest speaks with its own addresses, or is not heard: tried with two guests, of which one means harm.

Guard: the rules in network_filter.py.  With ``filterref`` taken out of domain_xml.py each refusal here fails.
"""

from collections.abc import Callable, Iterator

import pytest

from provisioning.drivers.base import MachineSpec
from tests.contract.guests import boot, run
from tests.contract.labs import Lab

GATEWAYS = ("203.0.113.1", "2001:db8:113::1")


@pytest.fixture
def lab(qemu_lab: Lab) -> Lab:
    return qemu_lab


@pytest.fixture(scope="module")
def thief(qemu_lab: Lab) -> Iterator[MachineSpec]:
    spec = qemu_lab.spec(hostname="thief")
    boot(qemu_lab, spec)
    yield spec
    qemu_lab.driver.delete(spec.uuid)


@pytest.fixture
def do(qemu_lab: Lab, thief: MachineSpec) -> Callable[[str], bool]:
    """Something that the thief does: whether it succeeded."""
    return lambda command: run(qemu_lab, thief, command)[0] == 0


def ping(target: str, source: str = "") -> str:
    return f"ping -c 2 -W 1 {f'-I {source}' if source else ''} {target}"


def addresses(spec: MachineSpec) -> list[str]:
    return [str(address.ip) for address in spec.nics[0].addresses]


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_with_its_own_address_a_guest_is_heard(do: Callable[[str], bool], gateway: str) -> None:
    assert do(ping(gateway))


def test_guests_reach_each_other(do: Callable[[str], bool], guest: MachineSpec) -> None:
    for address in addresses(guest):
        assert do(ping(address))


@pytest.mark.parametrize("family", [0, 1])
@pytest.mark.parametrize("whose", ["the neighbour's", "nobody's"])
def test_with_another_address_nothing_gets_through(
    qemu_lab: Lab, do: Callable[[str], bool], guest: MachineSpec, family: int, whose: str
) -> None:
    taken = (
        addresses(guest)[family] if whose == "the neighbour's" else ("203.0.113.9", "2001:db8:113::9")[family]
    )
    length = (24, 64)[family]
    assert do(f"echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip addr add {taken}/{length} dev eth0")
    try:
        assert not do(ping(GATEWAYS[family], taken))
    finally:
        assert do(f"ip addr del {taken}/{length} dev eth0")
    assert do(ping(GATEWAYS[family]))


def test_with_the_neighbours_mac_nothing_gets_through(
    do: Callable[[str], bool], thief: MachineSpec, guest: MachineSpec
) -> None:
    assert do(_with_mac(guest.nics[0].mac))
    try:
        assert not do(ping(GATEWAYS[0]))
    finally:
        # A card that was down has lost its IPv6 addresses.
        again = f"ip addr add {thief.nics[0].addresses[1]} dev eth0"
        assert do(f"{_with_mac(thief.nics[0].mac)}; {again}")
    for gateway in GATEWAYS:
        assert do(ping(gateway))


def _with_mac(mac: str) -> str:
    return f"ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up"


def test_a_guest_whose_network_was_restarted_is_plugged_in_again(
    qemu_lab: Lab, thief: MachineSpec, guest: MachineSpec, do: Callable[[str], bool]
) -> None:
    """Guards: listAllPorts in off_network, the bridge before the network in reattach."""
    driver = qemu_lab.driver
    assert driver.off_network() == []
    network = qemu_lab.libvirt.networkLookupByName(qemu_lab.network)
    network.destroy()
    network.create()
    assert not do(ping(GATEWAYS[0]))
    assert {thief.uuid, guest.uuid} <= set(driver.off_network())
    told = {machine.uuid: machine.cards[0].is_on_network for machine in driver.machines()}
    assert (told[thief.uuid], told[guest.uuid]) == (False, False)
    for _ in range(2):
        driver.reattach(thief.uuid)
    for gateway in GATEWAYS:
        assert do(ping(gateway))
    assert thief.uuid not in driver.off_network()
    driver.reattach(guest.uuid)
    assert driver.off_network() == []
    assert all(machine.cards[0].is_on_network for machine in driver.machines())
    for address in addresses(guest):
        assert do(ping(address))
    assert not do(ping(GATEWAYS[0], "203.0.113.9")), "the filter still stands before it"


def test_what_is_off_is_not_off_its_network(qemu_lab: Lab, machine: MachineSpec) -> None:
    qemu_lab.driver.reattach(machine.uuid)
    assert machine.uuid not in qemu_lab.driver.off_network()
