"""What staff see and may do: every model, at a constant cost, through the services."""

import re
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from decimal import Decimal
from ipaddress import ip_network
from typing import Any

import pytest
from django.contrib.admin import site
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.db import IntegrityError, connection, transaction
from django.db.models import Model
from django.forms import IntegerField, SplitDateTimeField
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from accounts.admin import AccountAdmin
from accounts.models import Account, ApiToken, IdempotentAnswer, SshKey
from accounts.services import issue_token
from billing import ledger
from billing.models import ArchivedUsage, DetachedMonth, Payment, Proof, Review, Usage
from core.admin import EditAdmin, ReadOnlyAdmin
from inventory.admin import HypervisorAdmin
from inventory.models import Hypervisor, ImageCopy, IpAddress, IpPool, Placement, Port
from inventory.pools import add_ip_pool
from inventory.services import claim
from plans.models import Plan
from servers.models import Operation, Server
from servers.states import OperationStatus, ServerStatus
from tests.api.conftest import Broker
from tests.conftest import HANDLER, Customer
from tests.factories import (
    AccountFactory,
    BackupFactory,
    HypervisorFactory,
    ImageFactory,
    LocationFactory,
    OperatingSystemFactory,
    OperationFactory,
    OsVersionFactory,
    PlanFactory,
    ServerFactory,
    WebhookDeliveryFactory,
)
from tests.flows.test_dunning import begun
from tests.flows.test_metering import forge
from webhooks.models import WebhookDelivery

SERVERS = "/admin/servers/server/"
TOKENS = "/admin/accounts/apitoken/"
DELIVERIES = "/admin/webhooks/webhookdelivery/"
MODELS = sorted(site._registry, key=lambda model: model._meta.label)
each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label)


def make_rows(numbers: Iterable[int]) -> None:
    """For each number a row of every model, and each with parents of its own."""
    for n in numbers:
        location = LocationFactory.create(code=f"place-{n}")
        system = OperatingSystemFactory.create(name=f"System {n}")
        host = HypervisorFactory.create(location=location)
        placement = Placement.objects.create(hypervisor=host, vcpus=1, memory_mib=1, disk_gib=1)
        pool = IpPool.objects.create(location=location, network=f"10.0.{n}.0/24", gateway=f"10.0.{n}.1")
        port = Port.objects.create(mac=f"52:54:00:00:00:{n:02x}")
        IpAddress.objects.create(pool=pool, address=f"10.0.{n}.2", port=port)
        ImageCopy.objects.create(
            hypervisor=host, image=ImageFactory.create(sha256=f"{n:064x}", has_agent=True)
        )
        account = AccountFactory.create()
        issue_token(account=account, name=f"token {n}")
        IdempotentAnswer.objects.create(account=account, key=n, status=201, created_at=timezone.now())
        SshKey.objects.create(account=account, name=f"key {n}", public_key="ssh-ed25519 AAAA", fingerprint=n)
        WebhookDeliveryFactory.create(webhook__account=account)
        server = ServerFactory.create(
            account=account,
            location=location,
            plan=PlanFactory.create(slug=f"plan-{n}", name=f"Plan {n}"),
            os_version=OsVersionFactory.create(
                name=f"Version {n}", operating_system=system, image__sha256=f"{n:064x}"
            ),
            home=placement,
            port=port,
        )
        OperationFactory.create(server=server)
        BackupFactory.create(server=server)
        began = begun(server, timezone.now())
        forge(began, date(2026, 1, 1) + timedelta(days=n))
        month = date(2020 + n // 12, 1 + n % 12, 1)
        ArchivedUsage.objects.create(meter=began, account=account, month=month, hours=1, amount=-1)
        DetachedMonth.objects.create(month=month)
        Proof.objects.create(account=account, month=month, fingerprint="x")
        Review.objects.update_or_create(account=account, defaults={"due_at": timezone.now()})
        User.objects.create(username=f"user{n}")
        Group.objects.create(name=f"group {n}")


@pytest.fixture
def admin_client(db: None) -> Client:
    """A superuser, logged in.  Without a password: to hash one takes longer than a test."""
    return logged_in(User.objects.create(username="admin", is_staff=True, is_superuser=True))


def logged_in(user: User) -> Client:
    client = Client()
    client.handler = HANDLER
    client.force_login(user)
    return client


def page(model: type[Model], name: str, *arguments: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=arguments)


@each_model
def test_a_list_answers_with_search_and_every_filter(admin_client: Client, model: type[Model]) -> None:
    make_rows([1, 2])
    url = page(model, "changelist")

    answer = admin_client.get(url)

    assert answer.status_code == 200
    changelist = answer.context["cl"]
    assert changelist.result_count >= 2
    assert changelist.search_fields
    assert admin_client.get(url, {"q": "a 10.0.1.2 ' % \\ 💥"}).status_code == 200
    for spec in changelist.filter_specs:
        _, first, *others = spec.choices(changelist)
        for choice in (first, *others[-1:]):
            assert admin_client.get(url + choice["query_string"]).status_code == 200, spec.title


@each_model
def test_its_pages_of_one_row_answer(admin_client: Client, model: type[Model]) -> None:
    make_rows([1])
    row, may = model._default_manager.all()[0], site._registry[model]
    request = admin_client.get(page(model, "changelist")).wsgi_request

    assert admin_client.get(page(model, "change", row.pk)).status_code == 200
    assert admin_client.get(page(model, "history", row.pk)).status_code == 200
    add = 200 if may.has_add_permission(request) else 403
    assert admin_client.get(page(model, "add")).status_code == add
    delete = 200 if may.has_delete_permission(request, row) else 403
    assert admin_client.get(page(model, "delete", row.pk)).status_code == delete


ODD_VALUES = ["\0", "abc", "9" * 30]


@each_model
def test_a_list_whose_address_asks_for_nonsense_is_shown_all_the_same(
    admin_client: Client, model: type[Model]
) -> None:
    """Guard: ForgivingChangeList."""
    make_rows([1])
    filters = map(_parameter_of, site._registry[model].list_filter)
    names = ["q", "id__exact", "o", "p", "created_at__gte", *filters]
    for name in names:
        for value in ODD_VALUES:
            answer = admin_client.get(page(model, "changelist"), {name: value}, follow=True)
            assert answer.status_code == 200, (name, value)


def test_a_search_for_a_nul_in_a_field_that_completes_itself_finds_nothing(admin_client: Client) -> None:
    """Guard: ``ListAdmin.get_search_results``."""
    asked = {"app_label": "billing", "model_name": "payment", "field_name": "account", "term": "\0"}

    assert admin_client.get("/admin/autocomplete/", asked).json()["results"] == []


def _parameter_of(of: Any) -> str:
    name = of[0] if isinstance(of, tuple) else of
    return f"{name}__exact" if isinstance(name, str) else str(name.parameter_name)


def test_a_list_costs_the_same_number_of_queries_whatever_it_holds(admin_client: Client) -> None:
    def costs() -> dict[str, int]:
        told = {}
        for model in MODELS:
            with CaptureQueriesContext(connection) as queries:
                admin_client.get(page(model, "changelist"))
            told[model._meta.label] = len(queries)
        return told

    make_rows([1, 2])
    few = costs()
    make_rows(range(3, 31))

    assert costs() == few


@pytest.mark.parametrize("asked", [{}, {"q": "a"}, {"created_at__gte": "2025-01-01 00:00:00+00:00"}], ids=str)
@pytest.mark.parametrize("model", [Payment, Usage, IdempotentAnswer, Operation, WebhookDelivery])
def test_a_list_that_grows_for_ever_is_not_counted_to_its_end(
    admin_client: Client, model: type[Model], asked: dict[str, str]
) -> None:
    """Guard: ``paginator`` and ``show_full_result_count`` of ``ReadOnlyAdmin``."""
    make_rows([1])

    with CaptureQueriesContext(connection) as queries:
        assert admin_client.get(page(model, "changelist"), asked).status_code == 200

    counts = [query["sql"] for query in queries if "COUNT(" in query["sql"]]
    assert counts
    assert all("LIMIT" in count for count in counts), counts


@pytest.mark.parametrize("model", [Payment, Usage, IdempotentAnswer, WebhookDelivery])
def test_what_may_be_filtered_by_is_not_looked_for_in_all_rows(
    admin_client: Client, model: type[Model]
) -> None:
    """Guard: ``FilterByWord``."""
    with CaptureQueriesContext(connection) as queries:
        admin_client.get(page(model, "changelist"))

    assert [query["sql"] for query in queries if "DISTINCT" in query["sql"]] == []


def test_of_a_long_list_staff_see_the_beginning_and_that_there_is_more(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.admin.COUNTED", 3)
    monkeypatch.setattr(site._registry[Payment], "list_per_page", 2)
    AccountFactory.create_batch(3, credits=1)
    assert "3 payments" in admin_client.get(ENTRIES).content.decode()
    AccountFactory.create_batch(2, credits=1)

    first, second, third = (admin_client.get(ENTRIES, {"p": number}) for number in (1, 2, 3))

    assert "3+ payments" in first.content.decode()
    lines = list(Payment.objects.all())
    assert list(first.context["cl"].result_list) == lines[:2]
    assert list(second.context["cl"].result_list) == lines[2:3]
    assert third.status_code == 302  # to the list, with a word about it


def test_staff_find_deliveries_by_their_event_and_their_error(admin_client: Client) -> None:
    late = WebhookDeliveryFactory.create(event="balance.low", error="timeout")
    WebhookDeliveryFactory.create(event="ping", error="timeout")
    WebhookDeliveryFactory.create(event="balance.low", error="tls_failed")

    found = admin_client.get(DELIVERIES, {"event": "balance.low", "error": "timeout"})

    assert list(found.context["cl"].result_list) == [late]


# Servers.


def select(client: Client, action: str, *rows: Any, url: str = SERVERS) -> list[str]:
    """Choose rows and an action, agree if there is a question; the messages that staff then read."""
    chosen = {"action": action, "_selected_action": [row.pk for row in rows]}
    answer = client.post(url, chosen, follow=True)
    if "question" in answer.context:
        answer = client.post(url, answered(answer.content.decode()), follow=True)
    assert answer.status_code == 200
    return [str(message) for message in answer.context["messages"]]


def answered(question: str) -> dict[str, list[str]]:
    """What the form of a question sends when staff agree."""
    form = question[question.index("<p>") :]
    sent = dict[str, list[str]]()
    for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form):
        sent.setdefault(name, []).append(value)
    return sent


ACTIONS = [
    (SERVERS, lambda: ServerFactory.create(name="web", status="active"), "stop", "Stop"),
    (SERVERS, lambda: ServerFactory.create(name="web", status="active"), "reboot", "Reboot"),
    (SERVERS, lambda: ServerFactory.create(name="web", status="stopped"), "start", "Start"),
    (SERVERS, lambda: ServerFactory.create(name="web"), "suspend", "Suspend for abuse"),
    (SERVERS, lambda: ServerFactory.create(name="web", status="suspended"), "unsuspend", "Unsuspend"),
    (SERVERS, lambda: ServerFactory.create(name="web"), "delete", "Delete for good, with the disk"),
    (
        TOKENS,
        lambda: issue_token(account=AccountFactory.create(), name="web")[0],
        "revoke",
        "Revoke the chosen tokens",
    ),
    (
        DELIVERIES,
        lambda: WebhookDeliveryFactory.create(status="failed"),
        "send_again",
        "Send again what is over",
    ),
    (
        "/admin/inventory/hypervisor/",
        lambda: HypervisorFactory.create(),
        "check_now",
        "Check now: ask what it is and has",
    ),
]
each_action = pytest.mark.parametrize(
    ("url", "make", "action", "label"), ACTIONS, ids=[a[2] for a in ACTIONS]
)


def test_our_actions_are_all_tried_here() -> None:
    ours = {name for model in MODELS for name in site._registry[model].actions or ()}
    assert ours == {action for _, _, action, _ in ACTIONS}


@each_action
def test_an_action_asks_first_and_is_kept_in_the_history(
    admin_client: Client, url: str, make: Callable[[], Model], action: str, label: str
) -> None:
    """Guard: ``action_on_each``."""
    rows = [make(), make()]
    before = [type(row)._default_manager.values().get(pk=row.pk) for row in rows]
    told = admin_client.post(
        url, {"action": action, "_selected_action": [row.pk for row in rows]}, follow=True
    )
    if action != "check_now":
        assert not LogEntry.objects.exists()
        assert [type(row)._default_manager.values().get(pk=row.pk) for row in rows] == before
        assert not Operation.objects.exists()
        assert told.context["title"] == label
        page_told = told.content.decode()
        assert all(escape(str(row)) in page_told for row in rows)
        assert "2 " in page_told
        admin_client.post(url, answered(page_told))
    kept = [(entry.object_id, entry.change_message, str(entry.user)) for entry in LogEntry.objects.all()]
    assert sorted(kept) == sorted((str(row.pk), label, "admin") for row in rows)
    assert label in admin_client.get(page(type(rows[0]), "history", rows[0].pk)).content.decode()


def test_a_refused_action_is_not_in_the_history(admin_client: Client) -> None:
    stopped = ServerFactory.create(status=ServerStatus.STOPPED)
    select(admin_client, "stop", stopped)
    assert not LogEntry.objects.exists()


def test_more_than_a_hundred_are_not_acted_on_at_once(admin_client: Client) -> None:
    """Guard: ``MOST`` in core/admin_actions.py."""
    account = AccountFactory.create()
    servers = ServerFactory.create_batch(101, account=account, usage=None)
    chosen = {"action": "delete", "_selected_action": [servers[0].pk], "select_across": "1"}
    for agreed in ({}, {"agreed": "yes"}):
        told = admin_client.post(SERVERS, chosen | agreed, follow=True)
        assert [str(message) for message in told.context["messages"]] == [
            "Nothing was done: choose at most 100 at once."
        ]
    assert not Operation.objects.exists()
    assert len(select(admin_client, "delete", *servers[:100])) == 1
    assert Operation.objects.count() == 100


@pytest.mark.parametrize(
    ("action", "status"),
    [
        ("start", ServerStatus.STOPPED),
        ("stop", ServerStatus.ACTIVE),
        ("reboot", ServerStatus.ACTIVE),
        ("suspend", ServerStatus.ACTIVE),
        ("unsuspend", ServerStatus.SUSPENDED),
        ("delete", ServerStatus.ERROR),
    ],
)
def test_an_action_orders_what_a_customer_would(
    admin_client: Client, broker: Broker, action: str, status: ServerStatus
) -> None:
    servers = [ServerFactory.create(status=status) for _ in range(2)]

    sent = broker.after_commit_of(lambda: select(admin_client, action, *servers))

    orders = Operation.objects.order_by("pk")
    assert {order.server for order in orders} == set(servers)
    assert {(order.kind, order.status) for order in orders} == {(action, OperationStatus.QUEUED)}
    assert {str(order.actor) for order in orders} == {"staff admin"}
    assert sorted(sent) == [("provisioning.carry_out", [order.pk]) for order in orders]


def test_what_is_refused_is_said_and_the_rest_is_done(admin_client: Client) -> None:
    active = ServerFactory.create(name="ready")
    stopped = ServerFactory.create(name="asleep", status=ServerStatus.STOPPED)
    busy = ServerFactory.create(name="busy")
    OperationFactory.create(server=busy)
    gone = ServerFactory.create(name="gone", status=ServerStatus.DELETED, deleted_at=timezone.now())

    said = select(admin_client, "stop", active, stopped, busy, gone)

    assert len(said) == 4
    assert any("asleep" in line and "not running" in line for line in said)
    assert any("busy" in line and "not finished" in line for line in said)
    assert any("gone" in line and "no such server" in line for line in said)
    assert any("Accepted for 1." in line for line in said)
    assert Operation.objects.filter(kind="stop").get().server == active


def test_rows_of_servers_cannot_be_deleted_past_the_services(admin_client: Client) -> None:
    server = ServerFactory.create()

    select(admin_client, "delete_selected", server)

    assert Server.objects.get().status == ServerStatus.ACTIVE
    assert b"delete_selected" not in admin_client.get(SERVERS).content


def test_staff_find_what_billing_suspended_for_long(admin_client: Client) -> None:
    days = {"long ago": 15, "lately": 13}
    for name, ago in days.items():
        since = timezone.now() - timedelta(days=ago)
        ServerFactory.create(name=name, status="suspended", suspended_for="billing", suspended_at=since)
    ServerFactory.create(
        name="abuser",
        status="suspended",
        suspended_for="abuse",
        suspended_at=timezone.now() - timedelta(days=90),
    )

    found = admin_client.get(SERVERS, {"suspension": "long"}).context["cl"].result_list

    assert [server.name for server in found] == ["long ago"]


def test_nobody_edits_a_server_by_hand(admin_client: Client) -> None:
    server = ServerFactory.create()

    answer = admin_client.post(f"{SERVERS}{server.pk}/change/", {"status": "deleted", "name": "mine"})

    assert answer.status_code == 403
    assert Server.objects.get().name == server.name


def test_the_page_of_a_server_tells_all_that_is_known(admin_client: Client) -> None:
    make_rows([1])
    server = Server.objects.get()
    moment = timezone.now() - timedelta(days=400)
    Server.objects.update(
        status="suspended", power_state="paused", ip_address="203.0.113.77", ipv6_address="2001:db8::77",
        deleted_at=moment, observed_at=moment,
    )  # fmt: skip

    told = admin_client.get(f"{SERVERS}{server.pk}/change/").content.decode()

    for word in (
        "suspended",
        "paused",
        "203.0.113.77",
        "2001:db8::77",
        str(server.uuid),
        "reboot",
        "operator tester",
    ):
        assert word in told, word
    assert str(server.home.hypervisor) in told  # type: ignore[union-attr]


def staff(*permissions: str) -> Client:
    """Somebody who may log in and has these permissions, such as ``view_server``."""
    user = User.objects.create(username="clerk", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return logged_in(user)


@pytest.mark.django_db
@pytest.mark.parametrize("action", ["start", "stop", "reboot", "suspend", "delete"])
def test_staff_who_may_only_look_cannot_operate(action: str) -> None:
    server = ServerFactory.create(status="stopped" if action == "start" else "active")
    clerk = staff("view_server")

    offered = clerk.get(SERVERS)
    select(clerk, action, server)

    assert offered.status_code == 200
    assert f'value="{action}"' not in offered.content.decode()
    assert not Operation.objects.exists()


@pytest.mark.django_db
def test_staff_who_may_change_servers_can_operate() -> None:
    server = ServerFactory.create()

    select(staff("view_server", "change_server"), "stop", server)

    assert str(Operation.objects.get().actor) == "staff clerk"
    assert Operation.objects.get().actor.id == str(User.objects.get(username="clerk").pk)


@pytest.mark.django_db
def test_staff_without_permission_do_not_see_servers() -> None:
    assert staff().get(SERVERS).status_code == 403


def test_customers_and_strangers_are_shown_the_login(alice: Customer) -> None:
    client = Client(headers={"Authorization": f"Bearer {alice.token}"})
    for model in MODELS:
        answer = client.get(page(model, "changelist"))
        assert answer.status_code == 302
        assert answer["Location"].startswith("/admin/login/")


# Accounts.


def test_of_a_token_staff_see_its_beginning_only(admin_client: Client) -> None:
    token, secret = issue_token(account=AccountFactory.create(), name="laptop")

    for url in (TOKENS, f"{TOKENS}{token.pk}/change/", f"{TOKENS}?q={token.prefix}"):
        told = admin_client.get(url).content.decode()
        assert token.prefix in told
        assert secret[:16] not in told
        assert token.digest[:16] not in told


def test_a_token_is_not_found_by_its_digest(admin_client: Client) -> None:
    token, _ = issue_token(account=AccountFactory.create(), name="laptop")

    answer = admin_client.get(TOKENS, {"q": token.digest[:16]})

    assert answer.context["cl"].result_count == 0


def test_staff_revoke_a_token(admin_client: Client) -> None:
    token, _ = issue_token(account=AccountFactory.create(), name="laptop")

    select(admin_client, "revoke", token, url=TOKENS)

    assert ApiToken.objects.get().revoked_at is not None


@pytest.mark.django_db
def test_staff_who_may_only_look_cannot_revoke_a_token() -> None:
    token, _ = issue_token(account=AccountFactory.create(), name="laptop")

    select(staff("view_apitoken"), "revoke", token, url=TOKENS)

    assert ApiToken.objects.get().revoked_at is None


def test_of_a_webhook_staff_see_no_secret(admin_client: Client) -> None:
    webhook = WebhookDeliveryFactory.create().webhook

    told = admin_client.get(f"/admin/webhooks/webhook/{webhook.pk}/change/").content.decode()

    assert webhook.url in told
    assert webhook.sealed_secret[:20] not in told


def test_staff_send_again_what_was_given_up(admin_client: Client, broker: Broker) -> None:
    given_up = WebhookDeliveryFactory.create(status="failed", attempts=10, error="timeout")

    sent = broker.after_commit_of(lambda: select(admin_client, "send_again", given_up, url=DELIVERIES))

    given_up.refresh_from_db()
    assert (given_up.status, given_up.attempts) == ("pending", 0)
    assert sent == [("webhooks.deliver", [given_up.pk])]


@pytest.mark.django_db
def test_staff_who_may_only_look_cannot_send_again() -> None:
    given_up = WebhookDeliveryFactory.create(status="failed")

    select(staff("view_webhookdelivery"), "send_again", given_up, url=DELIVERIES)

    given_up.refresh_from_db()
    assert given_up.status == "failed"


ENTRIES = "/admin/billing/payment/"


@pytest.mark.parametrize(("kind", "amount"), [("top_up", "12.50"), ("refund", "3"), ("correction", "-4.25")])
def test_staff_add_a_line_to_the_ledger_and_never_change_one(
    admin_client: Client, kind: str, amount: str
) -> None:
    account = AccountFactory.create(credits=10)
    told = {"account": account.pk, "kind": kind, "amount": amount, "reason": "invoice 17"}

    added = admin_client.post(f"{ENTRIES}add/", told)

    assert added.status_code == 302
    line = Payment.objects.get(reason="invoice 17")
    assert (line.kind, line.amount, line.made_by) == (kind, Decimal(amount), "staff admin")
    account.refresh_from_db()
    assert account.balance == 10 + Decimal(amount)
    assert admin_client.post(f"{ENTRIES}{line.pk}/change/", {"amount": "99"}).status_code == 403
    assert admin_client.post(f"{ENTRIES}{line.pk}/delete/", {"post": "yes"}).status_code == 403
    assert Payment.objects.get(pk=line.pk).amount == line.amount


@pytest.mark.parametrize(
    ("kind", "amount", "reason"),
    [
        *[("top_up", amount, "x") for amount in ("0", "-1", "0.00001", "12345678901", "ten", "10 EUR", "")],
        *[(kind, "1", "x") for kind in ("usage", "backups", "signup", "gift", "")],
        *[("refund", "-1", "x"), ("correction", "0", "x"), ("correction", "1", ""), ("top_up", "1", " ")],
    ],
)
def test_what_is_no_line_by_hand_is_told_to_staff_and_nothing_written(
    admin_client: Client, kind: str, amount: str, reason: str
) -> None:
    account = AccountFactory.create(credits=10)
    told = {"account": account.pk, "kind": kind, "amount": amount, "reason": reason}

    answer = admin_client.post(f"{ENTRIES}add/", told)

    assert (answer.status_code, bool(answer.context["adminform"].form.errors)) == (200, True)
    assert Payment.objects.count() == 1


def test_the_same_payment_twice_is_told_to_staff(admin_client: Client) -> None:
    account = AccountFactory.create(credits=0)
    told = {
        "account": account.pk,
        "kind": "top_up",
        "amount": "5",
        "reason": "paid",
        "reference": "payment 9",
    }
    admin_client.post(f"{ENTRIES}add/", told)

    answer = admin_client.post(f"{ENTRIES}add/", told)

    assert (answer.status_code, bool(answer.context["adminform"].form.errors)) == (200, True)
    assert Payment.objects.count() == 1


def test_an_account_that_is_edited_keeps_a_balance_that_moved_meanwhile(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: ``update_fields`` in ``EditAdmin.save_model``."""
    account = AccountFactory.create(credits=10)
    save = AccountAdmin.save_model

    def later(*args: Any) -> None:
        ledger.top_up(account=account, amount=Decimal(5), reason="meanwhile", made_by="a test")
        save(*args)

    monkeypatch.setattr(AccountAdmin, "save_model", later)
    told = {"email": account.email, "company_name": "Acme", "is_active": "on"}
    assert admin_client.post(f"/admin/accounts/account/{account.pk}/change/", told).status_code == 302
    account.refresh_from_db()
    assert (account.company_name, account.balance) == ("Acme", 15)


EDITED = [model for model in MODELS if isinstance(site._registry[model], EditAdmin)]


def as_shown(client: Client, row: Model) -> tuple[str, dict[str, Any]]:
    """The page where a row is edited, and what its form sends when nothing is changed in it."""
    url, shown = page(type(row), "change", row.pk), dict[str, Any]()
    form = client.get(url).context["adminform"].form
    for name, field in form.fields.items():
        value = form[name].value()
        if isinstance(field, SplitDateTimeField) and value:
            parts = (f"{value:%Y-%m-%d}", f"{value:%H:%M:%S}")
            for before in ("", "initial-"):  # hidden, for what has a default that moves
                shown |= {f"{before}{name}_{number}": part for number, part in enumerate(parts)}
        elif value not in (None, False) and not field.disabled:
            shown[name] = value
    return url, shown


def last_of(model: type[Model]) -> Model:
    row = model._default_manager.order_by("pk").last()
    assert row is not None
    return row


def test_staff_edit_by_forms_that_write_what_was_changed_in_them() -> None:
    read_only = {model for model in MODELS if isinstance(site._registry[model], ReadOnlyAdmin)}
    assert {*EDITED, *read_only} == set(MODELS)


# Something of each model that staff may write into its form.
CHANGES = {"first_name": "Jane", "slug": "changed", "name": "changed", "is_active": None, "has_agent": None}


@pytest.mark.parametrize("model", EDITED, ids=lambda model: model._meta.label)
def test_a_form_writes_no_column_that_was_not_changed_in_it(admin_client: Client, model: type[Model]) -> None:
    """Guard: ``update_fields`` in ``EditAdmin.save_model``."""
    make_rows([1])
    url, shown = as_shown(admin_client, last_of(model))
    name = next(name for name in CHANGES if name in shown)
    for change, columns in (({}, []), ({name: CHANGES[name]}, [name])):
        told = {field: value for field, value in (shown | change).items() if value is not None}
        with CaptureQueriesContext(connection) as queries:
            answer = admin_client.post(url, told)
        assert answer.status_code == 302, answer.context["adminform"].form.errors
        updates = [query["sql"] for query in queries if f'UPDATE "{model._meta.db_table}"' in query["sql"]]
        assert [re.findall(r'"(\w+)" = ', sql.split(" WHERE ")[0]) for sql in updates] == [columns][
            : len(columns)
        ]


def test_a_claim_that_is_made_while_a_form_of_its_host_is_open_is_kept(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: ``EditAdmin``; the whole row would be written with the sums of before the claim."""
    location = LocationFactory.create()
    host = HypervisorFactory.create(location=location, name="kvm1")
    add_ip_pool(
        location=location, network=ip_network("203.0.113.0/29"), gateway="203.0.113.1", nameservers=[],
        reserved=set(),
    )  # fmt: skip
    url, shown = as_shown(admin_client, host)
    save = HypervisorAdmin.save_model

    def later(*args: Any) -> None:  # the lock of the row is this transaction's, too: no other could claim now
        claim(location, vcpus=2, memory_mib=1024, disk_gib=10)
        save(*args)

    monkeypatch.setattr(HypervisorAdmin, "save_model", later)
    assert admin_client.post(url, shown | {"status": "draining"}).status_code == 302
    host.refresh_from_db()
    assert (host.status, host.vcpus_used, host.memory_mib_used, host.disk_gib_used) == (
        "draining",
        2,
        1024,
        10,
    )


@pytest.mark.parametrize("field", ["vcpus", "memory_mib", "disk_gib"])
def test_a_host_cannot_sell_less_than_servers_have(admin_client: Client, field: str) -> None:
    host = HypervisorFactory.create(vcpus_used=8, memory_mib_used=8192, disk_gib_used=80)
    used = getattr(host, f"{field}_used")
    url, shown = as_shown(admin_client, host)

    answer = admin_client.post(url, shown | {field: used - 1})

    assert answer.context["adminform"].form.errors == {
        field: [f"Servers have {used} of it: sell at least as much."]
    }
    assert admin_client.post(url, shown | {field: used}).status_code == 302


@pytest.mark.parametrize("value", ["-1", "0.5", "", "many", "9" * 30, "2147483648", "\0"])
@pytest.mark.parametrize("model", [Hypervisor, Plan, Account])
def test_what_is_no_number_is_told_to_staff(admin_client: Client, model: type[Model], value: str) -> None:
    make_rows([1])
    if model is Plan:
        PlanFactory.create(slug="unsold")  # the size of one that was sold stays, whatever it is
    url, shown = as_shown(admin_client, last_of(model))
    form = admin_client.get(url).context["adminform"].form
    numbers = [name for name, field in form.fields.items() if type(field) is IntegerField]
    assert numbers
    for name in numbers:
        answer = admin_client.post(url, shown | {name: value})
        may_be_empty = not (value or form.fields[name].required)
        assert answer.status_code == (302 if may_be_empty else 200), name


@pytest.mark.parametrize(
    "text", ["", " ", "a" * 300, "a\0b", "\n", "' OR 1=1 --", "<b>", "\u202e", "a b", "-"]
)
@pytest.mark.parametrize("model", EDITED, ids=lambda model: model._meta.label)
def test_an_odd_name_is_kept_or_told_to_staff(admin_client: Client, model: type[Model], text: str) -> None:
    make_rows([1])
    url, shown = as_shown(admin_client, last_of(model))
    for name in [name for name, value in shown.items() if isinstance(value, str)]:
        answer = admin_client.post(url, shown | {name: text})
        assert answer.status_code in {200, 302}, name


@pytest.mark.django_db
@pytest.mark.parametrize("factory", [PlanFactory, OsVersionFactory])
def test_what_an_open_wish_may_name_is_switched_off_and_never_deleted(
    admin_client: Client, factory: Any
) -> None:
    """Guard: ``SwitchedOffAdmin``: the wish of a resize keeps no foreign key."""
    thing = factory.create()
    page = f"/admin/plans/{thing._meta.model_name}/{thing.pk}/delete/"
    assert admin_client.post(page, {"post": "yes"}).status_code == 403
    assert type(thing).objects.filter(pk=thing.pk).exists()


HOSTS = "/admin/inventory/hypervisor/"


@pytest.mark.django_db
def test_a_host_is_not_added_by_a_form_that_asks_it_nothing(admin_client: Client) -> None:
    """Guard: ``HypervisorAdmin.has_add_permission``.  The same host could be sold twice."""
    known = HypervisorFactory.create()
    typed = {name: getattr(known, name) for name in ("domain_type", "storage_pool", "network", "status")}
    typed |= {"vcpus": 8, "memory_mib": 8192, "disk_gib": 80, "max_operations": 4}
    again = typed | {"name": "again", "location": known.location_id, "uri": "qemu+ssh://again/system"}
    assert admin_client.post(HOSTS + "add/", again).status_code == 403
    assert list(Hypervisor.objects.all()) == [known]


def check_now(client: Client, *hosts: Hypervisor) -> Any:
    chosen = {"action": "check_now", "_selected_action": [host.pk for host in hosts]}
    return client.post(HOSTS, chosen, follow=True)


@pytest.mark.django_db
def test_staff_can_have_a_host_asked_now(admin_client: Client, broker: Broker) -> None:
    hosts = [HypervisorFactory.create() for _ in range(2)]
    sent = broker.after_commit_of(lambda: check_now(admin_client, *hosts))

    orders = Operation.objects.order_by("pk")
    assert [(order.subject, order.kind) for order in orders] == [(host, "check") for host in hosts]
    assert {str(order.actor) for order in orders} == {"staff admin"}
    assert sent == [("provisioning.carry_out", [order.pk]) for order in orders]
    again = check_now(admin_client, hosts[0]).content.decode()
    assert "has not finished yet" in again
    assert orders.count() == 2
    assert str(hosts[0]) in admin_client.get("/admin/servers/operation/").content.decode()


@pytest.mark.django_db
def test_staff_who_may_only_look_at_hosts_cannot_have_them_asked() -> None:
    clerk = staff("view_hypervisor")
    check_now(clerk, HypervisorFactory.create())
    assert "check_now" not in clerk.get(HOSTS).content.decode()
    assert not Operation.objects.exists()


@pytest.mark.django_db
def test_an_account_is_closed_and_never_deleted(admin_client: Client) -> None:
    account = AccountFactory.create()

    assert (
        admin_client.post(f"/admin/accounts/account/{account.pk}/delete/", {"post": "yes"}).status_code == 403
    )
    assert Account.objects.exists()


@pytest.mark.parametrize(("hourly", "monthly"), [("-0.01", "5"), ("0.01", "-5"), ("0.01", "0"), ("0", "5")])
def test_a_price_that_would_stop_the_meter_or_charge_nothing_is_refused(
    admin_client: Client, hourly: str, monthly: str
) -> None:
    """Guards: the validators and ``both_prices_of_a_plan_or_none``; the latter also without a form."""
    plan = PlanFactory.create()
    fields = ("name", "slug", "vcpus", "memory_mib", "disk_gib", "bandwidth_gb", "speed_mbps")
    told = {field: getattr(plan, field) for field in fields}
    prices = {"price_hourly": hourly, "price_monthly": monthly}

    answer = admin_client.post(page(Plan, "change", plan.pk), told | prices)

    assert (answer.status_code, bool(answer.context["adminform"].form.errors)) == (200, True)
    with pytest.raises(IntegrityError, match="both_prices_of_a_plan_or_none"), transaction.atomic():
        Plan.objects.update(**prices)
    assert admin_client.post(page(Plan, "change", plan.pk), told | {"price_hourly": 1, "price_monthly": 9})
    plan.refresh_from_db()
    assert plan.price_monthly == 9
