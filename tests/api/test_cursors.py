"""Lists that change while they are read: links lead by the rows that were shown, not by their number."""

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from decimal import Decimal
from random import Random
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from django.db import connection
from django.db.models import Model, QuerySet

from accounts.models import SshKey
from billing import ledger, months
from billing.lines import Lines
from billing.models import Payment
from core.api.paging import _cursor
from core.api.windows import Window, WindowedQuerySet
from plans.models import Location, OperatingSystem, OsVersion, Plan
from servers.models import Operation, Server
from servers.rows import rows_of
from servers.states import OperationStatus
from tests.api.contract import is_validation_error
from tests.api.test_paging import below, give, ids
from tests.conftest import Customer
from tests.factories import (
    LocationFactory,
    OperationFactory,
    OsVersionFactory,
    PlanFactory,
    ServerFactory,
    WebhookDeliveryFactory,
    WebhookFactory,
)
from webhooks.models import Webhook, WebhookDelivery


class Shelf(NamedTuple):
    """A list of the API, how a thing comes to it, and how it goes from it again, if it may."""

    path: str
    make: Callable[[], Model]
    take: Callable[[int], Any] | None = None


def deleter(rows: QuerySet[Any]) -> Callable[[int], Any]:
    return lambda pk: rows.filter(pk=pk).delete()


def changer(rows: QuerySet[Any], key: str = "pk", **change: Any) -> Callable[[int], Any]:
    return lambda pk: rows.filter(**{key: pk}).update(**change)


def servers(alice: Customer) -> Shelf:
    take = changer(Server.objects.all(), deleted_at="2025-01-01T00:00:00Z")
    return Shelf("/servers/", lambda: Server.objects.get(pk=give(alice, 1)[0]), take)


def operations(alice: Customer) -> Shelf:
    done: Any = {"server": ServerFactory.create(account=alice.account), "status": OperationStatus.SUCCEEDED}
    path = f"/servers/{done['server'].pk}/operations/"
    return Shelf(path, lambda: OperationFactory.create(**done), deleter(Operation.objects.all()))


def transactions(alice: Customer) -> Shelf:
    told: Any = {"account": alice.account, "reason": "for a test", "made_by": "a test"}
    return Shelf("/account/transactions/", lambda: ledger.correct(amount=Decimal(1), **told))


def ssh_keys(alice: Customer) -> Shelf:
    def make() -> SshKey:
        return SshKey.objects.create(account=alice.account, name="laptop", fingerprint=uuid4().hex)

    return Shelf("/ssh-keys/", make, deleter(SshKey.objects.all()))


def webhooks(alice: Customer) -> Shelf:
    take = deleter(Webhook.objects.all())
    return Shelf("/webhooks/", lambda: WebhookFactory.create(account=alice.account), take)


def deliveries(alice: Customer) -> Shelf:
    webhook = WebhookFactory.create(account=alice.account)
    take = deleter(WebhookDelivery.objects.all())
    path = f"/webhooks/{webhook.pk}/deliveries/"
    return Shelf(path, lambda: WebhookDeliveryFactory.create(webhook=webhook), take)


def plans(alice: Customer) -> Shelf:
    take = changer(Plan.objects.all(), is_active=False)
    return Shelf("/plans/", lambda: PlanFactory.create(slug=uuid4().hex), take)


def locations(alice: Customer) -> Shelf:
    take = deleter(Location.objects.all())
    return Shelf("/locations/", lambda: LocationFactory.create(code=uuid4().hex), take)


def systems(alice: Customer) -> Shelf:
    def make() -> OperatingSystem:
        made = OperatingSystem.objects.create(name=uuid4().hex)
        OsVersionFactory.create(name=uuid4().hex, operating_system=made)
        return made

    take = changer(OsVersion.objects.all(), "operating_system", is_active=False)
    return Shelf("/operating-systems/", make, take)


SHELVES = (
    *(servers, operations, transactions, ssh_keys, webhooks, deliveries),
    *(plans, locations, systems),
)


def walk(customer: Customer, path: str, by: str = "next") -> Iterator[list[int]]:
    """The ids of one page after the other."""
    follow: str | None = path
    while follow:
        answer = customer.get(follow)
        yield ids(answer)
        follow = answer.json()[by] and below(answer.json()[by])


@pytest.mark.parametrize("first", ["?page_size=3", "?page=1&page_size=3"], ids=["size", "number"])
@pytest.mark.parametrize("shelf_of", SHELVES)
def test_who_follows_next_meets_what_is_there_all_the_while_exactly_once(
    alice: Customer, shelf_of: Callable[[Customer], Shelf], first: str
) -> None:
    """Guard: ``ContractPagination`` leads by ids; numbers of pages would move with what comes and goes."""
    shelf, luck = shelf_of(alice), Random(shelf_of.__name__)
    there = {shelf.make().pk for _ in range(20)}
    shown: list[int] = []
    for page in walk(alice, shelf.path + first):
        shown += page
        if shelf.take:
            for pk in luck.sample(sorted(there), 2):  # shown already, or not yet
                shelf.take(pk)
                there.discard(pk)
        shelf.make()
    assert len(shown) == len(set(shown))
    assert there <= set(shown)


@pytest.mark.parametrize("shelf_of", [servers, plans])
def test_who_follows_previous_meets_them_too(alice: Customer, shelf_of: Callable[[Customer], Shelf]) -> None:
    shelf, luck = shelf_of(alice), Random(shelf_of.__name__)
    there = {shelf.make().pk for _ in range(20)}
    shown: list[int] = []
    for page in walk(alice, f"{shelf.path}?page=9&page_size=3", "previous"):
        shown += page
        (gone,) = luck.sample(sorted(there), 1)
        assert shelf.take
        shelf.take(gone)
        there.discard(gone)
    assert len(shown) == len(set(shown))
    assert there <= set(shown)


def test_the_last_page_has_no_next_and_an_empty_list_has_neither(alice: Customer) -> None:
    newest_first = give(alice, 3)
    rest = below(alice.get("/servers/?page_size=2").json()["next"])
    last = alice.get(rest).json()
    assert last["next"] is None
    assert alice.get(below(last["previous"])).json()["previous"] is None
    Server.objects.filter(pk__in=newest_first).update(deleted_at="2025-01-01T00:00:00Z")

    told = alice.get(rest).json()

    assert (told["count"], told["next"], told["results"]) == (0, None, [])
    told = alice.get(below(told["previous"])).json()
    assert told == {"count": 0, "next": None, "previous": None, "results": []}


@pytest.mark.parametrize("by", ["next", "previous"])
def test_the_links_keep_the_filters_and_the_size_and_lead_by_no_number(alice: Customer, by: str) -> None:
    stopped = give(alice, 5, status="stopped")
    give(alice, 5, status="active")

    told = alice.get("/servers/?status=stopped&location=us-west&page=2&page_size=2").json()

    names = re.findall(r"[?&](\w+)=", told[by])
    assert names == ["status", "location", "page_size", "cursor"]
    assert set(ids(alice.get(below(told[by])))) < set(stopped)


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize(
    "key", ["", "-1", "x", "1.5", "01", "+1", " 1", "1_0", "\u0663", "1\0", "9" * 19, "9" * 30, "1a"]
)
def test_a_cursor_that_we_did_not_give_is_refused(alice: Customer, side: str, key: str) -> None:
    text = urlsafe_b64encode(f"{side}{key}".encode()).decode().rstrip("=")
    answer = alice.get(f"/servers/?cursor={text}")
    assert answer.status_code == 400
    assert is_validation_error(answer.json(), "cursor")


@pytest.mark.parametrize(
    "text", ["", "YTA", "a1", "YTE=", "YTE%0A", "%00", "%FF", "%D9%A3", "c1", "YzE", "*", "A" * 5000]
)
@pytest.mark.parametrize("path", ["/servers/", "/plans/", "/account/transactions/"])
def test_nonsense_is_no_cursor(alice: Customer, path: str, text: str) -> None:
    answer = alice.get(f"{path}?cursor={text}")
    assert answer.status_code == 400
    assert is_validation_error(answer.json(), "cursor")


def test_a_cursor_and_a_number_together_are_refused(alice: Customer) -> None:
    answer = alice.get(f"/servers/?page=1&cursor={_cursor('a', 5)}")
    assert answer.status_code == 400
    assert is_validation_error(answer.json(), "cursor")


@pytest.mark.parametrize("side", ["after", "before"])
def test_a_page_far_down_a_list_is_found_by_its_index(alice: Customer, side: str) -> None:
    """Guard: the id stands in the WHERE; an OFFSET would read all the rows before."""
    months.make_ahead()
    payments = Payment.objects.filter(account=alice.account).order_by("-pk")
    window = Window(21, **{side: 500})
    plans_of: list[str] = []

    def explain(execute: Any, sql: str, values: Any, many: bool, context: Any) -> Any:
        execute(f"EXPLAIN {sql}", values, many, context)
        plans_of.append("\n".join(line for (line,) in context["cursor"].fetchall()))
        return execute(sql, values, many, context)

    with connection.cursor() as cursor:
        for other in ("seqscan", "bitmapscan", "sort"):
            cursor.execute(f"SET LOCAL enable_{other} = off")
    with connection.execute_wrapper(explain):
        rows_of(alice.account).rows(window)
        WindowedQuerySet(payments).rows(window)
        Lines(alice.account.pk).rows(window)
    indexes = ("servers_of_account", "payments_of_account", r"billing_usage_\w+_account_id_id_idx")
    for plan, index in zip(plans_of, indexes, strict=True):
        # In an empty table Postgres may as well take the primary key.
        assert re.search(rf"Index Scan( Backward)? using ({index}|\w+_pkey)", plan), plan
        assert re.search(r"Index Cond: .*id [<>] 500", plan), plan


def test_a_list_that_is_not_ordered_by_its_key_cannot_be_paged() -> None:
    for rows in (Location.objects.all(), Plan.objects.order_by("name")):
        with pytest.raises(TypeError, match="order it by pk"):
            WindowedQuerySet(rows)
