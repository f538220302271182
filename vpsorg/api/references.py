"""How a path names a row: by its integer id or by its uuid."""

from uuid import UUID

from django.db.models import Q

MAX_ID = 2**63 - 1
NOTHING = Q(pk__in=())


def named_by(reference: str) -> Q:
    """The condition for it.  What is neither, or too large for the column, names nothing."""
    if reference.isascii() and reference.isdigit():
        return Q(pk=int(reference)) if len(reference) < 20 and int(reference) <= MAX_ID else NOTHING
    try:
        return Q(uuid=UUID(reference)) if len(reference) == 36 else NOTHING
    except ValueError:
        return NOTHING
