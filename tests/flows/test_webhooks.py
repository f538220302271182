"""Messages to customers' receivers: real sockets, real Postgres, and everything that can go wrong between."""

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.factories import AccountFactory, WebhookDeliveryFactory, WebhookFactory
from tests.flows.conftest import Killed
from tests.receiver import LOOPBACK, Receiver, Resolver
from tests.unit.test_webhook_signing import verify
from webhooks import delivery as outbox
from webhooks import services
from webhooks.events import Event
from webhooks.models import Webhook, WebhookDelivery
from webhooks.sending import Fault, Outcome

pytestmark = pytest.mark.django_db
with_threads = pytest.mark.django_db(transaction=True)

PENDING, DELIVERED, FAILED = WebhookDelivery.Status


@pytest.fixture(autouse=True)
def loopback_allowed(settings: Any) -> None:
    """As an operator allows a network of their own."""
    settings.VPS_WEBHOOK_PRIVATE_NETWORKS = LOOPBACK


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    made: Webhook = WebhookFactory.create(url=receiver.url())
    return made


def announce(webhook: Webhook, event: Event = Event.BALANCE_LOW) -> WebhookDelivery:
    services.announce(account_id=webhook.account_id, event=event, payload={"balance": "1.50"})
    return WebhookDelivery.objects.latest("pk")


def work() -> None:
    """What workers do with all that is due now."""
    while due := outbox.due_deliveries().first():
        outbox.deliver(due.pk)


def time_passes() -> None:
    WebhookDelivery.objects.update(due_at=timezone.now() - timedelta(seconds=1))


def lease_ends() -> None:
    """What time does when a worker has died."""
    past = timezone.now() - timedelta(seconds=1)
    WebhookDelivery.objects.exclude(lease_until=None).update(lease_until=past)


# A message arrives.


def test_an_event_reaches_its_receiver_signed(receiver: Receiver) -> None:
    account = AccountFactory.create()
    webhook, secret = services.create_webhook(account=account, url=receiver.url("/hook?a=b"), events=["*"])
    sent = announce(webhook)

    work()

    (heard,) = receiver.heard
    message = verify(secret, heard.headers, heard.body)
    assert (message["type"], message["data"]) == ("balance.low", {"balance": "1.50"})
    assert heard.path == "/hook?a=b"
    assert heard.headers["content-type"] == "application/json"
    assert heard.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert heard.headers["webhook-id"] == str(sent.event_id)
    sent.refresh_from_db()
    assert (sent.status, sent.attempts, sent.response_status, sent.error) == (DELIVERED, 1, 204, "")
    assert sent.delivered_at is not None


def test_the_old_secret_signs_nothing_after_it_was_replaced(receiver: Receiver) -> None:
    webhook, old = services.create_webhook(account=AccountFactory.create(), url=receiver.url(), events=["*"])
    announce(webhook)
    new = services.rotate_secret(webhook=webhook)

    work()

    (heard,) = receiver.heard
    assert verify(new, heard.headers, heard.body)
    with pytest.raises(ValueError, match="signature"):
        verify(old, heard.headers, heard.body)


def test_only_those_are_told_who_want_to_know(receiver: Receiver) -> None:
    """Guard: the WHERE of ``ANNOUNCE``."""
    account = AccountFactory.create()
    wanted = WebhookFactory.create(account=account, events=["server.status_changed", "balance.low"])
    everything = WebhookFactory.create(account=account, events=["*"])
    WebhookFactory.create(account=account, events=["account.suspended"])
    WebhookFactory.create(account=account, is_active=False)
    WebhookFactory.create()

    announce(wanted)

    told = WebhookDelivery.objects.all()
    assert {row.webhook for row in told} == {wanted, everything}
    assert len({row.event_id for row in told}) == 1


def test_where_nobody_wants_to_know_one_statement_is_all_it_costs() -> None:
    account = AccountFactory.create()

    with CaptureQueriesContext(connection) as queries:
        services.announce(account_id=account.pk, event=Event.BALANCE_LOW, payload={})

    assert len(queries) == 1
    assert not WebhookDelivery.objects.exists()


def test_what_is_rolled_back_was_never_told(webhook: Webhook) -> None:
    with suppress(RuntimeError), transaction.atomic():
        announce(webhook)
        raise RuntimeError

    assert not WebhookDelivery.objects.exists()


# A receiver that fails.


def test_a_receiver_that_is_ill_twice_gets_it_the_third_time(receiver: Receiver, webhook: Webhook) -> None:
    receiver.answers = [500, 503]
    sent = announce(webhook)

    for shortest_s, longest_s in ((8, 12), (48, 72)):
        began = timezone.now()
        work()
        sent.refresh_from_db()
        assert began + timedelta(seconds=shortest_s) < sent.due_at
        assert sent.due_at < timezone.now() + timedelta(seconds=longest_s)
        time_passes()
    work()
    sent.refresh_from_db()

    assert (sent.status, sent.attempts, sent.response_status) == (DELIVERED, 3, 204)
    assert len({heard.headers["webhook-id"] for heard in receiver.heard}) == 1
    assert len({heard.body for heard in receiver.heard}) == 1
    work()
    assert len(receiver.heard) == 3


def test_before_it_is_due_nothing_is_sent_again(receiver: Receiver, webhook: Webhook) -> None:
    """Guard: ``due_at__lte`` in ``take``."""
    receiver.answers = [500]
    sent = announce(webhook)
    work()

    outbox.deliver(sent.pk)

    assert len(receiver.heard) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(receiver: Receiver, webhook: Webhook, status: int) -> None:
    def elsewhere(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Location", receiver.url("/secret"))
        request.end_headers()

    receiver.answers = [elsewhere]
    sent = announce(webhook)

    work()

    sent.refresh_from_db()
    assert [heard.path for heard in receiver.heard] == ["/hook"]
    assert (sent.status, sent.response_status, sent.error) == (PENDING, status, Fault.UNSUCCESSFUL_STATUS)


def test_after_nearly_three_days_it_is_given_up_and_the_webhook_switched_off(
    receiver: Receiver, webhook: Webhook
) -> None:
    receiver.answers = [500] * 100
    sent, waited = announce(webhook), 0.0
    for _ in range(100):
        began = timezone.now()
        work()
        sent.refresh_from_db()
        if sent.status != PENDING:
            break
        waited += (sent.due_at - began).total_seconds()
        time_passes()
    webhook.refresh_from_db()

    assert (sent.status, sent.attempts) == (FAILED, 10)
    assert 2 < waited / 86400 < 4
    assert not webhook.is_active
    assert webhook.disabled_at is not None


def test_a_webhook_that_took_something_meanwhile_stays_on(receiver: Receiver, webhook: Webhook) -> None:
    """Guard: ``delivered_since`` in ``_switch_off_if_dead``.  One poisonous message is no dead receiver."""
    poison = announce(webhook)
    announce(webhook)
    receiver.answers = [500]
    work()
    WebhookDelivery.objects.filter(pk=poison.pk).update(attempts=9)
    receiver.answers = [500]
    time_passes()

    work()

    poison.refresh_from_db()
    webhook.refresh_from_db()
    assert (poison.status, webhook.is_active) == (FAILED, True)


def test_a_ping_is_sent_once(receiver: Receiver, webhook: Webhook) -> None:
    receiver.answers = [500]
    ping = services.send_ping(webhook=webhook)

    work()

    ping.refresh_from_db()
    webhook.refresh_from_db()
    assert (ping.status, ping.attempts, ping.response_status) == (FAILED, 1, 500)
    assert webhook.is_active
    assert json.loads(receiver.heard[0].body)["type"] == "ping"


def test_a_secret_that_cannot_be_read_is_said(receiver: Receiver, webhook: Webhook, settings: Any) -> None:
    sent = announce(webhook)
    settings.SECRET_KEY = "another one, which is as long as the first was"

    work()

    sent.refresh_from_db()
    assert (sent.status, sent.error, receiver.heard) == (PENDING, Fault.SECRET_UNREADABLE, [])


def test_what_staff_send_again_arrives_again_under_its_old_id(receiver: Receiver, webhook: Webhook) -> None:
    sent = announce(webhook)
    work()

    services.send_again(delivery=sent)
    work()

    assert [heard.headers["webhook-id"] for heard in receiver.heard] == [str(sent.event_id)] * 2


def test_a_name_that_turns_to_this_machine_after_it_was_registered_is_refused(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """Guard: ``permitted_addresses`` in ``_exchange``."""
    settings.VPS_WEBHOOK_PRIVATE_NETWORKS = []
    monkeypatch.setattr(socket, "getaddrinfo", Resolver("8.8.8.8", "127.0.0.1"))
    url = f"https://rebind.example.com:{receiver.port}/"
    account = AccountFactory.create()
    services.require_permitted(account=account, url=url)
    webhook, _ = services.create_webhook(account=account, url=url, events=["*"])
    sent = announce(webhook)

    work()

    sent.refresh_from_db()
    assert (sent.status, sent.error, receiver.heard) == (PENDING, Fault.ADDRESS_REFUSED, [])


# Workers: several, and mortal.


def at_once(*deeds: Callable[[], Any]) -> None:
    gate = threading.Barrier(len(deeds))

    def run(deed: Callable[[], Any]) -> None:
        gate.wait()
        try:
            deed()
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=[deed]) for deed in deeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _answers_slowly(request: BaseHTTPRequestHandler) -> None:
    time.sleep(0.3)
    request.send_response(204)
    request.end_headers()


@with_threads
def test_the_same_message_to_many_workers_is_sent_once(receiver: Receiver, webhook: Webhook) -> None:
    """Guard: ``due`` in ``leases.take``."""
    sent = announce(webhook)
    receiver.answers = [_answers_slowly]

    at_once(*[lambda: outbox.deliver(sent.pk)] * 8)

    assert len(receiver.heard) == 1
    sent.refresh_from_db()
    assert (sent.status, sent.attempts) == (DELIVERED, 1)


def test_what_a_dead_worker_had_sent_is_sent_again_after_its_lease(
    receiver: Receiver, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = announce(webhook)

    def die(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "record", die)
        with pytest.raises(Killed):
            outbox.deliver(sent.pk)
    work()
    assert len(receiver.heard) == 1
    lease_ends()
    work()

    sent.refresh_from_db()
    assert (sent.status, sent.attempts) == (DELIVERED, 2)
    assert len({heard.headers["webhook-id"] for heard in receiver.heard}) == 1


def test_a_worker_that_comes_back_late_changes_nothing(webhook: Webhook) -> None:
    """Guard: the fence, ``leases.held``."""
    sent = announce(webhook)
    ghost = outbox.take(sent.pk)
    assert ghost is not None
    lease_ends()
    assert outbox.take(sent.pk) is not None

    outbox.record(ghost, Outcome(200, None))

    sent.refresh_from_db()
    assert (sent.status, sent.attempts) == (PENDING, 2)


def test_a_receiver_that_hangs_holds_one_worker_and_not_all(webhook: Webhook) -> None:
    """Guard: ``may_begin`` of a delivery."""
    first, second = announce(webhook), announce(webhook)
    elsewhere = WebhookDeliveryFactory.create()

    assert outbox.take(first.pk) is not None
    assert outbox.take(second.pk) is None
    assert outbox.take(elsewhere.pk) is not None


@with_threads
def test_a_webhook_deleted_while_it_is_told_of_something_fails_nobody(webhook: Webhook) -> None:
    """Guard: ``FOR KEY SHARE`` in ``ANNOUNCE``, the lock in ``delete_webhook``; without, one of two fails."""
    told, errors = threading.Event(), list[Exception]()

    def tell() -> None:
        try:
            with transaction.atomic():
                announce(webhook)
                told.set()
                time.sleep(0.5)
        except Exception as error:
            errors.append(error)

    def delete() -> None:
        told.wait(60)
        try:
            services.delete_webhook(webhook=webhook)
        except Exception as error:
            errors.append(error)

    at_once(tell, delete)

    assert errors == []
    assert not Webhook.objects.exists()
    assert not WebhookDelivery.objects.exists()


@with_threads
def test_who_tells_of_something_does_not_wait_for_others_who_do(webhook: Webhook) -> None:
    """Guard: KEY SHARE; with the ORM's lock this ends in the database's lock timeout."""
    with transaction.atomic():
        announce(webhook)

        def tell() -> None:
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '2s'")
            announce(webhook)

        at_once(tell)

    assert WebhookDelivery.objects.count() == 2


def test_of_those_that_are_due_each_webhook_is_woken_for_one(webhook: Webhook) -> None:
    first, _ = announce(webhook), announce(webhook)
    other = WebhookDeliveryFactory.create()
    WebhookDeliveryFactory.create(due_at=timezone.now() + timedelta(minutes=1))
    WebhookDeliveryFactory.create(lease_until=timezone.now() + timedelta(minutes=1))
    WebhookDeliveryFactory.create(webhook__is_active=False)
    WebhookDeliveryFactory.create(status=FAILED)

    assert set(outbox.first_due_of_each_webhook()) == {first, other}


def test_who_waits_longest_is_woken_first() -> None:
    """Guard: the last ``order_by`` in ``first_due_of_each_webhook``; else the oldest webhook always is."""
    ago = [timezone.now() - timedelta(minutes=minutes) for minutes in (1, 3, 2)]
    latest, oldest, middle = (WebhookDeliveryFactory.create(due_at=moment) for moment in ago)

    assert list(outbox.first_due_of_each_webhook()) == [oldest, middle, latest]


def test_what_is_older_than_thirty_days_is_forgotten_in_batches() -> None:
    long_ago = timezone.now() - timedelta(days=30, seconds=1)
    WebhookDeliveryFactory.create_batch(5, created_at=long_ago, status=FAILED)
    kept = WebhookDeliveryFactory.create(created_at=timezone.now() - timedelta(days=29))

    outbox.remove_old_deliveries(3)
    assert WebhookDelivery.objects.count() == 3
    outbox.remove_old_deliveries(3)
    assert list(WebhookDelivery.objects.all()) == [kept]
