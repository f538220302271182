"""One operation in one worker's hands, and how a step says that it is not done."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from backups.models import Backup
from images.models import Image
from provisioning import hypervisors, machine_specs
from provisioning.drivers.base import Driver, MachineSpec
from servers import lifecycle
from servers.models import Operation, Server
from servers.states import PowerState, ServerStatus
from servers.wishes import Wish, made_from


class AskAgain(Exception):
    """The step is not done yet: repeat it in so many seconds."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(delay_s)
        self.delay_s = delay_s


class StartOver(Exception):
    """What was done so far is worthless: begin with the first step, a while later.  Says why, for staff."""


class GaveUp(Exception):
    """The step will not come true: a stable code and a sentence for the customer."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code, self.sentence = code, sentence


@dataclass
class Job:
    """One operation in one worker's hands."""

    operation: Operation

    @cached_property
    def server(self) -> Server:
        """The server that it is about, or that the backup is of.

        Raises WrongSubject in an operation about a host, and GaveUp for a backup whose server is deleted.
        """
        if self.operation.backup_id is None:
            return self.operation.subject_server
        rows = Server.objects.select_related("account", "port", "home__hypervisor", "base_image")
        found = rows.filter(pk=self.backup.server_id).exclude(home=None).first()
        if found is None:
            raise GaveUp("server_deleted", "The server was deleted.")
        return found

    @cached_property
    def backup(self) -> Backup:
        """The backup that it is about.  Raises WrongSubject."""
        return self.operation.subject_backup

    @cached_property
    def source(self) -> Backup | None:
        """The backup that the disk is made from; None: it is made from an image."""
        backup_id = made_from(self.wish)
        return None if backup_id is None else Backup.objects.select_related("account").get(pk=backup_id)

    @cached_property
    def host(self) -> Driver:
        return hypervisors.driver_of(self.server)

    @cached_property
    def wish(self) -> Wish:
        return self.operation.typed_wish

    @cached_property
    def image(self) -> Image:
        return machine_specs.image_of(self.server, self.wish)

    @cached_property
    def spec(self) -> MachineSpec:
        return machine_specs.spec_of(self.server, self.wish)

    @property
    def seconds_in_step(self) -> float:
        return lifecycle.seconds_in_step(self.operation)

    @property
    def was_active(self) -> bool:
        """Before this operation, or before the suspension that it ends."""
        return (self.server.suspended_from or self.operation.status_before) == ServerStatus.ACTIVE

    def forget_wish(self) -> None:
        """From now on the machine should be what its server is, and not what was asked for."""
        self.wish = Wish()
        self.__dict__.pop("image", None)
        self.__dict__.pop("spec", None)

    def require_ours(self) -> None:
        """Raises LeaseLost when another worker may be at work on the operation, or nobody should be."""
        lifecycle.renew(self.operation)

    def power(self) -> PowerState:
        return self.host.power(self.server.uuid).state


Step = Callable[[Job], None]
