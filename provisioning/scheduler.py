"""Does what is due again and again, and finds orders that were forgotten.

Each periodic job is a row with a due time, a lease and its last error.  Several schedulers may run side by
side: one of them does a job.  Jobs run in this process, so no broker is needed; those that concern hosts and
customers' receivers send messages to workers, and do the work here while there is no broker.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Event
from time import monotonic

from celery import current_app
from django.conf import settings
from django.db import close_old_connections, connection
from django.db.models.functions import Now

from accounts.actors import acting_as, system_actor
from core import leases
from provisioning.lease import kept_lease
from provisioning.models import PeriodicJob
from provisioning.sweep import Sweep

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)
LOOK_EVERY_S = 1.0


@dataclass
class Scheduler:
    """The loop of one scheduler process."""

    sweep: Sweep
    sweep_every_s: float
    has_jobs: bool = True
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(len(settings.PERIODIC_JOBS))
    )
    _running: dict[str, Future[None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.has_jobs:
            # Before there are threads: of two that import the tasks at once, one misses some.
            current_app.loader.import_default_modules()

    def run(self, over: Event) -> None:
        """Look until told to stop."""
        next_sweep = 0.0
        while not over.is_set():
            close_old_connections()
            try:
                self.begin_due_jobs()
                if monotonic() >= next_sweep:
                    self.sweep.once()
                    next_sweep = monotonic() + self.sweep_every_s
            except Exception as error:
                # Postgres may be away for a while; to end now would help nobody.
                log.error("nothing can be done now: %s", error)
            over.wait(min(LOOK_EVERY_S, self.sweep_every_s))
        self.finish()

    def begin_due_jobs(self) -> None:
        """Begin each job that is due and does not run here yet.  Does not wait for it."""
        if not self.has_jobs:
            return
        _make_rows()
        for job in leases.due(PeriodicJob.objects.filter(name__in=settings.PERIODIC_JOBS)):
            if job.name not in self._running or self._running[job.name].done():
                self._running[job.name] = self._threads.submit(_run_in_thread, job)

    def finish(self) -> None:
        """Wait for what is under way here."""
        wait(self._running.values())
        self.sweep.finish()


@acting_as(system_actor("scheduler"))
def run_job(job: PeriodicJob) -> None:
    """Do a job, unless another scheduler does it.  It is due again some seconds after its end."""
    if not leases.take(job, lease=LEASE):
        return
    held = PeriodicJob.objects.get(pk=job.pk)
    error = ""
    try:
        with kept_lease(held, LEASE):
            _task(held.name)()
    except Exception as failure:
        log.exception("the job %s failed", held)
        error = repr(failure)
    leases.postpone(held, settings.PERIODIC_JOBS[held.name], last_run_at=Now(), last_error=error)


def _task(name: str) -> Callable[[], object]:
    task: Callable[[], object] = current_app.tasks[name]
    return task


def _run_in_thread(job: PeriodicJob) -> None:
    try:
        run_job(job)
    except Exception:
        log.exception("the job %s is left as it is", job)
    finally:
        connection.close()


def _make_rows() -> None:
    known = set(PeriodicJob.objects.values_list("name", flat=True))
    missing = [PeriodicJob(name=name) for name in settings.PERIODIC_JOBS if name not in known]
    PeriodicJob.objects.bulk_create(missing, ignore_conflicts=True)
