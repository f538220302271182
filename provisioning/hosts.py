"""From rows to the driver: which host, and what to tell it."""

from functools import lru_cache
from ipaddress import ip_address, ip_interface
from typing import cast

from inventory.models import Hypervisor, Placement
from inventory.services import network_of
from plans.models import Plan
from provisioning.circuit_breaker import CircuitBreaker
from provisioning.hypervisors import base
from provisioning.hypervisors.libvirt import LibvirtHypervisor
from servers.models import Operation, Server


def connect(hypervisor: Hypervisor) -> base.Hypervisor:
    """The driver of a host behind its circuit breaker: while it is silent calls raise HostUnreachable."""
    return cast(base.Hypervisor, CircuitBreaker(hypervisor, driver(hypervisor)))


def driver(hypervisor: Hypervisor) -> base.Hypervisor:
    """The bare driver.  One connection for each process and host, opened when first used."""
    return _driver(hypervisor.uri, hypervisor.domain_type, hypervisor.storage_pool, hypervisor.network)


@lru_cache(maxsize=1024)
def _driver(uri: str, domain_type: str, pool: str, network: str) -> base.Hypervisor:
    return LibvirtHypervisor(uri=uri, domain_type=domain_type, pool=pool, networks=(network,))


def placement_of(server: Server) -> Placement:
    """Where a server is.  Raises MachineNotFound for one that holds no claim any more."""
    if server.placement is None:
        raise base.MachineNotFound(f"server {server.uuid} has no placement")
    return server.placement


def host_of(server: Server) -> base.Hypervisor:
    """The driver of the host that a server is on.  Raises MachineNotFound."""
    return connect(placement_of(server).hypervisor)


def spec_of(operation: Operation) -> base.MachineSpec:
    """All that the host must know to make the machine as this operation wants it.  Raises MachineNotFound."""
    server = operation.server
    placement = placement_of(server)
    size = operation.plan or placement  # while a resize is under way, more may be claimed than it will be
    return base.MachineSpec(
        uuid=server.uuid,
        name=server.name,
        account=str(server.account.uuid),
        hostname=server.hostname,
        vcpus=size.vcpus,
        memory_mib=size.memory_mib,
        disk_gib=size.disk_gib,
        image=base.Image(sha256=(operation.os_version or server.os_version).image_sha256),
        nics=(_nic_of(placement, operation.plan or server.plan),),
        authorized_keys=tuple(server.authorized_keys),
    )


def _nic_of(placement: Placement, plan: Plan) -> base.Nic:
    addresses = list(placement.addresses.select_related("pool").order_by("pool__family"))
    pools = [address.pool for address in addresses]
    return base.Nic(
        mac=placement.mac,
        network=placement.hypervisor.network,
        addresses=tuple(ip_interface(f"{a.address}/{network_of(a.pool).prefixlen}") for a in addresses),
        gateways=tuple(ip_address(pool.gateway) for pool in pools),
        nameservers=tuple(ip_address(text) for pool in pools for text in pool.nameservers),
        speed_mbps=plan.speed_mbps,
    )
