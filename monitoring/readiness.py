"""Whether this process can serve requests, as ``/readyz`` tells a load balancer."""

import logging
from functools import cache

import redis
from django.conf import settings
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from core.broker import ANSWERS_WITHIN_S
from core.database import is_unavailable

log = logging.getLogger(__name__)

OK = "ok"


def checks() -> dict[str, str]:
    """Each part with ``ok``, or with a sentence that says what is wrong with it."""
    database = _database()
    return {
        "database": database,
        "migrations": _migrations() if database == OK else "Unknown: the database does not answer.",
        "broker": _broker(),
    }


def is_ready(told: dict[str, str]) -> bool:
    """Without its broker the API still serves: orders wait in Postgres, and the scheduler finds them."""
    return told["database"] == told["migrations"] == OK


def _database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Exception as error:
        if not is_unavailable(error):
            raise
        log.warning("not ready, Postgres does not answer: %s", error)
        connection.close()
        return "Postgres does not answer. See DATABASE_URL and the log."
    return OK


def _migrations() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('django_migrations') IS NOT NULL")
        if not cursor.fetchone()[0]:
            return "The database is empty. Run: manage.py migrate"
        cursor.execute("SELECT app, name FROM django_migrations")
        missing = _migrations_of_the_code() - set(cursor.fetchall())
    if not missing:
        return OK
    names = ", ".join(sorted(f"{app}.{name}" for app, name in missing)[:5])
    return f"The database lacks {len(missing)} migrations ({names}). Run: manage.py migrate"


@cache
def _migrations_of_the_code() -> frozenset[tuple[str, str]]:
    return frozenset(MigrationLoader(None).graph.nodes)


def _broker() -> str:
    try:
        broker().ping()
    except redis.RedisError as error:
        log.warning("the broker does not answer: %s", error)
        return "Redis does not answer: orders are accepted, and carried out later. See REDIS_URL."
    return OK


@cache
def broker() -> redis.Redis:
    """A client of the broker that gives up quickly."""
    return redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=ANSWERS_WITHIN_S, socket_connect_timeout=ANSWERS_WITHIN_S
    )
