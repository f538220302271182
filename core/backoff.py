"""How long to wait after failures: twice as long after each, up to a limit."""

import random
from typing import NamedTuple


class Backoff(NamedTuple):
    """Pauses that double from ``first_s`` to ``longest_s``."""

    first_s: float
    longest_s: float

    def pause_s(self, failures: int) -> float:
        """The pause when there were so many failures before this one."""
        return min(self.longest_s, self.first_s * 2.0 ** min(failures, 30))

    def jittered_s(self, failures: int) -> float:
        """Between half of the pause and all of it: those that failed together do not come back together."""
        return jittered_s(self.pause_s(failures), least=0.5, most=1.0)

    def after(self, last_s: float) -> float:
        """The pause that follows a pause of ``last_s``."""
        return min(self.longest_s, 2 * last_s)


def jittered_s(pause_s: float, *, least: float, most: float) -> float:
    """The pause times a random factor."""
    return pause_s * random.uniform(least, most)  # noqa: S311
