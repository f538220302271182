"""What the scheduler remembers."""

from django.db import models
from django.db.models import Q

from core.leases import LeasedWork


class PeriodicJob(LeasedWork):
    """Work that is done again and again.  A row, so that it needs no broker, and one scheduler does it."""

    OPEN = Q()

    name = models.CharField(
        max_length=100, unique=True, help_text="Of a task, see PERIODIC_JOBS in the settings."
    )
    last_run_at = models.DateTimeField(null=True)
    last_error = models.TextField(blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
