"""The state of the product in Prometheus's words, read from Postgres and Redis when it is asked for.

Nothing is kept between two scrapes, so nothing can be out of date, and any process tells the same.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import redis
from django.db import connection
from prometheus_client import Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from core import queues
from inventory.models import IpPool
from inventory.pools import counted, counts_of
from monitoring import requests
from monitoring.readiness import broker
from plans.models import Location
from provisioning.verify.backup_checks import LATE
from servers.states import CHANGEABLE, OPEN_OPERATION

log = logging.getLogger(__name__)

PARAMETERS: dict[str, Any] = {
    "open": sorted(OPEN_OPERATION),
    "backed_up": sorted(CHANGEABLE),
    "late": LATE,
}


@dataclass(frozen=True)
class Gauge:
    """One metric: ``sql`` gives a row for each set of labels, the labels first and then the value."""

    name: str
    help: str
    labels: tuple[str, ...]
    sql: str


GAUGES = (
    Gauge(
        "vps_servers",
        "Servers by status and location, without deleted ones.",
        ("status", "location"),
        """
        SELECT server.status, location.code, count(*)
        FROM servers_server server JOIN plans_location location ON location.id = server.location_id
        WHERE server.status <> 'deleted' GROUP BY 1, 2
        """,
    ),
    Gauge(
        "vps_operations_open",
        "Operations that have not ended.",
        ("kind", "status"),
        "SELECT kind, status, count(*) FROM servers_operation WHERE status = ANY(%(open)s) GROUP BY 1, 2",
    ),
    Gauge(
        "vps_operation_step_seconds",
        "How long the slowest open operation of a kind has been in a step.",
        ("kind", "step"),
        """
        SELECT kind, step, max(extract(epoch FROM now() - coalesce(step_since, created_at)))
        FROM servers_operation WHERE status = ANY(%(open)s) GROUP BY 1, 2
        """,
    ),
    Gauge(
        "vps_operations_oldest_due_seconds",
        "For how long the operation that waits longest for a worker has been due.",
        (),
        """
        SELECT coalesce(max(extract(epoch FROM now() - due_at)), 0) FROM servers_operation
        WHERE status = ANY(%(open)s) AND due_at < now() AND (lease_until IS NULL OR lease_until < now())
        """,
    ),
    Gauge(
        "vps_operations_overdue",
        "Open operations past their deadline.",
        (),
        "SELECT count(*) FROM servers_operation WHERE status = ANY(%(open)s) AND deadline_at < now()",
    ),
    Gauge(
        "vps_operations_finished_last_hour",
        "Operations that ended within the last hour, with the code of what failed.",
        ("kind", "status", "code"),
        """
        SELECT kind, status, error_code, count(*) FROM servers_operation
        WHERE finished_at > now() - interval '1 hour' GROUP BY 1, 2, 3
        """,
    ),
    Gauge(
        "vps_operation_duration_seconds",
        "Of operations that succeeded within the last hour: from their order to their end.",
        ("kind", "quantile"),
        """
        SELECT kind, quantile, (percentile_cont(array[0.5, 0.95, 1]) WITHIN GROUP (
            ORDER BY extract(epoch FROM finished_at - created_at)))[number]
        FROM servers_operation, (VALUES (1, '0.5'), (2, '0.95'), (3, '1')) wanted (number, quantile)
        WHERE finished_at > now() - interval '1 hour' AND status = 'succeeded' GROUP BY kind, number, quantile
        """,
    ),
    Gauge(
        "vps_hypervisor_status",
        "1 for the status that staff gave the hypervisor.",
        ("host", "location", "status"),
        """
        SELECT host.name, location.code, host.status, 1
        FROM inventory_hypervisor host JOIN plans_location location ON location.id = host.location_id
        """,
    ),
    Gauge(
        "vps_hypervisor_reachable",
        "1 if the hypervisor answered the last call; disabled ones are left out.",
        ("host",),
        "SELECT name, is_reachable::int FROM inventory_hypervisor WHERE status <> 'disabled'",
    ),
    Gauge(
        "vps_hypervisor_ready",
        "1 if nothing is wrong there that keeps new servers away; disabled ones are left out.",
        ("host",),
        "SELECT name, is_ready::int FROM inventory_hypervisor WHERE status <> 'disabled'",
    ),
    Gauge(
        "vps_hypervisor_seen_seconds",
        "Since when reconcile has had no answer of the hypervisor; disabled ones are left out.",
        ("host",),
        """
        SELECT name, extract(epoch FROM now() - last_seen_at) FROM inventory_hypervisor
        WHERE status <> 'disabled' AND last_seen_at IS NOT NULL
        """,
    ),
    Gauge(
        "vps_hypervisor_room",
        "What is for sale on the hypervisor, and what servers have claimed of it.",
        ("host", "location", "resource", "kind"),
        """
        SELECT host.name, location.code, resource, kind, amount
        FROM inventory_hypervisor host JOIN plans_location location ON location.id = host.location_id,
        LATERAL (VALUES
            ('vcpus', 'for_sale', vcpus), ('vcpus', 'claimed', vcpus_used),
            ('memory_mib', 'for_sale', memory_mib), ('memory_mib', 'claimed', memory_mib_used),
            ('disk_gib', 'for_sale', disk_gib), ('disk_gib', 'claimed', disk_gib_used)
        ) amounts (resource, kind, amount)
        """,
    ),
    Gauge(
        "vps_periodic_job_seconds",
        "Since when a periodic job has not run.",
        ("job",),
        """
        SELECT name, extract(epoch FROM now() - coalesce(last_run_at, due_at)) FROM provisioning_periodicjob
        """,
    ),
    Gauge(
        "vps_periodic_job_failed",
        "1 if the last run of a periodic job failed.",
        ("job",),
        "SELECT name, (last_error <> '')::int FROM provisioning_periodicjob",
    ),
    Gauge(
        "vps_metering_lag_seconds",
        "How late the hour is that should have been charged first.",
        (),
        "SELECT coalesce(max(extract(epoch FROM now() - due_at)), 0) FROM billing_meter WHERE due_at < now()",
    ),
    Gauge(
        "vps_accounts_below_zero",
        "Accounts that owe.",
        (),
        "SELECT count(*) FROM accounts_account WHERE below_zero_since IS NOT NULL",
    ),
    Gauge(
        "vps_backups",
        "Backups and snapshots by kind, status and location, without deleted ones.",
        ("kind", "status", "location"),
        """
        SELECT backup.kind, backup.status, location.code, count(*)
        FROM backups_backup backup JOIN plans_location location ON location.id = backup.location_id
        WHERE backup.deleted_at IS NULL GROUP BY 1, 2, 3
        """,
    ),
    Gauge(
        "vps_backups_missed",
        "Servers whose automatic backup is three hours late, or failed last.",
        ("location",),
        """
        SELECT location.code, count(*)
        FROM servers_server server JOIN plans_location location ON location.id = server.location_id
        WHERE server.status = ANY(%(backed_up)s) AND server.backup_due_at IS NOT NULL AND (
            server.backup_due_at < now() - %(late)s
            OR 'failed' = (
                SELECT status FROM backups_backup WHERE server_id = server.id AND kind = 'automatic'
                AND status <> 'in_progress' ORDER BY id DESC LIMIT 1
            )
        ) GROUP BY 1
        """,
    ),
    Gauge(
        "vps_backups_damaged",
        "Backups that were found damaged, or that did not boot.",
        (),
        "SELECT count(*) FROM backups_backup WHERE status = 'completed' AND damage <> ''",
    ),
    Gauge(
        "vps_backups_verified_seconds",
        "Since when the last backup of some server was not found whole.",
        (),
        """
        SELECT coalesce(extract(epoch FROM now() - min(verified_at)), 0) FROM (
            SELECT DISTINCT ON (server_id) verified_at FROM backups_backup
            WHERE status = 'completed' AND deleted_at IS NULL ORDER BY server_id, id DESC
        ) newest
        """,
    ),
    Gauge(
        "vps_webhook_deliveries_pending",
        "Messages to customers' receivers that were not taken yet.",
        (),
        "SELECT count(*) FROM webhooks_webhookdelivery WHERE status = 'pending'",
    ),
    Gauge(
        "vps_webhook_deliveries_oldest_due_seconds",
        "For how long the message that waits longest for a worker has been due.",
        (),
        """
        SELECT coalesce(max(extract(epoch FROM now() - due_at)), 0) FROM webhooks_webhookdelivery
        WHERE status = 'pending' AND due_at < now() AND (lease_until IS NULL OR lease_until < now())
        """,
    ),
)
FREE_ADDRESSES = ("vps_addresses_free", "Addresses that servers of a location can still get.")
BROKER_UP = ("vps_broker_up", "1 if Redis answers.")
QUEUED = ("vps_queue_messages", "Messages that wait for a worker.")


class State(Collector):
    """The product's state.  Raises django.db.Error while Postgres does not answer."""

    def collect(self) -> Iterator[Metric]:
        for gauge in GAUGES:
            yield _family(gauge.name, gauge.help, gauge.labels, _rows(gauge.sql))
        yield _family(*FREE_ADDRESSES, ("location", "family"), _free_addresses())
        yield from _broker()


def exposition() -> bytes:
    """The answer to a scrape, in Prometheus's text format."""
    registry = requests.registry()
    registry.register(State())
    return generate_latest(registry)


def _rows(sql: str) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, PARAMETERS)
        return list(cursor.fetchall())


def _family(
    name: str, text: str, labels: tuple[str, ...], rows: Iterable[tuple[object, ...]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for *words, value in rows:
        family.add_metric([str(word) for word in words], float(str(value)))
    return family


def _free_addresses() -> Iterator[tuple[object, ...]]:
    free: dict[tuple[str, int], int] = {}
    for pool in counted(IpPool.objects.filter(is_active=True).select_related("location")):
        key = pool.location.code, pool.family
        free[key] = free.get(key, 0) + counts_of(pool).free
    return ((*key, number) for key, number in sorted(free.items()))


def _broker() -> Iterator[Metric]:
    """Whether Redis answers, and how many messages wait; of a Redis that is away nothing is told."""
    codes = Location.objects.values_list("code", flat=True)
    at_locations = [queues.at(code, shared) for shared in (queues.SHARED, queues.BACKUPS) for code in codes]
    names = [queues.SHARED, queues.BACKUPS, queues.WEBHOOKS, *at_locations]
    try:
        lengths = [(name, broker().llen(name)) for name in names]
    except redis.RedisError as error:
        log.warning("the broker does not answer: %s", error)
        yield _family(*BROKER_UP, (), [(0,)])
        return
    yield _family(*BROKER_UP, (), [(1,)])
    yield _family(*QUEUED, ("queue",), lengths)
