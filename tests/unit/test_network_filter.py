"""Which packets pass.  tests/contract proves with real guests that the rules do what they say."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from ipaddress import ip_interface

import pytest

from provisioning.drivers.network_filter import filter_xml, link_local, parameters
from tests.unit.machines import NIC


def test_what_no_rule_lets_pass_is_dropped() -> None:
    last = list(ET.fromstring(filter_xml()).iterfind("rule"))[-1]
    assert (last.get("action"), last.get("direction"), len(last)) == ("drop", "inout", 0)


def test_rules_are_tried_in_the_order_they_are_written_in() -> None:
    priorities = [int(rule.get("priority", "")) for rule in ET.fromstring(filter_xml()).iterfind("rule")]
    assert priorities == sorted(set(priorities))


@pytest.mark.parametrize(
    ("mac", "expected"),
    [("52:54:00:12:34:56", "fe80::5054:ff:fe12:3456"), ("00:00:5e:00:53:01", "fe80::200:5eff:fe00:5301")],
)
def test_the_link_local_address_follows_from_the_mac(mac: str, expected: str) -> None:
    assert str(link_local(mac)) == expected


def test_a_server_without_ipv4_speaks_no_ipv4() -> None:
    nic = replace(NIC, addresses=(ip_interface("2001:db8::1/64"),))
    assert [value for name, value in parameters(nic) if name == "IP"] == ["0.0.0.0"]


def test_a_server_without_ipv6_has_only_its_link_local_address() -> None:
    nic = replace(NIC, addresses=(ip_interface("203.0.113.7/24"),))
    assert [value for name, value in parameters(nic) if name == "IPV6"] == ["fe80::5054:ff:fe12:3456"]
