"""How often one token may ask, and what an answer says of it; and the id that all of it goes by."""

from collections.abc import Callable
from typing import Any

import pytest
import redis

from accounts.access import rate_limit
from accounts.models import ApiToken
from core import request_id
from core.outage import Outage
from tests.api.contract import is_refusal
from tests.conftest import Customer


@pytest.fixture
def three_a_minute(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.VPS_RATE_LIMIT = 3
    monkeypatch.setattr(rate_limit, "OUTAGE", Outage(lasts_s=2))  # not another test's
    monkeypatch.setattr(rate_limit, "WINDOWS", rate_limit.Windows())
    redis.Redis.from_url(settings.REDIS_URL).flushdb()


@pytest.mark.usefixtures("three_a_minute")
def test_a_token_may_ask_so_often_and_is_told_when_to_come_back(
    alice: Customer, customer: Callable[..., Customer], settings: Any
) -> None:
    first = alice.get("/servers/")
    alice_pk = ApiToken.objects.get(account=alice.account).pk
    window = f"rate:{alice_pk}"
    assert int(first["RateLimit-Reset"]) in {59, 60}
    redis.Redis.from_url(settings.REDIS_URL).expire(window, 15)
    rate_limit.WINDOWS.learn(alice_pk, 0)  # as when another process answers
    answers = [first, *(alice.get("/servers/") for _ in range(3))]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer["RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert {(answer["RateLimit-Limit"], answer["RateLimit-Reset"]) for answer in answers[1:]} == {("3", "15")}
    assert answers[-1]["Retry-After"] == "15"
    assert is_refusal(answers[-1].json(), "too_many_requests")
    assert customer().get("/servers/").status_code == 200


@pytest.mark.usefixtures("three_a_minute")
def test_without_redis_nothing_is_refused(alice: Customer, settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    assert {alice.get("/servers/").status_code for _ in range(5)} == {200}


def test_an_answer_has_the_id_of_its_request(alice: Customer) -> None:
    assert alice.get("/servers/", HTTP_X_REQUEST_ID="abc-123")["X-Request-ID"] == "abc-123"


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "é", "<script>"])
def test_an_id_that_is_not_sound_is_replaced(alice: Customer, given: str) -> None:
    answer = alice.get("/servers/", HTTP_X_REQUEST_ID=given)

    assert answer["X-Request-ID"] != given
    assert len(answer["X-Request-ID"]) == 36


def test_a_refusal_is_logged_with_its_id(alice: Customer, caplog: pytest.LogCaptureFixture) -> None:
    """Guard: request_finished in core.request_id; Django logs a 4xx after the last middleware."""
    alice.get("/servers/999999/", HTTP_X_REQUEST_ID="mine")

    ids = [vars(record)["request_id"] for record in caplog.records if "Not Found" in record.getMessage()]
    assert ids == ["mine"]
    assert request_id.current.get() == "-", "the thread's next line is about something else"


@pytest.mark.usefixtures("three_a_minute")
def test_a_window_without_an_end_gets_one(alice: Customer, settings: Any) -> None:
    """Guard: nx in _count.  A process may have died between the count and its end."""
    token = ApiToken.objects.get(account=alice.account).pk
    broker = redis.Redis.from_url(settings.REDIS_URL)
    broker.set(f"rate:{token}", 1)
    assert int(alice.get("/servers/")["RateLimit-Reset"]) in {59, 60}
    assert broker.ttl(f"rate:{token}") in {59, 60}


@pytest.mark.usefixtures("three_a_minute")
def test_when_redis_begins_another_window_it_is_told_anew(alice: Customer, settings: Any) -> None:
    """Guard: ``used > 1``.  Redis may end a window a moment before this process expects it."""
    alice.get("/servers/")
    token = ApiToken.objects.get(account=alice.account).pk
    rate_limit.WINDOWS.learn(token, 7)
    redis.Redis.from_url(settings.REDIS_URL).flushdb()
    assert int(alice.get("/servers/")["RateLimit-Reset"]) in {59, 60}


@pytest.mark.usefixtures("three_a_minute")
def test_most_requests_cost_one_command(alice: Customer, settings: Any) -> None:
    """Guard: WINDOWS."""
    alice.get("/servers/")
    broker = redis.Redis.from_url(settings.REDIS_URL)
    before = broker.info("stats")["total_commands_processed"]
    alice.get("/servers/")
    assert broker.info("stats")["total_commands_processed"] - before == 2  # this one and that of before
