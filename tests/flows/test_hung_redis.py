"""A Redis that hangs: no customer waits for it, and nothing is lost."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from servers.models import Operation
from tests.factories import AccountFactory, WebhookFactory, token_for
from tests.flows.test_frozen_holders import ask
from tests.private_services import REDIS
from tests.served import served

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def hanging() -> Iterator[None]:
    """Stopped in its tracks: its socket is open and it does nothing."""
    assert REDIS.pid is not None
    os.kill(REDIS.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(REDIS.pid, signal.SIGCONT)


def test_an_order_does_not_wait_for_a_redis_that_hangs(shop: dict[str, Any], tmp_path: Path) -> None:
    """Guard: the time limit and the outage of core.broker.  Each order here sends six messages."""
    account = AccountFactory.create()
    WebhookFactory.create_batch(5, account=account)
    token = token_for(account)
    with served(tmp_path, VPS_RATE_LIMIT="1000") as port:
        for _ in range(4):
            ask(port, token, "GET", "/account/me/")  # both processes are warm
            ask(port, token, "POST", "/servers/", shop)
        with hanging():
            began = time.monotonic()
            answers = [ask(port, token, "POST", "/servers/", shop) for _ in range(6)]
            took_s = time.monotonic() - began

    assert [status for status, _, _ in answers] == [201] * 6
    assert max(took_s for _, _, took_s in answers) < 2.5
    assert took_s < 6
    assert Operation.objects.filter(status="queued").count() == 10
