"""The API in gunicorn, as make run has it, on the suite's database."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connection

from deploy.local.folder import PROJECT
from deploy.local.processes import Process
from deploy.local.run import api_command
from tests.private_services import POSTGRES

THREADS = 16  # of all processes together


@contextmanager
def served(folder: Path, **settings: str) -> Iterator[int]:
    """Its port.  The test's rows must be committed: use ``transactional_db``."""
    port = free_port()
    env = os.environ | {
        "DATABASE_URL": f"{POSTGRES.url.rpartition('/')[0]}/{connection.settings_dict['NAME']}",
        "DJANGO_SETTINGS_MODULE": "vpsorg.settings",
    }
    process = Process("api", folder)
    process.start(api_command(port), env=env | settings, cwd=PROJECT)
    try:
        process.wait_until(lambda: listens(port), 60)
        yield port
    finally:
        process.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0
