"""Changes to the catalogue."""

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.color import no_style
from django.db import connection, transaction
from django.db.models import BooleanField, CharField, Field, ForeignKey, IntegerField, Model

from core.commands import is_storable, sentence_of
from plans.models import Location, OperatingSystem, OsVersion, Plan

MODELS: dict[str, type[Model]] = {
    "locations": Location,
    "plans": Plan,
    "operating_systems": OperatingSystem,
    "os_versions": OsVersion,
}


class CatalogueInvalid(Exception):
    """A catalogue cannot be loaded; ``str()`` says what is wrong, and where."""


@transaction.atomic
def load_catalogue(catalogue: Any) -> dict[str, int]:
    """Make the rows of a catalogue, or bring them up to date by id.  Nothing is removed.

    Returns how many rows of each section there were.  An image that was imported
    stays.  Raises CatalogueInvalid, and then nothing is changed.
    """
    if not isinstance(catalogue, dict) or set(catalogue) - set(MODELS):
        raise CatalogueInvalid(f"Should be an object with lists named {', '.join(MODELS)}.")
    for section, rows in catalogue.items():
        if not isinstance(rows, list):
            raise CatalogueInvalid(f"{section} should be a list.")
    for section, model in MODELS.items():
        for number, row in enumerate(catalogue.get(section, []), start=1):
            try:
                _load(model, row)
            except ValidationError as error:
                raise CatalogueInvalid(f"{section}, row {number}: {sentence_of(error)}") from None
    _continue_after_given_ids()
    return {section: len(catalogue.get(section, [])) for section in MODELS}


def _load(model: type[Model], row: Any) -> None:
    known = {field.attname: field for field in model._meta.concrete_fields}
    if not isinstance(row, dict) or type(row.get("id")) is not int or row["id"] < 1 or set(row) - set(known):
        names = ", ".join(known)
        raise ValidationError({"id": f"Should be an integer from 1, beside it no others than {names}."})
    for field, value in row.items():
        _require_type(known[field], value)
    # Locked, and written by these columns only: import_image may be at the same row.
    found = model._default_manager.select_for_update(no_key=True).filter(pk=row["id"]).first()
    made = found or model()
    for field, value in row.items():
        setattr(made, field, value)
    made.full_clean()
    made.save(update_fields=row.keys() - {"id"} if found else None)


def _require_type(field: Field[Any, Any], value: Any) -> None:
    """Refuse what Django would take and make something else of: a list for a name, true for a number."""
    if isinstance(field, CharField) and not (isinstance(value, str) and is_storable(value)):
        raise ValidationError({field.attname: "Should be a string without NUL."})
    if isinstance(field, BooleanField) and not isinstance(value, bool):
        raise ValidationError({field.attname: "Should be true or false."})
    if isinstance(field, IntegerField | ForeignKey) and value is not None and type(value) is not int:
        raise ValidationError({field.attname: "Should be an integer."})


def _continue_after_given_ids() -> None:
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), list(MODELS.values())):
            cursor.execute(statement)
