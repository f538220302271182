"""One bad entry never stops its neighbours."""

from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import libvirt
import pytest

from core.one_by_one import read_each, see_to_each
from provisioning.drivers import libvirt_observation
from provisioning.drivers.domain_xml import domain_name
from servers.states import PowerState
from tests.unit.test_libvirt_answers import STATS, error

POOL: Any = SimpleNamespace(folder="/pool")
RUNNING = {"state.state": libvirt.VIR_DOMAIN_RUNNING, "state.reason": 0}


def test_what_cannot_be_read_is_logged_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    assert list(read_each("number", ["1", "two", "3"], int)) == [1, 3]
    assert "passed over a number: two" in caplog.text


def test_what_concerns_all_is_raised() -> None:
    with pytest.raises(ValueError, match="two"):
        see_to_each("number", ["1", "two"], int, concerns_all=lambda error: isinstance(error, ValueError))


def _domain(uuid: UUID, read: Any = None, **others: Any) -> Any:
    def definition(flags: int = 0) -> str:
        if read is not None:
            raise read
        return f"<domain><name>{domain_name(uuid)}</name><uuid>{uuid}</uuid></domain>"

    answers: dict[str, Any] = {
        "XMLDesc": definition,
        "name": lambda: domain_name(uuid),
        "UUIDString": lambda: str(uuid),
        "maxVcpus": lambda: 1,
        "isActive": lambda: True,
        "isPersistent": lambda: True,
        "hasManagedSaveImage": lambda: False,
        "snapshotNum": lambda: 0,
        "listAllCheckpoints": list,
    }
    return SimpleNamespace(**answers | others)


def _bad() -> str:
    return b"caf\xe9".decode()


def _host(*told: tuple[Any, dict[str, Any]]) -> Any:
    return SimpleNamespace(
        getAllDomainStats=lambda *_: told,
        domainListGetStats=lambda *_: told,
        listAllDomains=lambda *_: [domain for domain, _ in told],
    )


def test_a_machine_whose_definition_cannot_be_read_is_told_as_such_beside_the_others() -> None:
    bad, good = uuid4(), uuid4()
    refusal = error(libvirt.VIR_ERR_INTERNAL_ERROR)
    host = _host((_domain(bad, refusal), RUNNING), (_domain(good), RUNNING))
    told = {machine.uuid: machine for machine in libvirt_observation.machines(host, POOL, ())}
    assert (told[bad].is_readable, told[bad].is_ours) == (False, True)
    assert told[bad].power.state == PowerState.RUNNING
    assert told[good].is_readable


def test_a_machine_whose_name_cannot_be_read_hides_no_other() -> None:
    good = uuid4()
    host = _host((_domain(uuid4(), UnicodeError(), name=_bad), RUNNING), (_domain(good), RUNNING))
    assert set(libvirt_observation.powers(host)) == {good}
    assert [machine.uuid for machine in libvirt_observation.machines(host, POOL, ())] == [good]


def test_a_sample_that_cannot_be_read_hides_no_other() -> None:
    good, bad = uuid4(), uuid4()
    nonsense: Any = STATS | {"cpu.time": None, "net.count": "?"}
    host = _host((_domain(bad), nonsense), (_domain(good), STATS))
    assert set(libvirt_observation.usage(host, [good, bad])) == {good}


def test_a_host_that_is_gone_is_not_passed_over() -> None:
    gone = error(libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC)
    with pytest.raises(libvirt.libvirtError):
        libvirt_observation.machines(_host((_domain(uuid4(), gone), RUNNING)), POOL, ())
