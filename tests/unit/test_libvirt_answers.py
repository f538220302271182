"""libvirt's answers in our words."""

from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import libvirt
import pytest

from provisioning.drivers.base import (
    HostBusy,
    HostMisconfigured,
    HostUnreachable,
    HypervisorError,
    MachineNotFound,
    Usage,
)
from provisioning.drivers.libvirt_errors import is_about_traffic_control, translate
from provisioning.drivers.libvirt_guest import addresses_of, guest, hostname_of
from provisioning.drivers.libvirt_observation import power_of, usage_of
from servers.states import PowerState


def error(code: int, domain: int = libvirt.VIR_FROM_QEMU, text: str = "libvirt's words") -> Any:
    made = libvirt.libvirtError("call failed")
    made.err = (code, domain, text, libvirt.VIR_ERR_ERROR, None, None, None, -1, -1)
    made.args = (text,)
    return made


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (error(libvirt.VIR_ERR_NO_DOMAIN), MachineNotFound),
        (error(libvirt.VIR_ERR_OPERATION_TIMEOUT), HostBusy),
        (error(libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_FROM_STORAGE), HostBusy),
        (
            error(
                libvirt.VIR_ERR_INTERNAL_ERROR,
                libvirt.VIR_FROM_STORAGE,
                "internal error: pool 'vps' has asynchronous jobs running.",
            ),
            HostBusy,
        ),
        (
            error(
                libvirt.VIR_ERR_OPERATION_INVALID,
                libvirt.VIR_FROM_STORAGE,
                "Requested operation is not valid: storage pool 'vps' is not active",
            ),
            HostMisconfigured,
        ),
        (error(libvirt.VIR_ERR_OPERATION_INVALID), HypervisorError),
        (error(libvirt.VIR_ERR_NO_STORAGE_POOL, libvirt.VIR_FROM_STORAGE), HostMisconfigured),
        (error(libvirt.VIR_ERR_CONFIG_UNSUPPORTED), HostMisconfigured),
        (error(libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC), HostUnreachable),
        (error(libvirt.VIR_ERR_INTERNAL_ERROR), HypervisorError),
    ],
)
def test_each_error_has_its_name_and_its_cause(theirs: Any, ours: type[HypervisorError]) -> None:
    translated = translate(theirs, "qemu+ssh://host/system")
    assert type(translated) is ours
    assert str(translated) == f"qemu+ssh://host/system: {theirs}"


def test_a_kernel_that_cannot_limit_speed_is_recognised() -> None:
    text = (
        "internal error: Child process (tc qdisc add dev vnet0 parent 1:1 handle 2: sfq perturb 10) "
        "unexpected exit status 2: Error: Specified qdisc kind is unknown."
    )
    assert is_about_traffic_control(error(libvirt.VIR_ERR_INTERNAL_ERROR, text=text))
    assert not is_about_traffic_control(error(libvirt.VIR_ERR_INTERNAL_ERROR, text="Cannot touch tc qdisc"))


@pytest.mark.parametrize(
    ("reason", "on_purpose"),
    [
        (libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN, True),
        (libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED, True),
        (libvirt.VIR_DOMAIN_SHUTOFF_SAVED, True),
        (libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED, True),
        (libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, False),
        (libvirt.VIR_DOMAIN_SHUTOFF_FAILED, False),
        (libvirt.VIR_DOMAIN_SHUTOFF_DAEMON, False),
        (libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN, False),
    ],
)
def test_off_has_a_reason(reason: int, on_purpose: bool) -> None:
    power = power_of(libvirt.VIR_DOMAIN_SHUTOFF, reason)
    assert (power.state, power.off_on_purpose) == (PowerState.OFF, on_purpose)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (libvirt.VIR_DOMAIN_RUNNING, PowerState.RUNNING),
        (libvirt.VIR_DOMAIN_BLOCKED, PowerState.RUNNING),
        (libvirt.VIR_DOMAIN_SHUTDOWN, PowerState.RUNNING),
        (libvirt.VIR_DOMAIN_PAUSED, PowerState.PAUSED),
        (libvirt.VIR_DOMAIN_PMSUSPENDED, PowerState.PAUSED),
        (libvirt.VIR_DOMAIN_CRASHED, PowerState.PAUSED),
        (libvirt.VIR_DOMAIN_NOSTATE, PowerState.UNKNOWN),
    ],
)
def test_every_state_has_our_word(state: int, expected: PowerState) -> None:
    assert power_of(state, 0).state == expected


def test_what_is_starting_is_not_paused() -> None:
    starting = power_of(libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)
    assert starting.state == PowerState.UNKNOWN


STATS = {
    "cpu.time": 7_000_000_000,
    "balloon.maximum": 262144,
    "balloon.rss": 276996,
    "net.count": 2,
    "net.0.rx.bytes": 100,
    "net.0.tx.bytes": 10,
    "net.1.rx.bytes": 1,
    "net.1.tx.bytes": 2,
    "block.count": 2,
    "block.0.physical": 2**30,
    "block.1.physical": 69632,
}


def test_a_sample_adds_up() -> None:
    stats = STATS | {"balloon.available": 222604, "balloon.usable": 183016, "balloon.unused": 179412}
    assert usage_of(stats, vcpus=2) == Usage(
        cpu_time_ns=7_000_000_000,
        vcpus=2,
        memory_used_mib=38,
        disk_used_gib=1.0,
        received_bytes=101,
        sent_bytes=12,
    )


def test_a_guest_that_does_not_tell_its_memory_uses_what_it_costs_the_host_but_not_more_than_it_has() -> None:
    sample = usage_of(STATS, vcpus=1)
    assert sample is not None
    assert sample.memory_used_mib == 256


@pytest.mark.parametrize("missing", ["cpu.time", "block.0.physical", "net.1.rx.bytes", "balloon.rss"])
def test_half_a_sample_is_none(missing: str) -> None:
    assert usage_of({key: value for key, value in STATS.items() if key != missing}, vcpus=1) is None


def test_of_what_a_guest_claims_only_addresses_are_taken() -> None:
    claimed = [
        "127.0.0.1",
        "::1",
        "169.254.1.1",
        "fe80::1",
        "203.0.113.7",
        "203.0.113.7",
        "2001:db8::7",
        "?",
        "",
    ]
    interfaces = {"eth0": {"addrs": [{"addr": text} for text in claimed]}, "eth1": {"addrs": None}}
    assert addresses_of(interfaces) == (ip_address("203.0.113.7"), ip_address("2001:db8::7"))


NONSENSE = {
    "more free than there is": {"balloon.available": 1000, "balloon.usable": 2000},
    "more than the machine has": {"balloon.available": 2**40, "balloon.unused": 5},
    "far too much": {"balloon.available": 2**62, "balloon.usable": 0},
    "too much free": {"balloon.available": 2**63, "balloon.usable": 2**64 - 1},
    "less than nothing": {"balloon.available": 1000, "balloon.usable": -5},
}


@pytest.mark.parametrize("told", NONSENSE.values(), ids=NONSENSE)
def test_what_a_guest_says_of_its_memory_is_believed_only_if_it_can_be(told: dict[str, int]) -> None:
    """Guard: the comparison in _memory_used_kib."""
    sample = usage_of(STATS | told, vcpus=1)
    assert sample is not None
    assert sample.memory_used_mib == 256, "what it costs the host"


ODD_ADDRESSES = {
    "2001:db8::7%eth0": ["2001:db8::7"],
    "2001:db8::7%": ["2001:db8::7"],
    "fe80::1%eth0": [],
    "::": [],
    "0.0.0.0": [],
    "ff02::1": [],
    "224.0.0.1": [],
    "::ffff:203.0.113.7": [],
    "203.0.113.7/24": [],
    "٢٠٣.0.113.7": [],
    "203.0.113.7\x00": [],
}


@pytest.mark.parametrize(("told", "taken"), ODD_ADDRESSES.items(), ids=map(ascii, ODD_ADDRESSES))
def test_an_address_of_a_guest_is_one_that_others_can_speak_to(told: str, taken: list[str]) -> None:
    """Guards: partition in addresses_of, _is_reachable."""
    assert addresses_of({"eth0": {"addrs": [{"addr": told}]}}) == tuple(map(ip_address, taken))


@pytest.mark.parametrize("told", [None, 7, "203.0.113.7", {}, {"addr": None}, {"address": "203.0.113.7"}])
def test_a_list_of_addresses_that_is_none_hides_no_other(told: Any) -> None:
    interfaces = {"eth0": {"addrs": [told, {"addr": "203.0.113.7"}]}, "eth1": {}}
    assert addresses_of(interfaces) == (ip_address("203.0.113.7"),)


@pytest.mark.parametrize(
    "told", [None, 7, "", "-x", "a b", "a\x00", "a\n", "é", "\udc80", "a" * 254, "<script>", "a."]
)
def test_a_hostname_that_is_none_is_not_taken(told: object) -> None:
    """Guard: hostname_of."""
    assert hostname_of(told) is None


@pytest.mark.parametrize("told", ["a", "web-1.example.com", "my_host", "x" * 253])
def test_a_hostname_is_taken(told: str) -> None:
    assert hostname_of(told) == told


def test_an_answer_that_cannot_be_read_is_none() -> None:
    """Guard: UnicodeError in _ask."""

    def interfaces(source: int) -> Any:
        return b"\xe9".decode()

    domain = SimpleNamespace(
        agentSetResponseTimeout=lambda seconds: 0, interfaceAddresses=interfaces, name=lambda: "vps-x"
    )
    assert guest(domain) is None


def test_a_guest_cannot_claim_addresses_without_end() -> None:
    claimed = [{"addr": f"10.0.{n // 250}.{n % 250}"} for n in range(5000)]
    assert len(addresses_of({"eth0": {"addrs": claimed}})) == 32
