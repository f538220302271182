"""Shared set-up of the benchmarks: private services, and Django in processes of its own."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deploy.local import settings
from deploy.local.errors import LocalError
from deploy.local.folder import PROJECT
from deploy.local.postgres import Postgres
from deploy.local.redis import Redis

FOR_ALL = dict.fromkeys(  # limits that are counted but never reached
    ("VPS_RATE_LIMIT", "VPS_MAX_SERVERS", "VPS_MAX_OPEN_CREATES"), "999999999"
)


@contextmanager
def services(var: Path, *, durable: bool) -> Iterator[tuple[Postgres, dict[str, str]]]:
    """A private Postgres and Redis, and the environment for the processes that use them."""
    postgres, redis = Postgres(var, durable=durable), Redis(var)
    with ExitStack() as running:
        for service in (postgres, redis):
            running.callback(service.stop)
            service.start()
        urls = {"DATABASE_URL": postgres.url, "REDIS_URL": redis.url}
        yield postgres, os.environ | settings.load(var, urls) | FOR_ALL


def make_empty(postgres: Postgres, database: str) -> None:
    postgres.psql(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)", "postgres")
    postgres.psql(f"CREATE DATABASE {database}", "postgres")


def manage(env: dict[str, str], *commands: list[str]) -> str:
    """Run management commands and return their output."""
    return python(env, "deploy.local.commands", json.dumps(commands))


def python(env: dict[str, str], *words: str) -> str:
    """Run a module with these arguments and return its output."""
    return output_of(begin(env, *words))


def begin(env: dict[str, str], *words: str) -> subprocess.Popen[str]:
    """Start a module with these arguments."""
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        env={"DJANGO_SETTINGS_MODULE": "vpsorg.settings"} | env,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(process: subprocess.Popen[str]) -> str:
    """What it prints until its end.  Raises LocalError if it fails."""
    output, errors = process.communicate()
    if process.returncode:
        raise LocalError("\n    ".join(errors.splitlines()[-15:]))
    return output


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
