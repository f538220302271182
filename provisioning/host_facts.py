"""Asks one host for its capabilities, capacity and faults, and records the answer in its row."""

from django.conf import settings

from inventory import health
from inventory.models import Hypervisor
from provisioning import hypervisors
from provisioning.drivers.base import HostUnreachable, HypervisorError, Room


def ask(hypervisor: Hypervisor) -> str:
    """Ask the host and record the answer.  Returns it as a sentence.

    Not behind the circuit breaker: the host is asked although it did not answer a moment ago.
    Raises HypervisorError, which is recorded too: new servers are put elsewhere meanwhile.
    """
    driver = hypervisors.bare_driver_for(hypervisor)
    try:
        facts, off_network = driver.facts(), driver.off_network()
    except HypervisorError as error:
        if isinstance(error, HostUnreachable):
            health.record_failure(hypervisor, str(error))
        else:
            health.record_answer(hypervisor, error=str(error))
        raise
    little_room = fault_of_room(facts.room)
    health.record_answer(hypervisor, error=little_room)
    answer = (
        f"{facts.hostname}, libvirt {facts.libvirt_version}, {facts.vcpus} CPUs, {facts.memory_mib} MiB, "
        f"in its pool {facts.room}"
    )
    if facts.domain_type != hypervisor.domain_type:
        answer += f"; it is registered as {hypervisor.domain_type}, but {facts.domain_type} works there"
    if little_room:
        answer += f"; {little_room} Until there is more room it takes no new servers."
    if off_network:
        answer += f"; {len(off_network)} of its machines are off their network, reconcile plugs them in again"
    return answer


def fault_of_room(room: Room) -> str:
    """A sentence if less of the storage pool is free than VPS_POOL_RESERVE; else an empty text."""
    if room.has_free(settings.VPS_POOL_RESERVE):
        return ""
    return f"Its storage pool is nearly full: {room}, and {settings.VPS_POOL_RESERVE} % should be."
