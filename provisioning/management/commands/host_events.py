import signal
from threading import Event
from typing import Any

from django.core.management.base import CommandError, CommandParser

from core import database
from core.commands import OurCommand, seconds
from plans.models import Location
from provisioning.host_events import HOLD_BACK_S, HostEvents


class Command(OurCommand):
    help = (
        "Listen to the hosts: a server that was switched off or died is reconciled within seconds instead of "
        "half a minute. Runs until SIGTERM or Ctrl-C; hosts may come and go meanwhile. One for "
        "all locations will do; with --location it can run near its hosts. "
        "Example: manage.py host_events --location us-west"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--location", action="append", default=[], metavar="CODE", help="may be repeated; default: all"
        )
        parser.add_argument(
            "--hold-back",
            type=seconds,
            default=HOLD_BACK_S,
            metavar="S",
            help=f"seconds that a machine must stay off before that counts ({HOLD_BACK_S:.0f})",
        )

    def handle(self, *args: Any, location: list[str], hold_back: float, **options: Any) -> None:
        known = set(Location.objects.filter(code__in=location).values_list("code", flat=True))
        if unknown := [code for code in location if code not in known]:
            raise CommandError(f"There is no location {', '.join(unknown)}.")
        database.serve_as("worker")  # nobody sits at it
        over = Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: over.set())
        HostEvents(location, hold_back_s=hold_back).run(over)
