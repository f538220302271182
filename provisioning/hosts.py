"""From rows to the driver: which host, and what to tell it."""

import os
from functools import lru_cache
from ipaddress import ip_address, ip_interface

from inventory.models import Hypervisor, IpAddress, Placement
from inventory.services import network_of
from provisioning.hypervisors import base
from provisioning.hypervisors.libvirt import LibvirtHypervisor
from servers.models import Server


def connect(hypervisor: Hypervisor) -> base.Hypervisor:
    """The driver of a host.  One connection for each process and host, opened when first used."""
    return _driver(
        os.getpid(), hypervisor.uri, hypervisor.domain_type, hypervisor.storage_pool, hypervisor.network
    )


@lru_cache(maxsize=1024)
def _driver(pid: int, uri: str, domain_type: str, pool: str, network: str) -> base.Hypervisor:
    return LibvirtHypervisor(uri=uri, domain_type=domain_type, pool=pool, networks=(network,))


def placement_of(server: Server) -> Placement:
    """Where a server is.  Raises MachineNotFound for one that holds no claim any more."""
    if server.placement is None:
        raise base.MachineNotFound(f"server {server.uuid} has no placement")
    return server.placement


def host_of(server: Server) -> base.Hypervisor:
    """The driver of the host that a server is on.  Raises MachineNotFound."""
    return connect(placement_of(server).hypervisor)


def spec_of(server: Server) -> base.MachineSpec:
    """All that the host must know to make this server's machine.  Raises MachineNotFound."""
    placement = placement_of(server)
    return base.MachineSpec(
        uuid=server.uuid,
        name=server.name,
        account=str(server.account.uuid),
        hostname=server.hostname,
        vcpus=placement.vcpus,
        memory_mib=placement.memory_mib,
        disk_gib=placement.disk_gib,
        image=base.Image(sha256=server.os_version.image_sha256),
        nics=(_nic_of(server, placement.mac, placement.hypervisor.network, _addresses_of(placement)),),
        authorized_keys=tuple(server.authorized_keys),
    )


def _addresses_of(placement: Placement) -> list[IpAddress]:
    return list(placement.addresses.select_related("pool").order_by("pool__family"))


def _nic_of(server: Server, mac: str, network: str, addresses: list[IpAddress]) -> base.Nic:
    pools = [address.pool for address in addresses]
    return base.Nic(
        mac=mac,
        network=network,
        addresses=tuple(ip_interface(f"{a.address}/{network_of(a.pool).prefixlen}") for a in addresses),
        gateways=tuple(ip_address(pool.gateway) for pool in pools),
        nameservers=tuple(ip_address(text) for pool in pools for text in pool.nameservers),
        speed_mbps=server.plan.speed_mbps,
    )
