"""The rate limit: VPS_RATE_LIMIT requests a minute for each token, counted in Redis.

Every answer says how much is left (``RateLimit-*``), a refused one says
when to retry.  Without Redis no request is refused: the limit must not take the API down.
"""

import logging
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha1
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
# One command, since every request passes here: three in a pipeline cost a third of a millisecond more.
COUNT = """
    local used = redis.call('INCR', KEYS[1])
    if used == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
    return {used, redis.call('TTL', KEYS[1])}
"""
COUNT_SHA1 = sha1(COUNT.encode(), usedforsecurity=False).hexdigest()
ANSWER_WITHIN_S = 0.25
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
    asked = (1, f"rate:{token_id}", WINDOW_S)
    try:
        client = _redis(settings.REDIS_URL)
        try:
            used, reset_s = client.evalsha(COUNT_SHA1, *asked)
        except redis.exceptions.NoScriptError:  # a Redis that was restarted has forgotten it
            used, reset_s = client.eval(COUNT, *asked)
    except redis.RedisError as error:
        OUTAGE.begins()
        log.warning("requests are not counted: %s", error)
        return 0, WINDOW_S
    return int(used), max(1, int(reset_s))


@lru_cache
def _redis(url: str) -> redis.Redis:
    # One connection instead of a pool: every request passes here, and this takes a third of the time.
    return redis.Redis.from_url(
        url,
        socket_timeout=ANSWER_WITHIN_S,
        socket_connect_timeout=ANSWER_WITHIN_S,
        single_connection_client=True,
    )
