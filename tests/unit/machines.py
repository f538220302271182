"""A machine to describe."""

from ipaddress import ip_address, ip_interface
from typing import Any
from uuid import UUID

from provisioning.drivers.base import Image, MachineSpec, Nic

MACHINE = UUID("5d9c6ef0-6c1e-4b57-8c1f-0d6c2f6a1b11")

NIC = Nic(
    mac="52:54:00:12:34:56",
    network="vps",
    addresses=(ip_interface("203.0.113.10/24"), ip_interface("2001:db8:113::10/64")),
    gateways=(ip_address("203.0.113.1"), ip_address("2001:db8:113::1")),
    nameservers=(ip_address("192.0.2.53"),),
    speed_mbps=100,
)

# What people type when they mean harm, or come from elsewhere.
HOSTILE = [
    "</title><devices/>",
    "; rm -rf / #",
    "'\"&amp;<>]]>",
    "Größe Żółw 服务器 🐢",
    "$(reboot) `reboot` %s {0}",
    "-ends with a space ",
]


def spec(**changes: Any) -> MachineSpec:
    values: dict[str, Any] = {
        "uuid": MACHINE,
        "name": "web",
        "account": "alice",
        "hostname": "web1.example.com",
        "vcpus": 2,
        "memory_mib": 1024,
        "disk_gib": 20,
        "image": Image(sha256="ab" * 32),
        "nics": (NIC,),
        "authorized_keys": ("ssh-ed25519 AAAA alice@laptop",),
    }
    return MachineSpec(**values | changes)
