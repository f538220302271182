"""Sees to many things one by one, so that a bad one never stops its neighbours.

For lists that somebody else fills: files and machines on a host, what guests report, hosts, customers' rows.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

Thing = TypeVar("Thing")
Result = TypeVar("Result")


def read_each(
    kind: str,
    things: Iterable[Thing],
    read: Callable[[Thing], Result],
    *,
    concerns_all: Callable[[Exception], bool] = lambda error: False,
) -> Iterator[Result]:
    """What ``read`` makes of each thing.  A thing that it fails at is logged and left out.

    An error that ``concerns_all``, as when the host or Postgres is gone, is raised.
    """
    for thing in things:
        try:
            result = read(thing)
        except Exception as error:
            if concerns_all(error):
                raise
            log.exception("passed over a %s: %s", kind, thing)
        else:
            yield result


def see_to_each(
    kind: str,
    things: Iterable[Thing],
    deed: Callable[[Thing], object],
    *,
    concerns_all: Callable[[Exception], bool] = lambda error: False,
) -> None:
    """Do the same deed to each thing, as ``read_each`` reads them."""
    for _ in read_each(kind, things, deed, concerns_all=concerns_all):
        pass
