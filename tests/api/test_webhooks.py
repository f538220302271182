"""Webhooks as customers manage them: secrets shown once, addresses judged, what was sent to see."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from threading import Event as Signal
from threading import Thread
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from tests.api.conftest import Broker
from tests.api.contract import is_refusal, is_validation_error
from tests.api.test_idempotency import KEY
from tests.conftest import Customer
from tests.factories import WebhookDeliveryFactory, WebhookFactory
from tests.flows.test_operations import at_once
from tests.unit.test_webhook_addresses import NO_URLS
from vpsorg.celery import app
from webhooks import tasks
from webhooks.addresses import ASKERS_AT_ONCE, LOOK_UP_WITHIN_S
from webhooks.events import Event
from webhooks.models import Webhook, WebhookDelivery
from webhooks.sealing import unseal
from webhooks.sending import LIMIT_S
from webhooks.services import MAX_WEBHOOKS, announce

NEW = {"url": "https://hooks.example.com/vps"}


class NameServers:
    """Those of ``*.silent.example.com`` say nothing until they are let go."""

    def __init__(self, others: Callable[..., Any]) -> None:
        self.others = others
        self.asked: list[str] = []
        self.let_go = Signal()

    def __call__(self, host: str, *args: Any, **kwargs: Any) -> Any:
        if host.endswith("example.com"):
            self.asked.append(host)
        if host.endswith(".silent.example.com"):
            self.let_go.wait(30)
        return self.others(host, *args, **kwargs)


@pytest.fixture
def names(resolver: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServers]:
    names = NameServers(socket.getaddrinfo)
    monkeypatch.setattr(socket, "getaddrinfo", names)
    yield names
    names.let_go.set()


@pytest.fixture
def webhook(alice: Customer) -> Webhook:
    made: Webhook = WebhookFactory.create(account=alice.account)
    return made


def test_a_webhook_is_made_read_changed_and_deleted(alice: Customer) -> None:
    made = alice.post("/webhooks/", NEW | {"events": ["balance.low", "balance.low"]})
    path = f"/webhooks/{made.json()['id']}/"

    assert made.status_code == 201
    assert {field: made.json()[field] for field in ("url", "events", "is_active", "disabled_at")} == {
        **NEW,
        "events": ["balance.low"],
        "is_active": True,
        "disabled_at": None,
    }
    shown = {field: value for field, value in made.json().items() if field != "secret"}
    assert alice.get(path).json() == shown
    assert alice.get("/webhooks/").json() == {"count": 1, "results": [shown]}

    url = "https://other.example.com:8443/"
    changed = alice.patch(path, {"url": url, "events": ["*"], "is_active": False})
    assert changed.json() == shown | {"url": url, "events": ["*"], "is_active": False}
    assert alice.get(path).json() == changed.json()
    assert alice.patch(path, {}).json() == changed.json()

    assert alice.delete(path).status_code == 204
    assert is_refusal(alice.get(path).json(), "not_found")


def test_unless_told_otherwise_a_webhook_is_sent_everything(alice: Customer) -> None:
    assert alice.post("/webhooks/", NEW).json()["events"] == ["*"]


# Secrets.


def _is_anywhere(text: str) -> list[str]:
    """The tables that hold a text."""
    found = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT count(*) FROM "{table}" AS row WHERE row::text LIKE %s', [f"%{text}%"])
            found += [table] if cursor.fetchone() != (0,) else []
    return found


def test_a_secret_is_shown_once_and_kept_sealed(alice: Customer) -> None:
    """Guard: ``seal``, and ``_without_secrets`` of the answers that are kept for safe retries."""
    made = alice.post("/webhooks/", NEW, **KEY).json()
    path = f"/webhooks/{made['id']}/"
    assert _is_anywhere(made["secret"].removeprefix("whsec_")[:20]) == []
    rotated = alice.post(f"{path}rotate-secret/", HTTP_IDEMPOTENCY_KEY="another").json()

    assert made["secret"].startswith("whsec_")
    assert rotated == made | {"secret": rotated["secret"]}
    assert rotated["secret"] != made["secret"]
    assert unseal(Webhook.objects.get().sealed_secret) == rotated["secret"]
    for answer in (alice.get(path), alice.get("/webhooks/"), alice.patch(path, {"is_active": True})):
        assert b"whsec_" not in answer.content
    assert _is_anywhere(rotated["secret"].removeprefix("whsec_")[:20]) == []


def test_an_answer_that_is_given_again_has_no_secret(alice: Customer) -> None:
    first, again = (alice.post("/webhooks/", NEW, **KEY) for _ in range(2))

    assert again.json() == first.json() | {"secret": None}
    assert again["Idempotency-Replayed"] == "true"
    assert Webhook.objects.count() == 1


# What is refused.


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_what_is_no_url_is_refused(alice: Customer, webhook: Webhook, method: str) -> None:
    path = "/webhooks/" if method == "POST" else f"/webhooks/{webhook.pk}/"
    wrong: dict[str, Any] = {
        "a number": 1,
        "null": None,
        "a list": [NEW["url"]],
        "a surrogate": "https://\ud800/",
    }

    for what, url in (NO_URLS | wrong).items():
        answer = alice.ask(method, path, {"url": url})
        assert answer.status_code == 400, what
        assert is_validation_error(answer.json(), "url") or is_refusal(answer.json(), "parse_error"), what
    assert list(Webhook.objects.values_list("url", flat=True)) == [webhook.url]


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://localhost/", "address_refused"),
        ("https://127.0.0.1/", "address_refused"),
        ("https://[::1]/", "address_refused"),
        ("https://[::ffff:127.0.0.1]/", "address_refused"),
        ("https://169.254.169.254/latest/meta-data/", "address_refused"),
        ("https://10.0.0.1:8443/", "address_refused"),
        ("https://[64:ff9b::a00:1]/", "address_refused"),
        ("https://private.example.com/", "address_refused"),
        ("https://both.example.com/", "address_refused"),
        ("http://hooks.example.com/", "address_refused"),
        ("https://nowhere.example.com/", "host_not_found"),
    ],
)
def test_an_address_that_may_not_be_reached_is_refused(
    alice: Customer, webhook: Webhook, method: str, url: str, code: str
) -> None:
    """Guard: ``_require_permitted`` in ``create_webhook`` and in ``update_webhook``."""
    path = "/webhooks/" if method == "POST" else f"/webhooks/{webhook.pk}/"

    answer = alice.ask(method, path, {"url": url})

    assert answer.status_code == 400
    assert answer.json()["code"] == code
    assert list(answer.json()) == ["detail", "code", "url"]
    assert list(Webhook.objects.values_list("url", flat=True)) == [webhook.url]


@pytest.mark.parametrize(
    "events",
    [[], ["ping"], ["*", "nonsense"], "balance.low", [1], [None], None, {}, ["*"] * 11, ["BALANCE.LOW"]],
)
def test_events_that_are_none_are_refused(alice: Customer, webhook: Webhook, events: Any) -> None:
    for answer in (
        alice.post("/webhooks/", NEW | {"events": events}),
        alice.patch(f"/webhooks/{webhook.pk}/", {"events": events}),
    ):
        assert answer.status_code == 400
        assert list(answer.json()) == ["events"]


def test_an_account_has_at_most_ten(alice: Customer, customer: Callable[..., Customer]) -> None:
    WebhookFactory.create_batch(MAX_WEBHOOKS, account=alice.account)

    answer = alice.post("/webhooks/", NEW)

    assert answer.status_code == 400
    assert is_refusal(answer.json(), "too_many_webhooks")
    assert customer().post("/webhooks/", NEW).status_code == 201


def test_who_has_ten_has_no_more_names_looked_up(alice: Customer, names: NameServers) -> None:
    """Guard: the first ``_require_room`` in ``create_webhook``."""
    WebhookFactory.create_batch(MAX_WEBHOOKS, account=alice.account)

    assert is_refusal(alice.post("/webhooks/", NEW).json(), "too_many_webhooks")
    assert names.asked == []


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_as_many_are_made_as_there_is_room_for(alice: Customer) -> None:
    """Guard: the account's lock in ``create_webhook``.  Who is told to try again in a moment does."""
    WebhookFactory.create_batch(MAX_WEBHOOKS - 2, account=alice.account)

    def until_answered() -> int:
        while (status := alice.post("/webhooks/", NEW).status_code) == 429:
            pass
        return int(status)

    answers = at_once(6, until_answered)

    assert (answers.count(201), answers.count(400)) == (2, 4)
    assert alice.account.webhooks.count() == MAX_WEBHOOKS


# Name servers that do not answer.

SILENT = {"url": "https://hooks.silent.example.com/"}


@contextmanager
def waiting(who: Customer, names: NameServers, **headers: Any) -> Iterator[None]:
    """While ``who`` waits for an answer about a name whose server says nothing."""
    before = len(names.asked)

    def ask() -> None:
        who.post("/webhooks/", SILENT, **headers)
        connection.close()

    thread = Thread(target=ask)
    thread.start()
    while len(names.asked) == before:
        assert thread.is_alive()
        time.sleep(0.01)
    yield
    names.let_go.set()
    thread.join()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("key", [{}, KEY], ids=["", "with a key"])
def test_a_name_server_that_says_nothing_holds_one_request_of_its_customers(
    alice: Customer, customer: Callable[..., Customer], names: NameServers, key: dict[str, Any]
) -> None:
    """Guard: ``asker in _asking`` in ``_place``."""
    webhook, bob = WebhookFactory.create(account=alice.account), customer()
    with waiting(alice, names, **key):
        began = time.monotonic()
        refused = [
            *(alice.post("/webhooks/", SILENT) for _ in range(20)),
            alice.patch(f"/webhooks/{webhook.pk}/", SILENT),
        ]
        assert {answer.status_code for answer in refused} == {429}
        assert all(is_refusal(answer.json(), "too_many_requests") for answer in refused)
        assert {answer["Retry-After"] for answer in refused} == {"1"}
        assert names.asked == ["hooks.silent.example.com"]
        assert alice.get("/webhooks/").json()["count"] == 1
        assert bob.post("/webhooks/", NEW).status_code == 201
        assert time.monotonic() - began < LOOK_UP_WITHIN_S

    assert alice.post("/webhooks/", NEW).status_code == 201


@pytest.mark.django_db(transaction=True)
def test_name_servers_that_say_nothing_hold_half_of_a_process(
    customer: Callable[..., Customer], names: NameServers
) -> None:
    """Guard: ``ASKERS_AT_ONCE`` in ``_place``."""
    with ExitStack() as all_of_them:
        for _ in range(ASKERS_AT_ONCE):
            all_of_them.enter_context(waiting(customer(), names))
        bob = customer()
        assert is_refusal(bob.post("/webhooks/", NEW).json(), "too_many_requests")
        assert bob.get("/webhooks/").status_code == 200

    assert bob.post("/webhooks/", NEW).status_code == 201


# What was sent.


def test_the_log_of_deliveries_is_newest_first_and_paged(alice: Customer, webhook: Webhook) -> None:
    first, second = WebhookDeliveryFactory.create_batch(2, webhook=webhook)
    WebhookDelivery.objects.filter(pk=first.pk).update(
        status="failed", attempts=10, response_status=503, error="unsuccessful_status", duration_ms=84
    )
    path = f"/webhooks/{webhook.pk}/deliveries/"

    everything = alice.get(path).json()

    assert [row["id"] for row in everything["results"]] == [second.pk, first.pk]
    told = everything["results"][1]
    assert (told["status"], told["attempts"], told["response_status"]) == ("failed", 10, 503)
    assert (told["error"], told["duration_ms"], told["due_at"]) == ("unsuccessful_status", 84, None)
    assert everything["results"][0]["due_at"] is not None
    assert [row["id"] for row in alice.get(f"{path}?page=2&page_size=1").json()["results"]] == [first.pk]


def test_a_test_sends_a_ping_and_the_next_waits_for_it(
    alice: Customer, webhook: Webhook, broker: Broker
) -> None:
    Webhook.objects.update(events=["balance.low"])
    answers = []
    sent = broker.after_commit_of(lambda: answers.append(alice.post(f"/webhooks/{webhook.pk}/test/")))

    ping = WebhookDelivery.objects.get()
    assert answers[0].status_code == 201
    assert (answers[0].json()["id"], answers[0].json()["event"]) == (ping.pk, "ping")
    assert sent == [("webhooks.deliver", [ping.pk])]
    again = alice.post(f"/webhooks/{webhook.pk}/test/")
    assert is_refusal(again.json(), "ping_in_progress")
    WebhookDelivery.objects.update(status="failed")
    assert alice.post(f"/webhooks/{webhook.pk}/test/").status_code == 201


def test_a_webhook_that_is_off_is_not_tested(alice: Customer, webhook: Webhook) -> None:
    alice.patch(f"/webhooks/{webhook.pk}/", {"is_active": False})

    answer = alice.post(f"/webhooks/{webhook.pk}/test/")

    assert is_refusal(answer.json(), "webhook_off")


def test_switched_off_what_waits_is_given_up_and_switched_on_it_is_well_again(
    alice: Customer, webhook: Webhook
) -> None:
    waits, taken = (
        WebhookDeliveryFactory.create(webhook=webhook),
        WebhookDeliveryFactory.create(webhook=webhook),
    )
    WebhookDelivery.objects.filter(pk=taken.pk).update(status="delivered")
    Webhook.objects.update(disabled_at=timezone.now())

    alice.patch(f"/webhooks/{webhook.pk}/", {"is_active": False})

    told = {row.pk: (row.status, row.error) for row in WebhookDelivery.objects.all()}
    assert told == {waits.pk: ("failed", "switched_off"), taken.pk: ("delivered", "")}
    assert alice.patch(f"/webhooks/{webhook.pk}/", {"is_active": True}).json()["disabled_at"] is None


# What workers are told.


def test_a_message_to_a_worker_follows_the_commit(webhook: Webhook, broker: Broker) -> None:
    def tell() -> None:
        announce(account_id=webhook.account_id, event=Event.BALANCE_LOW, payload={})

    sent = broker.after_commit_of(tell)

    assert sent == [("webhooks.deliver", [WebhookDelivery.objects.get().pk])]


def test_the_sweep_finds_what_is_due_and_removes_what_is_old(webhook: Webhook, broker: Broker) -> None:
    due = WebhookDeliveryFactory.create(webhook=webhook)
    WebhookDeliveryFactory.create(webhook=webhook, due_at=timezone.now() + timedelta(hours=1))
    WebhookDeliveryFactory.create(status="failed", created_at=timezone.now() - timedelta(days=31))

    sent = broker.after_commit_of(tasks.sweep)

    assert sent == [("webhooks.deliver", [due.pk])]
    assert WebhookDelivery.objects.count() == 2


def test_what_wakes_workers_may_wait_behind_receivers_that_hang() -> None:
    """Fifty hang, and sixteen workers wait for them."""
    assert tasks.WAIT_S > 50 / 16 * LIMIT_S


def test_webhooks_have_a_queue_of_their_own() -> None:
    """A stranger's slow receiver must not hold those who provision."""
    for task in ("webhooks.deliver", "webhooks.sweep"):
        assert app.amqp.router.route({}, task)["queue"].name == "webhooks"
    assert app.amqp.router.route({}, "provisioning.carry_out")["queue"].name == "provision"
