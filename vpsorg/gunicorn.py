"""How gunicorn serves the API, in make run and in compose: ``gunicorn --config python:vpsorg.gunicorn``."""

import os
import shutil
from tempfile import mkdtemp
from typing import Any

from core import broker, database

# Where the processes of this API keep their counts of requests, for each other.
METRICS = "PROMETHEUS_MULTIPROC_DIR"

wsgi_app = "vpsorg.wsgi:application"
worker_class = "core.api.gunicorn_worker.PatientWorker"
workers = 2
threads = 8
# Longer than the longest request: ?wait=30 holds its answer for half a minute.
timeout = 60
graceful_timeout = 35
# Longer than any pause that we advise (Retry-After): a client that comes back finds its connection open.
keepalive = 75
control_socket_disable = True


def on_starting(server: Any) -> None:
    os.environ[METRICS] = mkdtemp(prefix="vps-metrics-")


def on_exit(server: Any) -> None:
    shutil.rmtree(os.environ[METRICS], ignore_errors=True)


def child_exit(server: Any, worker: Any) -> None:
    from prometheus_client import multiprocess  # looks for METRICS when it is imported

    multiprocess.mark_process_dead(worker.pid)


def post_fork(server: Any, worker: Any) -> None:
    database.serve_as("api")
    broker.do_not_wait()
