"""The Celery application.  Messages say only "look at operation 42"; the row says the rest."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vpsorg.settings")

app = Celery("vpsorg")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
