"""How gunicorn serves the API, in make run and in compose: ``gunicorn --config python:vpsorg.gunicorn``."""

from typing import Any

from core import broker, database

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


def post_fork(server: Any, worker: Any) -> None:
    database.serve_as("api")
    broker.do_not_wait()
