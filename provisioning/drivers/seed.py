"""The NoCloud seed: the small CD from which cloud-init learns who it is.

All three files are JSON, which a YAML reader reads too: values from customers
go through ``json.dumps`` and are never part of a text that somebody parses.
"""

import json
from io import BytesIO
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pycdlib

from .base import MachineSpec, Nic

# Where JSON and YAML part: YAML reads an escaped pair of surrogates as two broken characters, so what lies
# beyond 16 bits stays as it is; and in a YAML string these would break the line or be refused.
_UNPRINTABLE = (*range(0x7F, 0xA0), 0x2028, 0x2029, *range(0xD800, 0xE000), 0xFEFF, 0xFFFE, 0xFFFF)
_ESCAPES = {code: f"\\u{code:04x}" for code in _UNPRINTABLE}

_FILES = ("meta-data", "user-data", "network-config")


def seed_iso(spec: MachineSpec) -> bytes:
    """The whole CD image, as cloud-init's NoCloud expects it: labelled ``cidata``."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    contents = (
        _json(meta_data(spec)),
        "#cloud-config\n" + _json(user_data(spec)),
        _json(network_config(spec)),
    )
    for name, content in zip(_FILES, contents, strict=True):
        data = content.encode()
        iso_path = f"/{name.replace('-', '_').upper()}.;1"
        iso.add_fp(BytesIO(data), len(data), iso_path, rr_name=name, joliet_path=f"/{name}")
    image = BytesIO()
    iso.write_fp(image)
    iso.close()
    return image.getvalue()


def meta_data(spec: MachineSpec) -> dict[str, Any]:
    return {"instance-id": str(spec.uuid), "local-hostname": _kernel_name(spec.hostname)}


def _kernel_name(hostname: str) -> str:
    """The whole name, or its first label: Linux takes 64 characters, and a domain name may have 253."""
    return hostname if len(hostname) <= 64 else hostname.partition(".")[0]


def user_data(spec: MachineSpec) -> dict[str, Any]:
    """Root with the customer's keys and without a password, its name, and the disk's full size.

    Stock images let nobody in as root: Debian's and Ubuntu's answer "Please login as the user
    debian" through a forced command, which ``disable_root`` switches off.  A list of users
    without ``default`` keeps that second user from being made.
    """
    return {
        "hostname": spec.hostname.partition(".")[0],
        "fqdn": spec.hostname,
        # The guest is called what the customer typed, where the kernel has room for it.
        "prefer_fqdn_over_hostname": _kernel_name(spec.hostname) == spec.hostname,
        "preserve_hostname": False,
        "manage_etc_hosts": "localhost",
        "disable_root": False,
        "ssh_pwauth": False,
        "users": [{"name": "root", "ssh_authorized_keys": list(spec.authorized_keys)}],
        "growpart": {"mode": "auto", "devices": ["/"]},
        "resize_rootfs": True,
    }


def network_config(spec: MachineSpec) -> dict[str, Any]:
    named = {f"nic{number}" if number else "primary": nic for number, nic in enumerate(spec.nics)}
    ethernets = {name: _ethernet(nic, number) for number, (name, nic) in enumerate(named.items())}
    return {"version": 2, "ethernets": ethernets}


def _ethernet(nic: Nic, number: int) -> dict[str, Any]:
    ethernet: dict[str, Any] = {
        "match": {"macaddress": nic.mac},
        # Without it cloud-init writes some distributions' files for a card that is called "primary".
        "set-name": f"eth{number}",
        "dhcp4": False,
        "dhcp6": False,
        # An address the guest made up from a router's advertisement would not pass the host's filter.
        "accept-ra": False,
        "addresses": [str(address) for address in nic.addresses],
        "routes": [],
        "nameservers": {"addresses": [str(server) for server in nic.nameservers]},
    }
    for gateway in nic.gateways:
        is_near = any(gateway in address.network for address in nic.addresses)
        if gateway.version == 6 and (is_near or gateway.is_link_local):
            # Not as a route: cloud-init (22.4, in Debian 12) turns ::/0 into ::/64 for all but netplan.
            ethernet["gateway6"] = str(gateway)
        else:
            ethernet["routes"].append(_default_route(gateway, is_near))
    return ethernet


def _default_route(gateway: IPv4Address | IPv6Address, is_near: bool) -> dict[str, Any]:
    route: dict[str, Any] = {"to": "0.0.0.0/0" if gateway.version == 4 else "::/0", "via": str(gateway)}
    if not is_near:
        route["on-link"] = (
            True  # as with a single /32: the gateway is a neighbour, yet in none of our networks
        )
    return route


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False).translate(_ESCAPES)
