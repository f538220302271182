"""What can be done to the catalogue."""

from typing import Any

from django.core.management.color import no_style
from django.db import connection, transaction

from plans.models import Location, OperatingSystem, OsVersion, Plan

MODELS = {
    "locations": Location,
    "plans": Plan,
    "operating_systems": OperatingSystem,
    "os_versions": OsVersion,
}


@transaction.atomic
def load_catalogue(catalogue: dict[str, list[dict[str, Any]]]) -> dict[str, int]:
    """Make the rows of a catalogue, or bring them up to date by id.  Nothing is removed.

    Returns how many rows of each section there were.  An image that was imported
    stays.
    """
    for section, model in MODELS.items():
        for row in catalogue.get(section, []):
            values = dict(row)
            model._default_manager.update_or_create(pk=values.pop("id"), defaults=values)
    _continue_after_given_ids()
    return {section: len(catalogue.get(section, [])) for section in MODELS}


def _continue_after_given_ids() -> None:
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), list(MODELS.values())):
            cursor.execute(statement)
