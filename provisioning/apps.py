from celery import current_app
from django.apps import AppConfig


class ProvisioningConfig(AppConfig):
    name = "provisioning"

    def ready(self) -> None:
        from provisioning.worker_queues import LocationQueues  # reads models: only now

        current_app.steps["consumer"].add(LocationQueues)
