"""A cache of plans, systems and locations by id: few rows, read with every server, seldom changed.

What staff change shows within FRESH_S in every process; a row that is new, at once.
"""

from time import monotonic
from typing import Generic, TypeVar

from django.db.models import Model

from plans.models import Location, OsVersion, Plan

FRESH_S = 5

Row = TypeVar("Row", bound=Model)


class Kept(Generic[Row]):
    def __init__(self, model: type[Row]) -> None:
        self._model = model
        self._rows: dict[int, Row] = {}
        self._stale_at = 0.0

    def __getitem__(self, pk: int) -> Row:
        if pk not in self._rows or monotonic() > self._stale_at:
            self._rows = self._model._default_manager.in_bulk()
            self._stale_at = monotonic() + FRESH_S
        return self._rows[pk]

    def forget(self) -> None:
        self._stale_at = 0.0


plans = Kept(Plan)
os_versions = Kept(OsVersion)
locations = Kept(Location)
