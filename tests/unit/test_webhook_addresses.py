"""Where webhooks may lead.  Every spelling of an address that is not public is refused."""

import socket
import threading
import time
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from webhooks.addresses import (
    ASKERS_AT_ONCE,
    AddressRefused,
    HostNotFound,
    Target,
    TooManyLookUps,
    is_public,
    parse,
    permitted_addresses,
)

PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "93.184.216.34", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1"),
    *(
        "191.255.255.255",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450::200e",
        "2001:4860::8888",
        "2003::1",
    ),
]
NOT_PUBLIC = {
    "this host": ["0.0.0.0", "0.1.2.3", "::"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12:3456::1"],
    "shared (carrier-grade NAT)": ["100.64.0.1", "100.127.255.255"],
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "link-local": ["169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%1", "febf::1"],
    "site-local": ["fec0::1"],
    "protocol assignments": ["192.0.0.1", "192.0.0.9", "192.0.0.170", "2001::1", "2001:1::1", "2001:20::1"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "benchmarks": ["198.18.0.1", "198.19.255.255", "2001:2::1"],
    "6to4 relays": ["192.88.99.1"],
    "multicast": ["224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "4000::1", "100::1", "5f00::1"],
    "mapped IPv4": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8"],
    "compatible IPv4": ["::127.0.0.1", "::8.8.8.8"],
    "translated IPv4 (NAT64)": ["64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::a00:1"],
    "6to4": ["2002:7f00:1::1", "2002:a00:1::", "2002:808:808::"],
    "Teredo": ["2001:0:7f00:1::1"],
}
LOOPBACK = [ip_network("127.0.0.0/8")]


def target(url: str = "https://hooks.example.com/vps") -> Target:
    return parse(url)


def resolver_says(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    answers = [(0, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: answers)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_host_on_the_internet_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("address", [address for group in NOT_PUBLIC.values() for address in group])
def test_special_addresses_are_not(address: str) -> None:
    """Guard: ``NOT_A_HOST``, ``is_global`` and ``GLOBAL_UNICAST``; each is the only one for some of these."""
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority"),
    [
        ("https://hooks.example.com", "hooks.example.com", 443, "/", "hooks.example.com"),
        ("HTTPS://Hooks.Example.COM/A?b=%20", "hooks.example.com", 443, "/A?b=%20", "hooks.example.com"),
        ("https://hooks.example.com?a=b", "hooks.example.com", 443, "/?a=b", "hooks.example.com"),
        ("https://hooks.example.com:8443/x", "hooks.example.com", 8443, "/x", "hooks.example.com:8443"),
        ("https://hooks.example.com:0443/x", "hooks.example.com", 443, "/x", "hooks.example.com"),
        ("http://localhost:8080/", "localhost", 8080, "/", "localhost:8080"),
        ("https://8.8.8.8/", "8.8.8.8", 443, "/", "8.8.8.8"),
        ("https://[2606:4700::1111]:8443/", "2606:4700::1111", 8443, "/", "[2606:4700::1111]:8443"),
        ("https://1.example.com/", "1.example.com", 443, "/", "1.example.com"),
    ],
)  # fmt: skip
def test_a_url_is_taken_apart(url: str, host: str, port: int, path: str, authority: str) -> None:
    found = parse(url)

    assert (found.host, found.port, found.path, found.authority) == (host, port, path, authority)


NO_URLS = {
    "nothing": "",
    "no scheme": "hooks.example.com/vps",
    "no host": "https:///vps",
    "one slash": "https:/hooks.example.com",
    "FTP": "ftp://hooks.example.com/",
    "a file": "file:///etc/passwd",
    "gopher": "gopher://hooks.example.com:6379/_FLUSHALL",
    "a script": "javascript:alert(1)",
    "a user": "https://user@hooks.example.com/",
    "a user and a password": "https://user:secret@hooks.example.com/",
    "a user that looks like a host": "https://hooks.example.com@127.0.0.1/",
    "a backslash before another host": "https://hooks.example.com\\@127.0.0.1/",
    "a fragment": "https://hooks.example.com/#here",
    "a fragment before another host": "https://hooks.example.com#@127.0.0.1/",
    "a space": "https://hooks.example.com/a b",
    "a space first": " https://hooks.example.com/",
    "a line break": "https://hooks.example.com/\r\nX-Evil: yes",
    "a line break in the host": "https://hooks.example\n.com/",
    "a line break last": "https://hooks.example.com/\n",
    "a tab in the scheme": "ht\ttps://hooks.example.com/",
    "a NUL": "https://hooks.example.com/\x00",
    "a letter that is none of ASCII": "https://hööks.example.com/",
    "wide letters": "https://ｈooks.example.com/",
    "a foreign digit": "https://hooks.example.com:٨٠٨٠/",
    "an ideographic full stop": "https://127。0。0。1/",
    "a dotless i": "https://hooks.example.com/ı",
    "a percent code in the host": "https://127%2e0.0.1/",
    "an underscore in the host": "https://_hooks.example.com/",
    "no port behind its colon": "https://hooks.example.com:/",
    "port zero": "https://hooks.example.com:0/",
    "the mail's port": "https://hooks.example.com:25/",
    "the shell's port": "https://hooks.example.com:22/",
    "a port too high": "https://hooks.example.com:65536/",
    "a negative port": "https://hooks.example.com:-1/",
    "two ports": "https://hooks.example.com:80:80/",
    "a decimal address": "https://2130706433/",
    "an octal address": "https://0177.0.0.1/",
    "a hexadecimal address": "https://0x7f.0.0.1/",
    "a hexadecimal number": "https://0x7f000001/",
    "a short address": "https://127.1/",
    "zero": "https://0/",
    "an address with five parts": "https://1.2.3.4.5/",
    "an address with a dot behind": "https://127.0.0.1./",
    "an address with zeros before": "https://127.000.000.001/",
    "a public address, decimal": "https://134744072/",
    "brackets without an address": "https://[]/",
    "brackets around a name": "https://[hooks.example.com]/",
    "brackets around IPv4": "https://[127.0.0.1]/",
    "brackets that do not close": "https://[::1/",
    "a zone": "https://[fe80::1%25eth0]/",
    "IPv6 without brackets": "https://::1/",
    "2,049 characters": "https://hooks.example.com/" + "a" * 2_023,
    "a hundred thousand characters": "https://" + "a" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("url", NO_URLS.values(), ids=NO_URLS.keys())
def test_what_is_no_url_of_a_webhook_is_refused_in_a_sentence(url: str) -> None:
    with pytest.raises(ValueError, match=r"^Should .*\.$"):
        parse(url)


def test_a_name_is_judged_by_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard: the loop over all addresses in ``permitted_addresses``."""
    resolver_says(monkeypatch, "8.8.8.8", "2606:4700::1111", "8.8.8.8")
    assert permitted_addresses(target(), []) == [ip_address("8.8.8.8"), ip_address("2606:4700::1111")]

    for private in ("10.0.0.1", "::ffff:10.0.0.1", "fe80::1%2"):
        resolver_says(monkeypatch, "8.8.8.8", private)
        with pytest.raises(AddressRefused):
            permitted_addresses(target(), [])


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "[::ffff:127.0.0.1]", "169.254.169.254"])
def test_no_spelling_leads_to_this_machine(host: str) -> None:
    """By the machine's own resolver."""
    with pytest.raises(AddressRefused):
        permitted_addresses(target(f"https://{host}/"), [])


def test_networks_of_the_operators_are_reached_and_no_others() -> None:
    assert permitted_addresses(target("https://127.0.0.1/"), LOOPBACK) == [ip_address("127.0.0.1")]
    with pytest.raises(AddressRefused):
        permitted_addresses(target("https://10.0.0.1/"), LOOPBACK)
    with pytest.raises(AddressRefused):
        permitted_addresses(target("https://[::ffff:127.0.0.1]/"), LOOPBACK)


def test_without_tls_only_networks_of_the_operators_are_reached() -> None:
    """Guard: ``target.is_https`` in ``permitted_addresses``."""
    assert permitted_addresses(target("http://127.0.0.1/"), LOOPBACK)
    with pytest.raises(AddressRefused):
        permitted_addresses(target("http://8.8.8.8/"), LOOPBACK)


@pytest.mark.parametrize("host", ["a..b", ".a", "a." + "b" * 64, "..."])
def test_a_name_that_cannot_be_is_not_found(host: str) -> None:
    """Python refuses to look these up, with an error of its own."""
    with pytest.raises(HostNotFound):
        permitted_addresses(target(f"https://{host}/"), [])


def test_a_name_server_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard: the timeout of ``heard.get``."""
    let_go = threading.Event()

    def slow(*args: Any, **kwargs: Any) -> list[Any]:
        let_go.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    began = time.monotonic()
    with pytest.raises(HostNotFound):
        permitted_addresses(target(), [], within_s=0.2)
    assert time.monotonic() - began < 5
    let_go.set()


def test_a_look_up_that_is_not_waited_for_any_more_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard: the place is given back by the thread that asks, in ``_look_up``, and not by who waits."""
    let_go = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: let_go.wait(20) and [])
    with pytest.raises(HostNotFound):
        permitted_addresses(target(), [], within_s=0.1, asker=1)

    with pytest.raises(TooManyLookUps):
        permitted_addresses(target(), [], asker=1)

    let_go.set()
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "look-up"]
    thread.join(5)
    with pytest.raises(HostNotFound):
        permitted_addresses(target(), [], asker=1)


def test_who_has_an_answer_may_ask_at_once_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard: the place is free before the answer is told, in ``_look_up``."""
    resolver_says(monkeypatch, "8.8.8.8")
    for _ in range(1000):
        permitted_addresses(target(), [], asker=1)


@pytest.mark.parametrize("error", [OSError("no such name"), UnicodeError("no name"), ValueError("a bug")])
def test_a_look_up_that_fails_gives_its_place_back(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*args: Any, **kwargs: Any) -> list[Any]:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    for _ in range(ASKERS_AT_ONCE + 1):
        with pytest.raises((HostNotFound, ValueError)):
            permitted_addresses(target(), [], asker=1)
