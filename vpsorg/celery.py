"""The Celery application.  Messages say only "look at operation 42"; the row says the rest."""

import os
from typing import Any

from celery import Celery
from celery.signals import worker_init
from click import Option

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vpsorg.settings")

app = Celery("vpsorg", task_cls="core.delays:Task")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

# Here and not in provisioning, because the command line is read before Django's apps are loaded.
app.user_options["worker"].add(
    Option(
        ["--location"],
        multiple=True,
        metavar="CODE",
        help="Only for the hosts of this location (repeatable).",
    )
)


@worker_init.connect
def _limit_sessions(**kwargs: Any) -> None:
    from core import database  # reads Django's settings, which are ready only now

    database.serve_as("worker")
