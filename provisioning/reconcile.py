"""Compares what a host has with what we say, and follows or heals.

Servers with an open operation are left alone.  A host that cannot be asked
changes no status: what its servers do is unknown, not off.
"""

import logging
from datetime import datetime

from django.utils import timezone

from inventory import services as inventory
from inventory.models import Hypervisor
from provisioning import hosts
from provisioning.hypervisors.base import HostUnreachable, HypervisorError, Power
from servers import lifecycle, services
from servers.models import Server
from servers.selectors import active_servers_on, failed_creates_with_claims, idle_servers_on, servers_on
from servers.states import PowerState, ServerStatus
from servers.usage import Sample, record_sample

log = logging.getLogger(__name__)


def reconcile(hypervisor: Hypervisor) -> None:
    """Ask one host for the power of all its machines, and settle each idle server accordingly."""
    asked_at = timezone.now()
    try:
        powers = hosts.connect(hypervisor).powers()
    except HypervisorError as error:
        log.warning("host %s cannot be asked: %s", hypervisor, error)
        inventory.record_contact(
            hypervisor, error=str(error), reachable=not isinstance(error, HostUnreachable)
        )
        lifecycle.forget_power(servers_on(hypervisor))
        return
    inventory.record_contact(hypervisor)
    for server in idle_servers_on(hypervisor):
        _settle(server, powers.get(server.uuid), asked_at)


def _settle(server: Server, power: Power | None, asked_at: datetime) -> None:
    if power is None:
        log.error("server %s is missing on its host", server.uuid)
        lifecycle.observe(server, PowerState.UNKNOWN, asked_at)
        return
    if server.status == ServerStatus.SUSPENDED and power.state != PowerState.OFF:
        log.error("server %s is suspended and is %s on its host", server.uuid, power.state)
    services.follow_host(
        server=server, power=power.state, vanished=not power.off_on_purpose, asked_at=asked_at
    )


def sample_usage(hypervisor: Hypervisor) -> None:
    """Take one sample of every active server of a host."""
    servers = {server.uuid: server for server in active_servers_on(hypervisor)}
    if not servers:
        return
    try:
        samples = hosts.connect(hypervisor).usage(list(servers))
    except HypervisorError as error:
        log.warning("host %s gave no usage: %s", hypervisor, error)
        return
    now = timezone.now()
    for uuid, usage in samples.items():
        sample = Sample(
            at=now,
            cpu_time_ns=usage.cpu_time_ns,
            vcpus=usage.vcpus,
            memory_used_mib=usage.memory_used_mib,
            disk_used_gib=round(usage.disk_used_gib),
            received_bytes=usage.received_bytes,
            sent_bytes=usage.sent_bytes,
        )
        record_sample(servers[uuid].usage, sample)


def clear_failed_creates() -> None:
    """Remove what failed creates left on hosts that did not answer at the time, and release their claims."""
    for server in failed_creates_with_claims():
        try:
            hosts.host_of(server).delete(server.uuid)
        except HypervisorError as error:
            log.warning("server %s in error still holds its claims: %s", server.uuid, error)
            continue
        services.release_claims(server=server)
