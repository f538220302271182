import signal
from datetime import timedelta
from threading import Event
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import close_old_connections

from provisioning.sweep import Sweep


class Command(BaseCommand):
    help = (
        "Find operations that were forgotten, because a message was lost or a worker died, and have a worker "
        "take them up. Needs no broker: without one it carries them out itself. Runs until it is stopped; "
        "with --once it looks once. Example: manage.py sweep --every 5"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--every", type=float, default=5, metavar="SECONDS", help="how often to look (5)")
        parser.add_argument(
            "--patience",
            type=float,
            default=15,
            metavar="SECONDS",
            help="how late an operation may be before it counts as forgotten (15)",
        )
        parser.add_argument("--once", action="store_true", help="look once, print how many there were, end")

    def handle(self, *args: Any, every: float, patience: float, once: bool, **options: Any) -> None:
        sweep = Sweep(patience=timedelta(seconds=patience))
        if once:
            self.stdout.write(f"{sweep.once()} operations were forgotten")
            sweep.finish()
            return
        stopped = Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
        while not stopped.is_set():
            self._look(sweep)
            stopped.wait(every)
        sweep.finish()

    def _look(self, sweep: Sweep) -> None:
        close_old_connections()
        try:
            sweep.once()
        except Exception as error:
            # Postgres may be away for a while; to end now would help nobody.
            self.stderr.write(f"sweep: {error}")
