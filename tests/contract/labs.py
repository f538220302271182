"""Where the contract is tried out: a libvirt, what it has, and a look at it past the driver."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface
from itertools import cycle
from typing import Any
from uuid import uuid4

import libvirt

from provisioning.drivers.base import Driver, Image, MachineSpec, Nic
from provisioning.drivers.libvirt import LibvirtDriver

# Of the network's addresses those that nobody else's tests take, over and over: a test removes its machines.
_numbers: Iterator[int] = cycle(range(150, 255))


@dataclass
class Lab:
    uri: str
    domain_type: str
    pool: str
    network: str
    image: Image
    driver: Driver = field(init=False)

    def __post_init__(self) -> None:
        self.driver = self.new_driver()
        self._eyes: Any = libvirt.open(self.uri)

    def new_driver(self, uri: str | None = None) -> LibvirtDriver:
        """A driver with a connection of its own."""
        return LibvirtDriver(
            uri or self.uri, domain_type=self.domain_type, pool=self.pool, networks=(self.network,)
        )

    @property
    def libvirt(self) -> Any:
        """Our own eyes; and libvirt's ``test:///`` lives only as long as somebody is connected to it."""
        try:
            self._eyes.getLibVersion()  # isAlive() does not know yet of a libvirtd that was killed just now
        except libvirt.libvirtError:
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
        self.driver.create_disk(spec)
        self.driver.write_seed(spec)
        self.driver.define(spec)

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
