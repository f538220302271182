from typing import Any

from django.core.management.base import CommandError, CommandParser

from core.api.references import named_by
from core.commands import OurCommand, whole_number
from provisioning import hypervisors
from provisioning.drivers.base import HypervisorError
from servers.models import Server


class Command(OurCommand):
    help = (
        "Print the end of what a server's guest wrote to its serial console, over all its boots: why a guest "
        "does not come up is mostly there. Control characters are shown as \\x1b: a guest must not write to "
        "your terminal. Example: manage.py console_log 42"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("server", metavar="SERVER", help="its id or uuid")
        parser.add_argument(
            "--bytes", type=whole_number(1, 1_048_576), default=65_536, metavar="N", help="at most N (65536)"
        )

    def handle(self, *args: Any, server: str, **options: Any) -> None:
        found = Server.objects.select_related("home__hypervisor").filter(named_by(server)).first()
        if found is None:
            raise CommandError(f"There is no server {server}.")
        try:
            log = hypervisors.driver_of(found).console_log(found.uuid, options["bytes"])
        except HypervisorError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(_harmless(log.decode(errors="replace")))


def _harmless(text: str) -> str:
    return "".join(
        char if char.isprintable() or char in "\n\t" else f"\\x{ord(char):02x}"
        for char in text.replace("\r\n", "\n")
    )
