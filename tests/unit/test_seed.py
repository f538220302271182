"""What cloud-init reads.  JSON is YAML, so PyYAML, which cloud-init uses, is the judge."""

from dataclasses import replace
from io import BytesIO
from ipaddress import ip_address, ip_interface
from typing import Any

import pycdlib
import pytest
import yaml

from provisioning.drivers.seed import meta_data, network_config, seed_iso, user_data
from tests.unit.machines import HOSTILE, MACHINE, NIC, spec


def read(image: bytes, **path: str) -> bytes:
    iso = pycdlib.PyCdlib()
    iso.open_fp(BytesIO(image))
    content = BytesIO()
    iso.get_file_from_iso_fp(content, **path)
    iso.close()
    return content.getvalue()


def files(image: bytes) -> dict[str, Any]:
    names = ("meta-data", "user-data", "network-config")
    return {name: yaml.safe_load(read(image, rr_path=f"/{name}")) for name in names}


def test_the_disc_is_labelled_for_cloud_init() -> None:
    assert seed_iso(spec())[32808:32840].strip() == b"cidata"


@pytest.mark.parametrize("kind", ["rr_path", "joliet_path"])
def test_user_data_says_that_it_is_cloud_config(kind: str) -> None:
    assert read(seed_iso(spec()), **{kind: "/user-data"}).startswith(b"#cloud-config\n{")


def test_the_guest_learns_its_identity() -> None:
    seed = files(seed_iso(spec()))
    assert seed["meta-data"] == {"instance-id": str(MACHINE), "local-hostname": "web1.example.com"}
    assert seed["user-data"]["hostname"] == "web1"
    assert seed["user-data"]["fqdn"] == "web1.example.com"


def test_root_may_come_in_with_the_keys_and_only_with_them() -> None:
    seed = user_data(spec())
    assert seed["users"] == [{"name": "root", "ssh_authorized_keys": ["ssh-ed25519 AAAA alice@laptop"]}]
    assert seed["disable_root"] is False
    assert seed["ssh_pwauth"] is False


def test_the_guest_learns_its_network() -> None:
    ethernet = network_config(spec())["ethernets"]["primary"]
    assert ethernet["match"] == {"macaddress": "52:54:00:12:34:56"}
    assert ethernet["addresses"] == ["203.0.113.10/24", "2001:db8:113::10/64"]
    assert ethernet["routes"] == [{"to": "0.0.0.0/0", "via": "203.0.113.1"}]
    assert ethernet["gateway6"] == "2001:db8:113::1"
    assert ethernet["nameservers"] == {"addresses": ["192.0.2.53"]}


def test_a_gateway_outside_of_the_servers_network_is_on_its_link() -> None:
    addresses = (ip_interface("203.0.113.10/32"), ip_interface("2001:db8:113::10/128"))
    gateways = (ip_address("198.51.100.1"), ip_address("fe80::1"))
    nic = replace(NIC, addresses=addresses, gateways=gateways)
    card = network_config(spec(nics=(nic,)))["ethernets"]["primary"]
    assert card["routes"] == [{"to": "0.0.0.0/0", "via": "198.51.100.1", "on-link": True}]
    assert card["gateway6"] == "fe80::1", "as a route cloud-init writes ::/64 for it"
    far = replace(nic, gateways=(ip_address("2001:db8:114::1"),))
    assert network_config(spec(nics=(far,)))["ethernets"]["primary"]["routes"] == [
        {"to": "::/0", "via": "2001:db8:114::1", "on-link": True}
    ]


def test_each_network_card_has_its_own_entry() -> None:
    second = replace(NIC, mac="52:54:00:00:00:02")
    ethernets = network_config(spec(nics=(NIC, second)))["ethernets"]
    assert {name: (each["match"]["macaddress"], each["set-name"]) for name, each in ethernets.items()} == {
        "primary": (NIC.mac, "eth0"),
        "nic1": (second.mac, "eth1"),
    }


@pytest.mark.parametrize(
    "text", [*HOSTILE, "a\nruncmd: [reboot]", "a: b\n---\n- c", "\x00\x7f\x85\u2028\ufeff", "\\ud83d"]
)
def test_nothing_that_somebody_typed_is_ever_parsed(text: str) -> None:
    hostile = files(seed_iso(spec(hostname=text, authorized_keys=(text,))))
    harmless = files(seed_iso(spec(hostname="x", authorized_keys=("x",))))
    assert hostile["meta-data"]["local-hostname"] == text
    assert hostile["user-data"]["users"] == [{"name": "root", "ssh_authorized_keys": [text]}]
    assert hostile["user-data"].keys() == harmless["user-data"].keys()


@pytest.mark.parametrize(
    ("hostname", "name", "whole"),
    [
        ("web.example.com", "web.example.com", True),
        (f"web.{'x' * 60}", f"web.{'x' * 60}", True),
        (f"web.{'x' * 61}", "web", False),
    ],
)
def test_a_name_too_long_for_the_kernel_is_cut_to_its_first_label(
    hostname: str, name: str, whole: bool
) -> None:
    seed = user_data(spec(hostname=hostname))
    assert meta_data(spec(hostname=hostname))["local-hostname"] == name
    assert (seed["fqdn"], seed["prefer_fqdn_over_hostname"]) == (hostname, whole)
