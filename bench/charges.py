"""python -m bench.charges 20000 2000: charge so many servers of so many accounts, in an empty database.

Prints one JSON object with the CPU seconds of this process and of Postgres for each hour.  Each hour is
charged in 60 ticks, as the scheduler does it.
"""

import json
import os
import sys
from datetime import datetime, timedelta
from pathlib import Path

import django
from django.db import connection

from bench.books import cpu_of_s

HOURS = 6
ROWS = """
    INSERT INTO accounts_account (uuid, email, first_name, last_name, company_name, is_active, balance)
    SELECT gen_random_uuid(), i || '@example.com', '', '', '', true, 0
    FROM generate_series(1, %(accounts)s) i;
    INSERT INTO billing_payment (account_id, kind, amount, reason, reference, made_by)
    SELECT id, 'top_up', 1000000, 'bench', '', 'bench' FROM accounts_account;
    INSERT INTO billing_meter (account_id, subject_kind, subject_id, component, label, state, price_hourly,
        price_monthly, quantity, began_at, charged_until, due_at)
    SELECT (SELECT min(id) FROM accounts_account) + i %% %(accounts)s, 'server', i, 'usage', 'server-' || i,
        'running', 0.0140, 10, 1, moment, moment, moment
    FROM generate_series(1, %(servers)s) i, LATERAL (
        SELECT %(began)s::timestamptz + i * interval '3600 seconds' / %(servers)s AS moment) began;
    INSERT INTO billing_rate (meter_id, since, price_hourly, price_monthly, quantity)
    SELECT id, began_at, price_hourly, price_monthly, quantity FROM billing_meter;
"""


def load(servers: int, accounts: int, began: datetime) -> None:
    with connection.cursor() as cursor:
        cursor.execute(ROWS, {"servers": servers, "accounts": accounts, "began": began})
        cursor.execute("VACUUM ANALYZE")


def postgres() -> int:
    """The process id of Postgres itself: the parent of the one that serves us."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        stat = Path(f"/proc/{cursor.fetchone()[0]}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


def main(servers: int, accounts: int) -> None:
    from billing.ledger_audit import findings
    from billing.metering import meter
    from billing.models import Usage
    from core import clock

    began = clock.now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    load(servers, accounts, began)
    pids, hours = [os.getpid(), postgres()], []
    for hour in range(HOURS):
        before = cpu_of_s(pids)
        for minute in range(60):
            meter(began + timedelta(hours=hour, minutes=minute + 1))
        hours.append(round(cpu_of_s(pids) - before, 2))
    charged = sum(line.bit_count() for line in Usage.objects.values_list("hours", flat=True))
    before = cpu_of_s(pids)
    wrong = sum(1 for finding in findings() if finding.code in {"balance_differs", "charge_differs"})
    print(json.dumps({"hours": hours, "charged": charged, "audit": cpu_of_s(pids) - before, "wrong": wrong}))


if __name__ == "__main__":
    django.setup()
    main(int(sys.argv[1]), int(sys.argv[2]))
