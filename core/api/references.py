"""How a path names a row: by its integer id or by its uuid."""

from uuid import UUID

from django.db.models import Q

MAX_ID = 2**63 - 1
NOTHING = Q(pk__in=())


def named_by(reference: str) -> Q:
    """The filter for that row.  Matches nothing if the text is neither, or too large for the column."""
    key = key_of(reference)
    if key is None:
        return NOTHING
    return Q(uuid=key) if isinstance(key, UUID) else Q(pk=key)


def key_of(reference: str) -> int | UUID | None:
    if reference.isascii() and reference.isdigit():
        return int(reference) if len(reference) < 20 and int(reference) <= MAX_ID else None
    try:
        return UUID(reference) if len(reference) == 36 else None
    except ValueError:
        return None
