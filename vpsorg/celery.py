"""The Celery application.  Messages say only "look at operation 42"; the row says the rest."""

import os
from typing import Any

from celery import Celery
from celery.signals import worker_init
from click import Option

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vpsorg.settings")

app = Celery("vpsorg")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

app.user_options["worker"].add(
    Option(
        ["--location"],
        multiple=True,
        metavar="CODE",
        help="Only for the hosts of this location (repeatable).",
    )
)


@worker_init.connect
def _add_steps(sender: Any, **kwargs: Any) -> None:
    # Here, for it reads models, and those are ready only now.
    from provisioning.listen import ListenToLocations

    app.steps["consumer"].add(ListenToLocations)
