"""A pytest plugin: the suite's own Postgres and Redis, started before Django looks for them.

They live in ``$VPS_VAR/test`` (default ``var/test``), on sockets of their own,
and are stopped by process id when the suite ends.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from deploy.local.folder import claimed, var_folder
from deploy.local.postgres import Postgres
from deploy.local.redis import Redis

VAR = var_folder() / "test"
POSTGRES = Postgres(VAR, durable=False)
REDIS = Redis(VAR)

os.environ.update(
    DATABASE_URL=POSTGRES.url,
    REDIS_URL=REDIS.url,
    VPS_SECRET_KEY="a secret that only the tests know, 0123456789",
    VPS_ALLOWED_HOSTS="testserver,127.0.0.1",
    VPS_IMAGE_DIR=str(VAR / "images"),
    VPS_BACKUP_KEY="MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    VPS_BACKUP_STORE=str(VAR / "backups"),
    VPS_SIGNUP_CREDITS="0",
    VPS_RATE_LIMIT="0",
    VPS_MAX_SERVERS="0",
    VPS_MAX_OPEN_CREATES="0",
    VPS_MAX_OPEN_RESTORES="0",
    VPS_SHUTDOWN_TIMEOUT="30",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    with ExitStack() as running:
        running.enter_context(claimed(VAR))
        for service in (POSTGRES, REDIS):
            running.callback(service.stop)
            service.start()
        return (yield)
