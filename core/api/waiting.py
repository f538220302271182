"""Limits how many requests may wait at once, because each holds a thread that others need."""

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from threading import Lock


class Seats:
    """At most ``total`` seats in this process, at most ``per_holder`` of them for one holder."""

    def __init__(self, total: int, per_holder: int) -> None:
        self._total, self._per_holder = total, per_holder
        self._taken = Counter[Hashable]()
        self._lock = Lock()

    @contextmanager
    def taken(self, holder: Hashable) -> Iterator[bool]:
        """Hold a seat during the block.  Yields False if no seat is free: then do not wait."""
        with self._lock:
            is_free = self._taken.total() < self._total and self._taken[holder] < self._per_holder
            if is_free:
                self._taken[holder] += 1
        try:
            yield is_free
        finally:
            if is_free:
                with self._lock:
                    self._taken[holder] -= 1
                    if not self._taken[holder]:
                        del self._taken[holder]
