from typing import Any

from django.core.management.base import CommandError, CommandParser

from core.commands import OurCommand
from inventory.models import Hypervisor
from provisioning.drivers.base import HypervisorError
from provisioning.reconcile import Action, Decision, decide, reconcile
from servers.selectors import failed_creates_on


class Command(OurCommand):
    help = (
        "Do now what happens every half minute: ask each host for the power of its machines, and correct "
        "the servers whose status differs. With --dry-run it only says what it would do. Ends with status 1 "
        "when a host cannot be asked. Example: manage.py reconcile --host kvm1 --dry-run"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", metavar="NAME", help="default: all that are not disabled")
        parser.add_argument("--dry-run", action="store_true", help="change no server")

    def handle(self, *args: Any, host: str | None, dry_run: bool, **options: Any) -> None:
        rows = Hypervisor.objects.exclude(status=Hypervisor.Status.DISABLED)
        if host:
            rows = rows.filter(name=host)
            if not rows:
                raise CommandError(f"There is no host {host}, or it is disabled.")
        silent = [row.name for row in rows if not self._see_to(row, dry_run)]
        if silent:
            raise CommandError(f"Could not be asked: {', '.join(silent)}.")

    def _see_to(self, host: Hypervisor, dry_run: bool) -> bool:
        failed_creates = list(failed_creates_on(host))
        try:
            decisions = decide(host) if dry_run else _reconcile(host)
        except HypervisorError as error:
            self.stdout.write(f"{host}: {error}")
            return False
        as_promised = sum(decision.action == Action.CONFIRM for decision in decisions)
        self.stdout.write(f"{host}: {as_promised} servers are as promised")
        for decision in decisions:
            if decision.action != Action.CONFIRM:
                self.stdout.write(
                    f"{host}: server {decision.server.pk}: {decision.action} (the host says {decision.power})"
                )
        for server in failed_creates:
            self.stdout.write(
                f"{host}: server {server.pk}: clear what its failed create left, if the host lets us"
            )
        return True


def _reconcile(host: Hypervisor) -> list[Decision]:
    """Reconcile one host and return the decisions.  Raises HypervisorError with what its row keeps of it."""
    decisions = reconcile(host)
    if host.last_error:
        raise HypervisorError(host.last_error)
    return decisions
