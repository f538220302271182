"""Reads the state of the books in Postgres, and the CPU time of processes on this machine."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg2

from deploy.local.errors import LocalError
from deploy.local.processes import wait_for

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
OPEN = "SELECT count(*) FROM servers_operation WHERE status IN ('queued', 'running')"
STATUSES = "SELECT status, count(*) FROM servers_server GROUP BY status"
FAILED = "SELECT kind, error_code, error_detail FROM servers_operation WHERE status = 'failed' LIMIT 1"
HELD = """
    SELECT coalesce(sum(vcpus_used + memory_mib_used + disk_gib_used), 0),
        (SELECT count(*) FROM inventory_placement),
        (SELECT count(*) FROM inventory_ipaddress WHERE port_id IS NOT NULL)
    FROM inventory_hypervisor
"""


class Books:
    def __init__(self, url: str) -> None:
        self._connection = psycopg2.connect(url)
        self._connection.autocommit = True

    def statuses(self) -> dict[str, int]:
        """The number of servers in each status."""
        return dict(self._ask(STATUSES))

    def await_quiet(self, patience_s: float) -> None:
        """Until no operation is open.  Raises LocalError when it takes too long, or when one failed."""
        quiet = wait_for(lambda: self._ask(OPEN) == [(0,)], patience_s)
        if failed := self._ask(FAILED):
            raise LocalError(f"Not all ended well: {failed}")
        if not quiet:
            raise LocalError(f"{self._ask(OPEN)} operations are open after {patience_s} s.")

    def expect(self, **statuses: int) -> None:
        """Raises LocalError unless there are so many servers in each status, and no others."""
        if (found := self.statuses()) != statuses:
            raise LocalError(f"There should be {statuses}, and there are {found}.")

    def expect_nothing_held(self) -> None:
        """Raises LocalError unless all room and all addresses are free again."""
        if (found := self._ask(HELD)) != [(0, 0, 0)]:
            raise LocalError(f"Claims are left: {found}")

    def _ask(self, sql: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()


def cpu_of_all_s() -> float:
    """CPU seconds of the whole machine since boot."""
    user, nice, system, _, _, *rest = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    return sum(map(int, (user, nice, system, *rest))) / TICKS_PER_S


def cpu_of_s(pids: Iterable[int | None]) -> float:
    """CPU seconds of these processes and of all that descend from them."""
    times, children = {}, dict[int, list[int]]()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid, parent = int(stat.parent.name), int(fields[1])
        times[pid] = sum(map(int, fields[11:15]))  # its own and those of the children that it has reaped
        children.setdefault(parent, []).append(pid)
    left, sum_of_times = [pid for pid in pids if pid], 0
    while left:
        pid = left.pop()
        sum_of_times += times.get(pid, 0)
        left += children.get(pid, [])
    return sum_of_times / TICKS_PER_S
