"""Gives the driver for a ``Hypervisor`` row: one connection for each process and host."""

from functools import lru_cache
from typing import cast
from uuid import UUID

from inventory.models import Hypervisor, Placement, Port
from provisioning.circuit_breaker import CircuitBreaker
from provisioning.drivers import base
from provisioning.drivers.libvirt import LibvirtDriver
from servers.models import Server


def driver_of(server: Server) -> base.Driver:
    """The driver of the host that a server is on.  Raises MachineNotFound for a server without a claim."""
    return driver_for(home_of(server).hypervisor)


def driver_for(hypervisor: Hypervisor) -> base.Driver:
    """The host's driver behind its circuit breaker: while that is open, calls raise HostUnreachable."""
    return cast(base.Driver, CircuitBreaker(hypervisor, bare_driver_for(hypervisor)))


def bare_driver_for(hypervisor: Hypervisor) -> base.Driver:
    """The host's driver without a circuit breaker.  The connection opens at its first call."""
    return _driver(
        hypervisor.uri,
        hypervisor.domain_type,
        hypervisor.storage_pool,
        hypervisor.network,
        hypervisor.host_uuid,
    )


@lru_cache(maxsize=1024)
def _driver(uri: str, domain_type: str, pool: str, network: str, host_uuid: UUID | None) -> base.Driver:
    return LibvirtDriver(
        uri=uri, domain_type=domain_type, pool=pool, networks=(network,), host_uuid=host_uuid
    )


def home_of(server: Server) -> Placement:
    """The server's claim on its host.  Raises MachineNotFound for a server without a claim."""
    if server.home is None:
        raise base.MachineNotFound(f"server {server.uuid} has no placement")
    return server.home


def port_of(server: Server) -> Port:
    """The server's network card.  Raises MachineNotFound for a server without one."""
    if server.port is None:
        raise base.MachineNotFound(f"server {server.uuid} has no network card")
    return server.port
