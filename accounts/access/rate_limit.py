"""The rate limit: VPS_RATE_LIMIT requests a minute for each token, counted in Redis.

Every answer says how much is left (``RateLimit-*``), a refused one says
when to retry.  Without Redis no request is refused: the limit must not take the API down.
"""

import logging
from collections.abc import Callable
from functools import lru_cache
from math import ceil
from time import monotonic
from typing import Any, NamedTuple

import redis
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from accounts.models import ApiToken
from core.errors import TooManyRequests
from core.outage import Outage

log = logging.getLogger(__name__)

WINDOW_S = 60
ANSWER_WITHIN_S = 0.25
MOST_WINDOWS = 10_000  # as many tokens; they are learned anew when there are more
OUTAGE = Outage(lasts_s=2)


class Allowance(NamedTuple):
    limit: int
    remaining: int
    reset_s: int


class TokenRateLimit(BaseThrottle):
    def allow_request(self, request: Request, view: Any) -> bool:
        limit = settings.VPS_RATE_LIMIT
        if not limit or not isinstance(request.auth, ApiToken):
            return True
        used, reset_s = _count(request.auth.pk)
        request._request.allowance = Allowance(limit, max(0, limit - used), reset_s)  # type: ignore[attr-defined]
        if used > limit:
            raise TooManyRequests(f"This token may ask {limit} times a minute.", retry_after_s=reset_s)
        return True


class RateLimitHeaders:
    """Tells every caller what is left of the minute."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        allowance: Allowance | None = getattr(request, "allowance", None)
        if allowance:
            response["RateLimit-Limit"] = str(allowance.limit)
            response["RateLimit-Remaining"] = str(allowance.remaining)
            response["RateLimit-Reset"] = str(allowance.reset_s)
        return response


def _count(token_id: int) -> tuple[int, int]:
    """The requests of this token in this window, this one included, and when the window ends.

    A window begins with a token's first request and ends by Redis's clock: those of the API's machines may
    differ.  When Redis does not answer, the count is 0.
    """
    if OUTAGE.is_on:
        return 0, WINDOW_S
    key = f"rate:{token_id}"
    try:
        client = _redis(settings.REDIS_URL)
        used = int(client.incr(key))
        left_s = WINDOWS.left_s(token_id) if used > 1 else None
        if left_s is None:
            # One command for most requests: two more would cost each of them half a millisecond.
            client.expire(key, WINDOW_S, nx=True)
            left_s = max(1, int(client.ttl(key)))
            WINDOWS.learn(token_id, left_s)
    except redis.RedisError as error:
        OUTAGE.begins()
        log.warning("requests are not counted: %s", error)
        return 0, WINDOW_S
    return used, left_s


class Windows:
    """When the windows of tokens end, as far as this process knows: at most a second later than in Redis."""

    def __init__(self) -> None:
        self._ends: dict[int, float] = {}  # by token, by this machine's monotonic clock

    def left_s(self, token_id: int) -> int | None:
        """The seconds that are left of the token's window; None: Redis must be asked."""
        left_s = self._ends.get(token_id, 0.0) - monotonic()
        return ceil(left_s) if left_s > 0 else None

    def learn(self, token_id: int, left_s: int) -> None:
        if len(self._ends) >= MOST_WINDOWS:
            self._ends.clear()
        self._ends[token_id] = monotonic() + left_s


WINDOWS = Windows()


@lru_cache
def _redis(url: str) -> redis.Redis:
    # One connection instead of a pool: every request passes here, and this takes a third of the time.
    return redis.Redis.from_url(
        url,
        socket_timeout=ANSWER_WITHIN_S,
        socket_connect_timeout=ANSWER_WITHIN_S,
        single_connection_client=True,
    )
