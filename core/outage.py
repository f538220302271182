"""Remembers that a service did not answer, so that for a moment no other request waits for it."""

from time import monotonic


class Outage:
    """The availability of one service, as this process saw it."""

    def __init__(self, lasts_s: float) -> None:
        self._lasts_s = lasts_s
        self._over_at = 0.0

    @property
    def is_on(self) -> bool:
        """Whether the service failed a moment ago.  If so, do not call it."""
        return monotonic() < self._over_at

    def begins(self) -> None:
        """The service has just failed."""
        self._over_at = monotonic() + self._lasts_s
