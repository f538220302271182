import signal
from datetime import timedelta
from threading import Event
from typing import Any

from django.core.management.base import CommandParser

from core import broker, database
from core.commands import OurCommand, seconds
from provisioning.scheduler import Scheduler
from provisioning.sweep import Sweep


class Command(OurCommand):
    help = (
        "Do what is due again and again: reconcile, usage, metering, webhooks that failed. Find operations "
        "that were forgotten, because a message was lost or a worker died, and have a worker take them up. "
        "Needs no broker: without one it does all of this itself. Several may run. Runs until it is "
        "stopped; with --once it looks once for forgotten operations. Example: manage.py scheduler"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--every", type=seconds, default=5, metavar="SECONDS", help="how often to look for operations (5)"
        )
        parser.add_argument(
            "--patience",
            type=seconds,
            default=15,
            metavar="SECONDS",
            help="how late an operation may be before it counts as forgotten (15)",
        )
        parser.add_argument("--without-jobs", action="store_true", help="look for operations only")
        parser.add_argument("--once", action="store_true", help="look once, print how many there were, end")

    def handle(
        self, *args: Any, every: float, patience: float, without_jobs: bool, once: bool, **options: Any
    ) -> None:
        sweep = Sweep(patience=timedelta(seconds=patience))
        if once:
            self.stdout.write(f"{sweep.once()} operations were forgotten")
            sweep.finish()
            return
        database.serve_as("worker")  # nobody sits at it
        broker.do_not_wait()
        over = Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: over.set())
        Scheduler(sweep, sweep_every_s=every, has_jobs=not without_jobs).run(over)
