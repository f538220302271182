from typing import Any

from django.core.management.base import CommandError, CommandParser

from core.commands import OurCommand
from inventory.models import Hypervisor
from provisioning import host_facts
from provisioning.drivers.base import HypervisorError


class Command(OurCommand):
    help = (
        "Ask a registered host what it is and has, and say what is wrong with it. Ends with status 1 when it "
        "cannot carry our machines. Without a name: all hosts. Example: manage.py check_hypervisor kvm1"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", nargs="?", help="default: all of them")

    def handle(self, *args: Any, name: str | None, **options: Any) -> None:
        found = Hypervisor.objects.filter(name=name) if name else Hypervisor.objects.all()
        if not found:
            raise CommandError(
                f"There is no host {name}." if name else "No host is registered: add_hypervisor."
            )
        broken = [host.name for host in found if not self._check(host)]
        if broken:
            raise CommandError(f"Not in order: {', '.join(broken)}.")

    def _check(self, host: Hypervisor) -> bool:
        try:
            self.stdout.write(f"{host}: {host_facts.ask(host)}")
        except HypervisorError as error:
            self.stdout.write(f"{host}: {error.code}: {error}")
            return False
        return True
