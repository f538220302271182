"""Which networks can be pools, and which of their addresses are for servers."""

from ipaddress import ip_address, ip_network

import pytest

from inventory.networks import (
    NetworkRefused,
    address_from,
    addresses_from,
    check_pool,
    first_usable,
    is_usable,
    last_usable,
    network_from,
    usable_count,
)


def check(network: str, gateway: str, nameservers: str = "", named: str = "") -> None:
    texts = (nameservers.split(), named.split())
    resolvers, others = ([address_from(text) for text in group] for group in texts)
    check_pool(network_from(network), address_from(gateway), resolvers, others)


@pytest.mark.parametrize(
    ("network", "gateway", "nameservers", "named"),
    [
        ("203.0.113.0/24", "203.0.113.1", "", ""),
        ("203.0.113.0/24", "203.0.113.254", "203.0.113.2 1.1.1.1 2001:db8::53", "203.0.113.3"),
        ("10.0.0.0/8", "10.255.255.254", "", ""),
        ("203.0.113.0/31", "203.0.113.0", "", ""),
        ("203.0.113.5/32", "198.51.100.1", "", ""),
        ("203.0.113.5/32", "10.0.0.1", "", ""),
        ("203.0.113.5/32", "169.254.1.1", "", ""),
        ("2001:db8::/64", "2001:db8::1", "", "2001:db8::ffff"),
        ("2001:db8::/64", "2001:db8::ffff:ffff:ffff:ffff", "", ""),
        ("2001:db8::/64", "fe80::1", "", ""),
        ("2001:db8::5/128", "fe80::1", "", ""),
        ("2001:db8::5/128", "2001:db8:1::1", "", ""),
        ("fd00::/64", "fd00::1", "fd00::53", ""),
    ],
)
def test_a_pool_that_works(network: str, gateway: str, nameservers: str, named: str) -> None:
    check(network, gateway, nameservers, named)


@pytest.mark.parametrize(
    ("network", "gateway", "nameservers", "named", "said"),
    [
        ("203.0.113.0/24", "203.0.113.0", "", "", "the network itself"),
        ("203.0.113.0/24", "203.0.113.255", "", "", "the broadcast"),
        ("2001:db8::/64", "2001:db8::", "", "", "the network itself"),
        ("203.0.113.0/24", "203.0.114.1", "", "", "not in"),
        ("203.0.113.0/24", "169.254.1.1", "", "", "not in"),
        ("2001:db8::/64", "2001:db8:1::1", "", "", "not in"),
        ("203.0.113.0/24", "2001:db8::1", "", "", "same kind"),
        ("203.0.113.5/32", "fe80::1", "", "", "same kind"),
        ("203.0.113.5/32", "224.0.0.1", "", "", "multicast"),
        ("203.0.113.5/32", "0.0.0.0", "", "", "this network"),
        ("203.0.113.5/32", "127.0.0.1", "", "", "loopback"),
        ("203.0.113.5/32", "255.255.255.255", "", "", "reserved"),
        ("2001:db8::5/128", "::1", "", "", "loopback"),
        ("2001:db8::5/128", "::ffff:203.0.113.1", "", "", "IPv4-mapped"),
        ("224.0.1.0/24", "224.0.1.1", "", "", "multicast"),
        ("224.0.0.0/3", "224.0.1.1", "", "", "multicast"),
        ("0.0.0.0/0", "203.0.113.1", "", "", "this network"),
        ("0.0.0.0/8", "0.0.0.1", "", "", "this network"),
        ("127.0.0.0/24", "127.0.0.1", "", "", "loopback"),
        ("169.254.0.0/24", "169.254.0.1", "", "", "link-local"),
        ("240.0.0.0/24", "240.0.0.1", "", "", "reserved"),
        ("ff02::/64", "ff02::1", "", "", "multicast"),
        ("fe80::/64", "fe80::1", "", "", "link-local"),
        ("::/64", "::2", "", "", "loopback"),
        ("::ffff:203.0.113.0/120", "::ffff:203.0.113.1", "", "", "IPv4-mapped"),
        ("203.0.113.0/24", "203.0.113.1", "224.0.0.1", "", "multicast"),
        ("203.0.113.0/24", "203.0.113.1", "0.0.0.0", "", "this network"),
        ("203.0.113.0/24", "203.0.113.1", "::ffff:1.1.1.1", "", "IPv4-mapped"),
        ("203.0.113.0/24", "203.0.113.1", "", "203.0.114.1", "203.0.114.1 is not in"),
        ("203.0.113.0/24", "203.0.113.1", "", "2001:db8::1", "2001:db8::1 is not in"),
        ("203.0.113.5/32", "203.0.113.5", "", "", "no address"),
        ("203.0.113.0/30", "203.0.113.1", "203.0.113.2", "", "no address"),
        ("203.0.113.7/24", "203.0.113.1", "", "", "host bits"),
        ("203.0.113.0/24", "fe80::1%eth0", "", "", "one machine"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(
    network: str, gateway: str, nameservers: str, named: str, said: str
) -> None:
    with pytest.raises(NetworkRefused, match=said):
        check(network, gateway, nameservers, named)


@pytest.mark.parametrize(
    ("network", "first", "last", "count"),
    [
        ("203.0.113.0/24", "203.0.113.1", "203.0.113.254", 254),
        ("203.0.113.0/30", "203.0.113.1", "203.0.113.2", 2),
        ("203.0.113.0/31", "203.0.113.0", "203.0.113.1", 2),
        ("203.0.113.5/32", "203.0.113.5", "203.0.113.5", 1),
        ("10.0.0.0/8", "10.0.0.1", "10.255.255.254", 2**24 - 2),
        ("2001:db8::/64", "2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", 2**64 - 1),
        ("2001:db8::/127", "2001:db8::", "2001:db8::1", 2),
        ("2001:db8::5/128", "2001:db8::5", "2001:db8::5", 1),
    ],
)
def test_the_addresses_that_are_for_hosts(network: str, first: str, last: str, count: int) -> None:
    net = ip_network(network)
    assert (str(first_usable(net)), str(last_usable(net)), usable_count(net)) == (first, last, count)
    assert is_usable(net, ip_address(first))
    assert is_usable(net, ip_address(last))
    assert not is_usable(net, ip_address("192.0.2.1"))


def test_addresses_are_counted_from_one_on_and_end_with_the_network() -> None:
    net = ip_network("203.0.113.0/29")
    found = [str(address) for address in addresses_from(net, ip_address("203.0.113.4"), 2)]
    assert found == ["203.0.113.4", "203.0.113.5"]
    assert [str(address) for address in addresses_from(net, ip_address("203.0.113.5"), 9)] == [
        "203.0.113.5",
        "203.0.113.6",
    ]
