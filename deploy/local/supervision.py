"""Keeps the parts of a run going: a part that ends by itself is started again, and that is said.

Healthy parts end, too: a worker does when Redis is restarted at the wrong moment, and when a process of
its pool is killed while that starts.  systemd and Docker start such a part again; so does ``make run``.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import NoReturn

from deploy.local.errors import LocalError
from deploy.local.processes import Part

# A part that ends this often within this time has a fault that no restart mends.
MOST_RESTARTS, WITHIN_S = 5, 60.0


def supervise(parts: Sequence[Part], say: Callable[[str], None]) -> NoReturn:
    """Start each part again that ends by itself, for ever.

    Raises LocalError for a part that does not start, and for one that ended a sixth time within a minute.
    """
    restarts: defaultdict[str, deque[float]] = defaultdict(deque)
    while True:
        for part in parts:
            if part.pid is None:
                _restart(part, restarts[part.name], say)
        time.sleep(0.5)


def _restart(part: Part, restarts: deque[float], say: Callable[[str], None]) -> None:
    now = time.monotonic()
    while restarts and restarts[0] < now - WITHIN_S:
        restarts.popleft()
    if len(restarts) == MOST_RESTARTS:
        raise LocalError(
            f"{part.name} ended by itself, again and again: it was started {MOST_RESTARTS} times "
            f"in {WITHIN_S:.0f} s. {part.last_lines()}"
        )
    restarts.append(now)
    say(f"{part.name} ended by itself and is started again. {part.last_lines()}")
    part.start()
