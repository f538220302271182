"""When a machine that the host told of is looked at."""

from uuid import UUID

from inventory.models import Hypervisor
from provisioning.drivers.base import MachineEvent
from provisioning.host_events import PAUSES, HostListener, Pending
from servers.states import PowerState

ONE, OTHER = UUID(int=1), UUID(int=2)


def told(*news: tuple[float, UUID, PowerState]) -> Pending:
    pending = Pending(hold_back_s=15)
    for at, machine, power in news:
        pending.note(MachineEvent(machine=machine, power=power), at)
    return pending


def test_a_machine_that_went_off_is_looked_at_when_it_stayed_off_for_a_while() -> None:
    pending = told((100, ONE, PowerState.OFF))
    assert pending.take_due(114.9) == set()
    assert pending.take_due(115) == {ONE}


def test_a_machine_that_runs_again_was_rebooted_and_is_looked_at_once() -> None:
    pending = told((100, ONE, PowerState.OFF), (101, ONE, PowerState.RUNNING))
    assert pending.take_due(101) == {ONE}
    assert pending.take_due(1000) == set()


def test_a_machine_that_goes_on_and_off_is_looked_at_once_after_the_last_news() -> None:
    news = [(100 + n, ONE, power) for n in range(50) for power in (PowerState.RUNNING, PowerState.OFF)]
    pending = told(*news)
    assert pending.take_due(149 + 14) == set()
    assert pending.take_due(149 + 15) == {ONE}
    assert pending.take_due(1000) == set()


def test_each_machine_has_its_own_time() -> None:
    pending = told((100, ONE, PowerState.OFF), (110, OTHER, PowerState.UNKNOWN))
    assert pending.take_due(115) == {ONE}
    assert pending.take_due(125) == {OTHER}


def test_a_host_that_stays_away_is_tried_ever_more_rarely_but_at_least_every_minute() -> None:
    listener = HostListener(Hypervisor(name="kvm1"), hold_back_s=15)
    longest = [min(PAUSES.longest_s, 2.0**n) for n in range(1, 13)]
    assert all(most / 2 <= listener._next_delay() <= most for most in longest)
