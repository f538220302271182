"""How each kind of operation is done: named steps, in reading order.

Each step may be repeated: after a crash the step that was under way is done
again.  A step that must wait does not sleep; it raises ``AskAgain`` and frees
the worker.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from django.conf import settings
from django.utils import timezone

from provisioning import hosts
from provisioning.hypervisors.base import Hypervisor, MachineSpec
from servers import lifecycle, services
from servers.models import Operation, Server
from servers.states import OperationKind, PowerState, ServerStatus
from vpsorg.only_one import only_one

ASK_TO_SHUT_DOWN_EVERY = 10  # seconds: a guest that was still booting missed the first time


class AskAgain(Exception):
    """Not yet: do this step again in so many seconds."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(delay_s)
        self.delay_s = delay_s


class GaveUp(Exception):
    """The step will not come true: a stable code and a sentence for the customer."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code, self.sentence = code, sentence


@dataclass
class Job:
    """One operation in one worker's hands."""

    operation: Operation

    @property
    def server(self) -> Server:
        return self.operation.server

    @cached_property
    def host(self) -> Hypervisor:
        return hosts.host_of(self.server)

    @cached_property
    def spec(self) -> MachineSpec:
        return hosts.spec_of(self.operation)

    @property
    def seconds_in_step(self) -> float:
        since = self.operation.step_since or timezone.now()
        return (timezone.now() - since).total_seconds()

    @property
    def was_active(self) -> bool:
        """Before this operation, or before the suspension that it ends."""
        return (self.server.suspended_from or self.operation.status_before) == ServerStatus.ACTIVE

    def forget_wish(self) -> None:
        """The machine should be what its server is, and not what was asked for: ask the rows again."""
        self.operation.plan = None
        self.__dict__.pop("spec", None)

    def power(self) -> PowerState:
        return self.host.power(self.server.uuid).state


Step = Callable[[Job], None]


def fetch_image(job: Job) -> None:
    """Put the image into the host's cache, once: one worker copies, the others ask again."""
    if job.host.has_image(job.spec.image):
        return
    host_id = hosts.placement_of(job.server).hypervisor_id
    with only_one(f"image {job.spec.image.sha256} on host {host_id}") as mine:
        if not mine:
            raise AskAgain(2)
        job.host.put_image(job.spec.image, settings.VPS_IMAGE_DIR / f"{job.spec.image.sha256}.qcow2")


def make_disk(job: Job) -> None:
    job.host.create_disk(job.spec)


def write_seed(job: Job) -> None:
    job.host.write_seed(job.spec)


def define(job: Job) -> None:
    job.host.define(job.spec)


def power_on(job: Job) -> None:
    job.host.start(job.server.uuid)


def await_guest(job: Job) -> None:
    """Until the guest agent answers and the guest has its addresses; without an agent, until it runs.

    One that died meanwhile, with its host or its process, is started again.
    """
    power = job.host.power(job.server.uuid)
    if power.off_on_purpose:
        raise GaveUp("guest_stopped", "The server switched itself off while it was starting.")
    runs = power.state in {PowerState.RUNNING, PowerState.PAUSED}
    addresses = tuple(address.ip for nic in job.spec.nics for address in nic.addresses)
    if runs and not job.server.os_version.has_agent:
        lifecycle.record_addresses(job.operation, addresses)
        return
    guest = job.host.guest(job.server.uuid) if runs else None
    too_long = job.seconds_in_step > settings.VPS_BOOT_TIMEOUT
    if guest and (too_long or set(addresses) <= set(guest.addresses)):
        lifecycle.record_addresses(job.operation, guest.addresses)
    elif too_long:
        raise GaveUp(
            "guest_timeout", f"The server did not come up within {settings.VPS_BOOT_TIMEOUT} seconds."
        )
    else:
        if not runs:
            job.host.start(job.server.uuid)
        raise AskAgain(1)


def ask_to_shut_down(job: Job) -> None:
    job.host.shut_down(job.server.uuid)


def await_power_off(job: Job) -> None:
    """Until the guest is off.  It is asked again now and then, and at last its power is cut."""
    if job.power() == PowerState.OFF:
        return
    limit = settings.VPS_SHUTDOWN_TIMEOUT
    if job.seconds_in_step > limit:
        job.host.power_off(job.server.uuid)
        lifecycle.note(
            job.operation, f"The system did not shut down within {limit} seconds: its power was cut."
        )
        return
    waited = job.seconds_in_step
    # We come by about once a second: once or twice in each of these gaps.
    if waited > ASK_TO_SHUT_DOWN_EVERY and waited % ASK_TO_SHUT_DOWN_EVERY < 1.5:
        job.host.shut_down(job.server.uuid)
    raise AskAgain(1)


def remove_machine(job: Job) -> None:
    if job.server.placement is not None:
        job.host.delete(job.server.uuid)


def release_claims(job: Job) -> None:
    # The placement goes last: what a host may still hold, we must still know of.
    services.release_claims(server=job.server)


def cut_power(job: Job) -> None:
    job.host.power_off(job.server.uuid)


def grow_disk(job: Job) -> None:
    job.host.grow_disk(job.spec)


def adopt(job: Job) -> None:
    lifecycle.adopt(job.operation)
    services.settle_claims(operation=job.operation)


def power_on_again(job: Job) -> None:
    if job.was_active:
        power_on(job)


def await_guest_again(job: Job) -> None:
    if job.was_active:
        await_guest(job)


def return_claims(job: Job) -> None:
    """Unless the new plan was adopted already: then it stays the server's."""
    services.settle_claims(operation=job.operation)
    job.forget_wish()


K = OperationKind

WORKFLOWS: dict[OperationKind, tuple[Step, ...]] = {
    K.CREATE: (fetch_image, make_disk, write_seed, define, power_on, await_guest),
    K.START: (write_seed, define, power_on, await_guest),
    K.STOP: (ask_to_shut_down, await_power_off),
    K.HARD_STOP: (cut_power,),
    K.REBOOT: (ask_to_shut_down, await_power_off, write_seed, power_on, await_guest),
    K.RESIZE: (
        ask_to_shut_down,
        await_power_off,
        define,
        grow_disk,
        adopt,
        power_on_again,
        await_guest_again,
    ),
    # The image comes first: a server loses its disk only for one that can be made.
    K.REBUILD: (
        fetch_image,
        remove_machine,
        make_disk,
        adopt,
        write_seed,
        define,
        power_on,
        await_guest,
    ),
    K.SUSPEND: (ask_to_shut_down, await_power_off),
    K.UNSUSPEND: (write_seed, define, power_on_again, await_guest_again),
    K.DELETE: (remove_machine, release_claims),
}

UNDO_STEPS: dict[OperationKind, tuple[Step, ...]] = {
    K.CREATE: (remove_machine, release_claims),
    K.REBOOT: (power_on_again,),
    K.RESIZE: (return_claims, define, power_on_again),
}
