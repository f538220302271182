"""Postgres, Redis and libvirtd together, each private unless the environment names another."""

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

from deploy.local.libvirtd import Libvirtd
from deploy.local.postgres import Postgres
from deploy.local.processes import Service, ask_for_root
from deploy.local.redis import Redis


class Services:
    """The private services of one VAR.

    A service whose variable (DATABASE_URL, REDIS_URL, VPS_HYPERVISOR_URI) is set in
    ``environment`` is somebody else's, and left alone.
    """

    def __init__(self, var: Path, environment: Mapping[str, str] = os.environ) -> None:
        ours: dict[str, Service] = {
            "DATABASE_URL": Postgres(var),
            "REDIS_URL": Redis(var),
            "VPS_HYPERVISOR_URI": Libvirtd(var),
        }
        self.urls = {variable: environment.get(variable) or service.url for variable, service in ours.items()}
        self.private = [service for variable, service in ours.items() if not environment.get(variable)]

    def ask_for_root(self) -> None:
        """If a service needs root, let sudo ask for the password while there is a terminal."""
        if any(isinstance(service, Libvirtd) for service in self.private):
            ask_for_root("A private libvirt needs root (VPS_HYPERVISOR_URI names another):")

    def start(self, say: Callable[[str], None]) -> None:
        """Start them side by side.  When one fails, or Ctrl-C comes, all of them end."""

        def start(service: Service) -> None:
            began = monotonic()
            service.start()
            say(f"{service.name} ready ({monotonic() - began:.1f} s)")

        with ThreadPoolExecutor() as threads:
            try:
                for started in [threads.submit(start, service) for service in self.private]:
                    started.result()
            except BaseException:
                self.stop()  # stops the waiting of those that still wait
                raise

    def stop(self) -> None:
        """End those that run, guests first.  May be called again."""
        side_by_side(service.stop for service in self.private)


def side_by_side(tasks: Iterable[Callable[[], object]]) -> None:
    """Call all of them in parallel; raise the first failure when all have ended."""
    with ThreadPoolExecutor() as threads:
        for done in [threads.submit(task) for task in tasks]:
            done.result()
