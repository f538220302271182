"""Where the contract is tried out: a libvirt, what it has, and a look at it past the driver."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface
from itertools import count
from typing import Any
from uuid import uuid4

import libvirt

from provisioning.hypervisors.base import Hypervisor, Image, MachineSpec, Nic
from provisioning.hypervisors.libvirt import LibvirtHypervisor

# Of the network's addresses those that nobody else's tests take.
_numbers: Iterator[int] = count(150)


@dataclass
class Lab:
    uri: str
    domain_type: str
    pool: str
    network: str
    image: Image
    hypervisor: Hypervisor = field(init=False)

    def __post_init__(self) -> None:
        self.hypervisor = self.driver()
        self._eyes: Any = libvirt.open(self.uri)

    def driver(self, uri: str | None = None) -> LibvirtHypervisor:
        """A driver with a connection of its own."""
        return LibvirtHypervisor(
            uri or self.uri, domain_type=self.domain_type, pool=self.pool, networks=(self.network,)
        )

    @property
    def libvirt(self) -> Any:
        """Our own eyes; and libvirt's ``test:///`` lives only as long as somebody is connected to it."""
        if not self._eyes.isAlive():
            self._eyes = libvirt.open(self.uri)
        return self._eyes

    @property
    def storage(self) -> Any:
        return self.libvirt.storagePoolLookupByName(self.pool)

    def files(self) -> list[str]:
        """What really is in the pool."""
        self.storage.refresh()
        return sorted(volume.name() for volume in self.storage.listAllVolumes())

    def domain(self, spec: MachineSpec) -> Any:
        return self.libvirt.lookupByUUIDString(str(spec.uuid))

    def make(self, spec: MachineSpec) -> None:
        """All that comes before a start."""
        self.hypervisor.create_disk(spec)
        self.hypervisor.write_seed(spec)
        self.hypervisor.define(spec)

    def spec(self, **changes: Any) -> MachineSpec:
        number = next(_numbers)
        nic = Nic(
            mac=f"52:54:00:cc:00:{number:02x}",
            network=self.network,
            addresses=(ip_interface(f"203.0.113.{number}/24"), ip_interface(f"2001:db8:113::{number}/64")),
            gateways=(ip_address("203.0.113.1"), ip_address("2001:db8:113::1")),
            speed_mbps=100,
        )
        values: dict[str, Any] = {
            "uuid": uuid4(),
            "name": "a server",
            "account": "alice",
            "hostname": f"server{number}",
            "vcpus": 1,
            "memory_mib": 192,
            "disk_gib": 1,
            "image": self.image,
            "nics": (nic,),
            "authorized_keys": ("ssh-ed25519 AAAA alice@laptop",),
        }
        return MachineSpec(**values | changes)
