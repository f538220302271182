from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from inventory import contact
from inventory.models import Hypervisor
from provisioning import hosts
from provisioning.hypervisors.base import HostUnreachable, HypervisorError


class Command(BaseCommand):
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
            facts = hosts.driver(host).facts()
        except HypervisorError as error:
            if isinstance(error, HostUnreachable):
                contact.record_silence(host, str(error))
            else:
                contact.record_answer(host, error=str(error))
            self.stdout.write(f"{host}: {error.code}: {error}")
            return False
        contact.record_answer(host)
        self.stdout.write(
            f"{host}: {facts.hostname}, libvirt {facts.libvirt_version}, {facts.vcpus} CPUs, "
            f"{facts.memory_mib} MiB, pool {facts.disk_free_gib} of {facts.disk_gib} GiB free"
        )
        if facts.domain_type != host.domain_type:
            self.stdout.write(
                f"{host}: is registered as {host.domain_type}, but {facts.domain_type} works there"
            )
        return True
