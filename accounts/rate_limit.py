"""How often one token may ask: VPS_RATE_LIMIT requests a minute, counted in Redis.

Every answer says how much is left (``RateLimit-*``), a refused one when to come
back.  Without Redis nothing is refused: a limit is no reason to be down.
"""

import logging
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import redis
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from accounts.models import ApiToken
from vpsorg.errors import TooManyRequests

log = logging.getLogger(__name__)

WINDOW_S = 60
ANSWER_WITHIN_S = 0.25


class Allowance(NamedTuple):
    limit: int
    remaining: int
    reset_s: int


class TokenRateLimit(BaseThrottle):
    def allow_request(self, request: Request, view: Any) -> bool:
        limit = settings.VPS_RATE_LIMIT
        if not limit or not isinstance(request.auth, ApiToken):
            return True
        now = int(time.time())
        used = _count(request.auth.pk, now // WINDOW_S)
        reset_s = WINDOW_S - now % WINDOW_S
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


def _count(token_id: int, window: int) -> int:
    """How many requests of this token there were in this window, this one included; 0 if nobody can say."""
    key = f"rate:{token_id}:{window}"
    try:
        used = int(_redis(settings.REDIS_URL).incr(key))
        if used == 1:
            _redis(settings.REDIS_URL).expire(key, 2 * WINDOW_S)
    except redis.RedisError as error:
        log.warning("requests are not counted: %s", error)
        return 0
    return used


@lru_cache
def _redis(url: str) -> redis.Redis:
    # One connection instead of a pool: a third of the time, on the way of every request.
    return redis.Redis.from_url(
        url,
        socket_timeout=ANSWER_WITHIN_S,
        socket_connect_timeout=ANSWER_WITHIN_S,
        single_connection_client=True,
    )
