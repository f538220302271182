"""Compares everything with everything and changes nothing.

The rows are read, then the hosts are asked, each once; what they disagree about is believed only if the rows
of that server are still the same afterwards.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from core.findings import Finding
from inventory.models import Hypervisor
from provisioning import hypervisors
from provisioning.drivers.base import HypervisorError
from provisioning.verify.backup_checks import check_backup_rows, check_backups_on_hosts
from provisioning.verify.host_checks import check_hosts
from provisioning.verify.row_checks import check_rows
from provisioning.verify.rows import read_again, read_rows
from provisioning.verify.snapshot import BackupRow, HostAnswer, Rows, ServerRow

log = logging.getLogger(__name__)

AT_ONCE = 16


def verify(only: Collection[str] = ()) -> list[Finding]:
    """All findings, sorted by code.  Disabled hosts are not asked.

    ``only``: names of hosts.  Then the rows are compared with what these hosts have, and with nothing else.
    """
    rows = read_rows()
    names = [name for name in rows.hosts if not only or name in only]
    asked = list(Hypervisor.objects.exclude(status=Hypervisor.Status.DISABLED).filter(name__in=names))
    with ThreadPoolExecutor(AT_ONCE) as threads:
        told = threads.map(lambda host: _ask(host, rows.frozen_perhaps.get(host.name, ())), asked)
        answers = dict(zip((host.name for host in asked), told, strict=True))
    certain = [] if only else [*check_rows(rows), *check_backup_rows(rows)]
    doubted = [*check_hosts(rows, answers), *check_backups_on_hosts(rows, answers)]
    return sorted([*certain, *_confirmed(rows, doubted)], key=lambda f: (f.code, f.object))


def _ask(host: Hypervisor, frozen_perhaps: Sequence[UUID]) -> HostAnswer | HypervisorError:
    """Ask one host.  Whatever way it fails, the other hosts are still compared."""
    try:
        # Whatever the circuit breaker says: nothing is written here.
        driver = hypervisors.bare_driver_for(host)
        return HostAnswer(
            facts=driver.facts(),
            machines=tuple(driver.machines()),
            volumes=tuple(driver.volumes()),
            frozen=tuple(driver.frozen(list(frozen_perhaps))) if frozen_perhaps else (),
        )
    except HypervisorError as error:
        return error
    except Exception as error:
        log.exception("a bug of ours in asking %s", host)
        return HypervisorError(f"a bug of ours: {error!r}")


def _confirmed(rows: Rows, findings: Iterable[Finding]) -> list[Finding]:
    """Without those about servers, their backups and trials that changed while the hosts were asked."""
    findings = list(findings)
    suspects = {finding.machine for finding in findings if finding.machine}
    if not suspects:
        return findings
    again = read_again(suspects)
    backups, backups_now = _by_server(rows.backups, suspects), _by_server(again.backups, suspects)
    moved = {
        uuid
        for uuid in suspects
        if _stamp(rows.servers.get(uuid)) != _stamp(again.servers.get(uuid))
        or rows.trials.get(uuid) != again.trials.get(uuid)
        or backups.get(uuid) != backups_now.get(uuid)
    }
    return [finding for finding in findings if finding.machine not in moved]


def _by_server(backups: Mapping[UUID, BackupRow], servers: Collection[UUID]) -> dict[UUID, set[object]]:
    """Of these servers, what changes with each step of their backups on a host."""
    found: dict[UUID, set[object]] = defaultdict(set)
    for row in backups.values():
        if row.server in servers:
            found[row.server].add((row.id, row.is_open, row.copied_as))
    return found


def _stamp(server: ServerRow | None) -> object:
    """Changes with whatever the lifecycle writes, and stays when only time passes."""
    if server is None:
        return None
    return server.status, server.written_at, server.home, server.operation and server.operation.id
