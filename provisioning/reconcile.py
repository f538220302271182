"""Compares what a host has with what we say, and follows or heals.

First the decisions, as values; then what they come to.  Servers with an open
operation are left alone.  A host that cannot be asked changes no status: what
its servers do is unknown, not off.
"""

import logging
import random
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from django.utils import timezone

from inventory import contact
from inventory.models import Hypervisor
from provisioning import hosts
from provisioning.hypervisors.base import HostUnreachable, HypervisorError, Power
from servers import lifecycle, services
from servers.models import Server
from servers.selectors import (
    active_servers_on,
    failed_creates_on,
    given_up_servers,
    idle_servers_on,
    servers_on,
)
from servers.states import PowerState, ServerStatus
from servers.usage import Sample, record_sample
from vpsorg import clock
from vpsorg.errors import Refusal

log = logging.getLogger(__name__)


class Action(StrEnum):
    """What follows from what a host says of one server."""

    CONFIRM = "confirm"  # it is as promised
    FOLLOW = "follow"  # somebody changed it there: the status follows
    START_AGAIN = "start again"  # it died with its host or its process
    MISSING = "missing"  # its host does not know it: nothing is done, staff must look
    RUNS_SUSPENDED = "runs though suspended"  # likewise
    REMOVE = "remove"  # it was given up, and something of it is there again


@dataclass(frozen=True)
class Decision:
    server: Server
    action: Action
    power: PowerState


def reconcile(hypervisor: Hypervisor) -> list[Decision]:
    """Ask one host for the power of all its machines, and settle each idle server accordingly.

    Returns what was decided; nothing when the host could not be asked.
    """
    asked_at = clock.now()
    try:
        decisions = decide(hypervisor)
        fault = _fault(hypervisor)
    except HypervisorError as error:
        log.warning("host %s cannot be asked: %s", hypervisor, error)
        if not isinstance(error, HostUnreachable):
            contact.record_answer(hypervisor, error=str(error))
        lifecycle.forget_power(servers_on(hypervisor))
        return []
    contact.record_answer(hypervisor, error=fault)
    _settle_all(decisions, asked_at)
    _remove_leftovers(hypervisor, decisions)
    return decisions


def reconcile_some(hypervisor: Hypervisor, machines: Collection[UUID]) -> None:
    """Settle those of a host's machines whose servers are idle, now.  Raises HypervisorError."""
    servers = list(idle_servers_on(hypervisor).filter(uuid__in=machines))
    if not servers:
        return  # most news is what a worker does, and the host need not be asked about it
    asked_at = clock.now()
    powers = hosts.connect(hypervisor).powers()
    decisions = [decision_on(server, powers.get(server.uuid)) for server in servers]
    _settle_all(decisions, asked_at)


def decide(hypervisor: Hypervisor) -> list[Decision]:
    """What should follow from what the host says now; nothing is changed.  Raises HypervisorError."""
    powers = hosts.connect(hypervisor).powers()
    return [
        *(decision_on(server, powers.get(server.uuid)) for server in idle_servers_on(hypervisor)),
        *_given_up(hypervisor, powers),
    ]


def _fault(hypervisor: Hypervisor) -> str:
    """What keeps this host from starting machines, in libvirt's words.  Raises HostUnreachable."""
    try:
        hosts.connect(hypervisor).check_ready()
    except HostUnreachable:
        raise
    except HypervisorError as error:
        log.warning("host %s can start no machine: %s", hypervisor, error)
        return str(error)
    return ""


def decision_on(server: Server, power: Power | None) -> Decision:
    """What follows for one idle server; ``power`` None: its host does not know it."""
    if power is None:
        return Decision(server, Action.MISSING, PowerState.UNKNOWN)
    if (server.status, power.state) == (ServerStatus.SUSPENDED, PowerState.RUNNING):
        return Decision(server, Action.RUNS_SUSPENDED, power.state)
    contradicted = lifecycle.contradicted_by(power.state, ServerStatus(server.status))
    if not contradicted:
        return Decision(server, Action.CONFIRM, power.state)
    died = contradicted == ServerStatus.STOPPED and not power.off_on_purpose
    return Decision(server, Action.START_AGAIN if died else Action.FOLLOW, power.state)


def _settle_all(decisions: list[Decision], asked_at: datetime) -> None:
    _confirm(decisions, asked_at)
    for decision in decisions:
        if decision.action != Action.CONFIRM:
            _settle(decision, asked_at)


def _settle(decision: Decision, asked_at: datetime) -> None:
    """Do what was decided, unless something was written about the server since its host was asked."""
    server, action = decision.server, decision.action
    log.warning("server %s: %s, for its host says %s", server.uuid, action, decision.power)
    if action == Action.REMOVE:
        return  # by _remove_leftovers, once all others are settled
    try:
        services.follow_host(
            server=server,
            power=decision.power,
            start_again=action == Action.START_AGAIN,
            asked_at=asked_at,
        )
    except Refusal as refusal:
        log.info("server %s: %s", server.uuid, refusal)  # somebody was quicker


def _given_up(hypervisor: Hypervisor, machines: Iterable[UUID]) -> list[Decision]:
    """What a worker that was taken for dead made after all of servers that were given up before."""
    found = given_up_servers().filter(uuid__in=list(machines))
    return [Decision(server, Action.REMOVE, PowerState.UNKNOWN) for server in found]


def _confirm(decisions: Iterable[Decision], asked_at: datetime) -> None:
    agreeing = defaultdict(list)
    for decision in decisions:
        if decision.action == Action.CONFIRM:
            agreeing[decision.power].append(decision.server.pk)
    for power, servers in agreeing.items():
        lifecycle.confirm(servers, power, asked_at)


def _remove_leftovers(hypervisor: Hypervisor, decisions: Iterable[Decision]) -> None:
    """Remove what late workers and failed creates left here, and release the claims of the latter.

    Until the first that does not succeed: each such attempt may take a minute, and the next round comes soon.
    """
    given_up = [decision.server for decision in decisions if decision.action == Action.REMOVE]
    left = [*given_up, *failed_creates_on(hypervisor)]
    random.shuffle(left)  # or one that is stuck for good would keep all behind it for ever
    for server in left:
        try:
            hosts.connect(hypervisor).delete(server.uuid)
        except HypervisorError as error:
            log.warning("what is left of server %s stays for now: %s", server.uuid, error)
            return
        services.release_claims(server=server)


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
