from typing import Any

from django.core.management.base import CommandError, CommandParser

from core.commands import OurCommand
from inventory.models import Hypervisor
from inventory.services import recount


class Command(OurCommand):
    help = (
        "Correct the counters of what hypervisors have sold (verify: HOST_COUNTERS): they become the sums of "
        "what servers hold there. Prints each counter that was wrong. May run while servers are made. "
        "Example: manage.py recount --dry-run"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", nargs="*", metavar="NAME", help="of these hypervisors; default: all")
        parser.add_argument("--dry-run", action="store_true", help="print what is wrong and change nothing")

    def handle(self, *args: Any, name: list[str], dry_run: bool, **options: Any) -> None:
        hosts = Hypervisor.objects.filter(name__in=name) if name else Hypervisor.objects.all()
        if unknown := sorted(set(name) - {host.name for host in hosts}):
            raise CommandError(f"There is no hypervisor {', '.join(unknown)}.")
        for host in hosts:
            for counter, (before, after) in recount(host, dry_run=dry_run).items():
                self.stdout.write(f"{host}: {counter} {before} -> {after}")
