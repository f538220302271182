"""One customer's receivers must not hold up another's messages."""

import sys
from collections.abc import Iterator
from time import monotonic

import pytest

from accounts.models import Account
from deploy.local.folder import PROJECT
from deploy.local.processes import Process, wait_for
from tests.factories import AccountFactory, WebhookFactory
from tests.flows.test_webhook_sending import drips
from tests.private_services import VAR
from tests.receiver import receiving
from webhooks import services
from webhooks.delivery import AT_ONCE
from webhooks.events import Event
from webhooks.models import Webhook, WebhookDelivery
from webhooks.sending import LIMIT_S

WORKERS = 4  # as in make run


@pytest.fixture
def worker(transactional_db: None, environment: dict[str, str]) -> Iterator[Process]:
    worker = Process("webhooks", VAR / "chaos")
    options = ["--queues", "webhooks", "--pool", "threads", "--concurrency", str(WORKERS), "--without-mingle"]
    command = [sys.executable, "-m", "celery", "-A", "vpsorg", "worker", *options]
    env = environment | {"VPS_WEBHOOK_PRIVATE_NETWORKS": "127.0.0.0/8"}
    worker.start(command, env=env, cwd=PROJECT)
    yield worker
    worker.stop()


def test_receivers_that_drip_hold_up_their_own_customer_only(worker: Process) -> None:
    """Guard: the lane of ``webhooks.delivery``; without it they hold all workers, again and again."""
    alice: Account = AccountFactory.create()
    with receiving() as slow, receiving() as quick:
        slow.answers = [drips] * 100
        WebhookFactory.create_batch(2 * WORKERS, account=alice, url=slow.url())
        for _ in range(10):
            services.announce(account_id=alice.pk, event=Event.BALANCE_LOW, payload={})
        assert wait_for(lambda: len(slow.heard) >= AT_ONCE, 30), worker.last_lines(40)
        bobs: Webhook = WebhookFactory.create(url=quick.url())
        asked = monotonic()
        ping = services.send_ping(webhook=bobs)
        told = WebhookDelivery.objects.filter(pk=ping.pk, status="delivered")
        assert wait_for(told.exists, LIMIT_S - 2), worker.last_lines(40)
        assert monotonic() - asked < LIMIT_S - 2
        assert len(slow.heard) == AT_ONCE
