"""Does a few things at once: waiting for the store must not add up."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# A piece under way takes up to 12 MiB: plain, compressed, encrypted.
AT_ONCE = 2


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results in the order of the items, AT_ONCE under way.  Takes an item when there is room for it.

    The first error ends it, when those under way have ended.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="pieces") as threads:
        for item in one_ahead(items):
            if len(pending) == AT_ONCE:
                yield pending.popleft().result()
            pending.append(threads.submit(work, item))
            del item  # else its bytes stay until the next one comes
        while pending:
            yield pending.popleft().result()


def one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items: the next one is fetched, by a thread, while its predecessor is worked on."""
    iterator = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="next piece") as thread:
        coming = thread.submit(_next, iterator)
        while item := coming.result():
            coming = thread.submit(_next, iterator)
            yield item.pop()


def _next(iterator: Iterator[Item]) -> list[Item]:
    """The next item, alone in a list; an empty list at the end."""
    for item in iterator:
        return [item]
    return []
