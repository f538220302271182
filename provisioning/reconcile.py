"""Compares the machines on a host with the rows, and corrects the status or the machine.

First the decisions, as values; then what they come to.  Servers with an open
operation are left alone.  A host that cannot be asked changes no status: what
its servers do is unknown, not off.
"""

import logging
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

from django.db import transaction

from accounts.actors import acting_as
from core import clock
from core.database import is_unavailable
from core.errors import Refusal
from core.one_by_one import see_to_each
from inventory import health
from inventory.models import Hypervisor
from provisioning import hypervisors
from provisioning.backup_steps import broken_off_on, clear_copy, copies_left_on
from provisioning.drivers.base import (
    HostUnreachable,
    HypervisorError,
    MachineDelivered,
    Power,
    Room,
    Usage,
)
from provisioning.host_facts import fault_of_room
from provisioning.strangers import fault_of_strangers
from provisioning.trials import leftover_trials_on, remove_trial_of
from servers import lifecycle, services
from servers.models import Server
from servers.selectors import (
    RECONCILE,
    active_servers_on,
    failed_creates_on,
    given_up_servers,
    idle_servers_on,
    servers_on,
)
from servers.states import PowerState, ServerStatus
from servers.usage import Sample, record_sample

log = logging.getLogger(__name__)

Left = TypeVar("Left")

# Percent of the storage pool.  With less, the machines would fill it again at once.
RESUME_AT_PERCENT = 1


class Action(StrEnum):
    """What follows from what a host says of one server."""

    CONFIRM = "confirm"  # the power is as the status says
    FOLLOW = "follow"  # somebody changed the power there: the status follows
    START_AGAIN = "start again"  # the machine died with its host or its process
    MISSING = "missing"  # the host does not know the machine: nothing is done, staff must look
    RUNS_SUSPENDED = "runs though suspended"  # nothing is done, staff must look
    REMOVE = "remove"  # the server was given up, and its machine is there again


@dataclass(frozen=True)
class Decision:
    server: Server
    action: Action
    power: PowerState


@acting_as(RECONCILE)
def reconcile(hypervisor: Hypervisor) -> list[Decision]:
    """Ask one host for the power of all its machines, and correct each idle server.

    Returns what was decided; nothing when the host could not be asked.
    """
    asked_at = clock.now()
    try:
        powers = hypervisors.driver_for(hypervisor).powers()
        decisions = _decisions(hypervisor, powers)
        fault = _fault(hypervisor)
        strangers = fault_of_strangers(hypervisor, powers)
        room = None if fault else hypervisors.driver_for(hypervisor).room()
    except HypervisorError as error:
        log.warning("host %s cannot be asked: %s", hypervisor, error)
        if not isinstance(error, HostUnreachable):
            health.record_answer(hypervisor, error=str(error))
        lifecycle.forget_power(servers_on(hypervisor))
        return []
    health.record_answer(hypervisor, error=fault or strangers or (fault_of_room(room) if room else ""))
    _apply_all(decisions, asked_at)
    if room:
        _reattach(hypervisor)
        _resume(hypervisor, powers, room)
    _remove_leftovers(hypervisor, decisions)
    remove_trials(hypervisor, powers)
    _clear_copies(hypervisor)
    return decisions


@acting_as(RECONCILE)
def reconcile_some(hypervisor: Hypervisor, machines: Collection[UUID]) -> None:
    """Reconcile those of a host's machines whose servers are idle, now.  Raises HypervisorError."""
    servers = list(idle_servers_on(hypervisor).filter(uuid__in=machines))
    if not servers:
        return  # most news is what a worker does, and the host need not be asked about it
    asked_at = clock.now()
    powers = hypervisors.driver_for(hypervisor).powers()
    decisions = [decision_on(server, powers.get(server.uuid)) for server in servers]
    _apply_all(decisions, asked_at)


def decide(hypervisor: Hypervisor) -> list[Decision]:
    """What should follow from what the host says now; nothing is changed.  Raises HypervisorError."""
    return _decisions(hypervisor, hypervisors.driver_for(hypervisor).powers())


def _decisions(hypervisor: Hypervisor, powers: Mapping[UUID, Power]) -> list[Decision]:
    return [
        *(decision_on(server, powers.get(server.uuid)) for server in idle_servers_on(hypervisor)),
        *_given_up(hypervisor, powers),
    ]


def _fault(hypervisor: Hypervisor) -> str:
    """Why this host cannot start machines, in libvirt's words; empty if it can.  Raises HostUnreachable."""
    try:
        hypervisors.driver_for(hypervisor).check_ready()
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


def _apply_all(decisions: list[Decision], asked_at: datetime) -> None:
    _confirm(decisions, asked_at)
    others = [decision for decision in decisions if decision.action != Action.CONFIRM]
    see_to_each("decision", others, lambda one: _apply(one, asked_at), concerns_all=is_unavailable)


def _apply(decision: Decision, asked_at: datetime) -> None:
    """Do what was decided, unless something was written about the server since its host was asked."""
    server, action = decision.server, decision.action
    log.warning("server %s: %s, for its host says %s", server.uuid, action, decision.power)
    if action == Action.REMOVE:
        return  # by _remove_leftovers, once all others are applied
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
    """Machines of servers that were given up, made late by a worker whose lease had ended."""
    found = given_up_servers().filter(uuid__in=list(machines))
    return [Decision(server, Action.REMOVE, PowerState.UNKNOWN) for server in found]


def _confirm(decisions: Iterable[Decision], asked_at: datetime) -> None:
    agreeing = defaultdict(list)
    for decision in decisions:
        if decision.action == Action.CONFIRM:
            agreeing[decision.power].append(decision.server.pk)
    for power, servers in agreeing.items():
        lifecycle.confirm(servers, power, asked_at)


def _reattach(hypervisor: Hypervisor) -> None:
    """Plug in again what fell off its network when somebody stopped that and started it again."""
    driver = hypervisors.driver_for(hypervisor)

    def plug_in(server: Server) -> None:
        driver.reattach(server.uuid)
        log.warning("server %s was off its network: plugged in again", server.uuid)

    try:
        off = driver.off_network()
        servers = idle_servers_on(hypervisor).filter(uuid__in=off) if off else ()
        see_to_each("server", servers, plug_in, concerns_all=_passes)
    except HypervisorError as error:
        log.warning("host %s: its machines cannot be plugged in: %s", hypervisor, error)


def _resume(hypervisor: Hypervisor, powers: Mapping[UUID, Power], room: Room) -> None:
    """Let machines go on that libvirt paused because they could not write, once there is room again."""
    waiting = [uuid for uuid, power in powers.items() if power.waits_for_room]
    if not waiting:
        return
    if not room.has_free(RESUME_AT_PERCENT):
        log.error("host %s: %d servers wait for room: %s", hypervisor, len(waiting), room)
        return
    driver = hypervisors.driver_for(hypervisor)

    def let_go_on(server: Server) -> None:
        driver.resume(server.uuid)
        log.warning("server %s was paused for lack of room: it goes on", server.uuid)

    servers = idle_servers_on(hypervisor).filter(uuid__in=waiting, status=ServerStatus.ACTIVE)
    try:
        see_to_each("server", servers, let_go_on, concerns_all=_passes)
    except HypervisorError as error:
        log.warning("host %s: its machines cannot go on: %s", hypervisor, error)


def _passes(error: Exception) -> bool:
    """Whether the host is away or busy: each further attempt may take a minute."""
    return is_unavailable(error) or (isinstance(error, HypervisorError) and error.passes)


def _remove_leftovers(hypervisor: Hypervisor, decisions: Iterable[Decision]) -> None:
    """Remove what late workers and failed creates left here, and release the claims of the latter.

    A machine that was delivered belongs to its customer and stays, whatever the rows say.
    Stops at the first failure: each attempt may take a minute, and the next round comes soon.
    """
    given_up = [decision.server for decision in decisions if decision.action == Action.REMOVE]
    left = [*given_up, *failed_creates_on(hypervisor)]
    random.shuffle(left)  # else one machine that can never be removed would block all behind it
    for server in left:
        try:
            hypervisors.driver_for(hypervisor).delete(server.uuid, unless_delivered=True)
        except MachineDelivered as delivered:
            log.error("server %s is %s, and yet: %s", server.uuid, server.status, delivered)
            continue
        except HypervisorError as error:
            log.warning("what is left of server %s stays for now: %s", server.uuid, error)
            return
        services.release_claims(server=server)


def remove_trials(hypervisor: Hypervisor, machines: Collection[UUID]) -> None:
    """Remove what trials of backups left here."""
    _clear_away(hypervisor, "trial", leftover_trials_on(hypervisor, machines), remove_trial_of)


def _clear_copies(hypervisor: Hypervisor) -> None:
    """Remove what backups left here that failed while this host could not be asked, or whose worker died."""
    left = [*copies_left_on(hypervisor), *broken_off_on(hypervisor)]
    _clear_away(hypervisor, "backup", left, clear_copy)


def _clear_away(
    hypervisor: Hypervisor, kind: str, left: Iterable[Left], clear: Callable[[Left], None]
) -> None:
    try:
        see_to_each(kind, left, clear, concerns_all=_passes)
    except HypervisorError as error:
        log.warning("host %s keeps what is left of a %s: %s", hypervisor, kind, error)


def sample_usage(hypervisor: Hypervisor) -> None:
    """Take one sample of every active server of a host."""
    servers = {server.uuid: server for server in active_servers_on(hypervisor)}
    if not servers:
        return
    try:
        samples = hypervisors.driver_for(hypervisor).usage(list(servers))
    except HypervisorError as error:
        log.warning("host %s gave no usage: %s", hypervisor, error)
        return
    now = clock.now()

    def record(told: tuple[UUID, Usage]) -> None:
        uuid, usage = told
        with transaction.atomic():
            record_sample(servers[uuid].usage, _sample(usage, now))

    see_to_each("sample", samples.items(), record, concerns_all=is_unavailable)


def _sample(usage: Usage, at: datetime) -> Sample:
    return Sample(
        at=at,
        cpu_time_ns=usage.cpu_time_ns,
        vcpus=usage.vcpus,
        memory_used_mib=usage.memory_used_mib,
        disk_used_gib=round(usage.disk_used_gib),
        received_bytes=usage.received_bytes,
        sent_bytes=usage.sent_bytes,
    )
