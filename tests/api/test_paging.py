"""Lists: how much at once, where the rest is, and what can be filtered by."""

import re
from typing import Any

import pytest

from plans.models import Location
from servers.models import Server
from servers.states import PUBLIC_STATUSES, ServerStatus
from tests.api.contract import is_validation_error
from tests.conftest import Customer
from tests.factories import LocationFactory, OsVersionFactory, PlanFactory, ServerFactory

HUGE = "9" * 30


def give(customer: Customer, number: int, **fields: Any) -> list[int]:
    """Give an account servers; their ids, newest first."""
    shared: dict[str, Any] = {
        "plan": PlanFactory.create(),
        "os_version": OsVersionFactory.create(),
        "location": LocationFactory.create(),
    }
    made = ServerFactory.create_batch(number, account=customer.account, usage=None, **shared | fields)
    return [server.pk for server in reversed(made)]


def ids(answer: Any) -> list[int]:
    return [item["id"] for item in answer.json()["results"]]


def links(answer: Any) -> dict[str, str]:
    """RFC 8288's Link header, as relation and path below the API."""
    if "Link" not in answer:
        return {}
    entries = [re.fullmatch(r'<([^<>]+)>; rel="(\w+)"', text) for text in answer["Link"].split(", ")]
    return {entry[2]: below(entry[1]) for entry in entries if entry}


def below(url: str) -> str:
    """What of an address is below the API."""
    beginning = "http://testserver/api/v1"
    assert url.startswith(beginning)
    return url.removeprefix(beginning)


# Without paging parameters.


def test_a_short_list_is_count_and_results_and_nothing_else(alice: Customer) -> None:
    newest_first = give(alice, 3)

    answer = alice.get("/servers/")

    assert list(answer.json()) == ["count", "results"]
    assert answer.json()["count"] == 3
    assert ids(answer) == newest_first
    assert "Link" not in answer


def test_a_hundred_fit(alice: Customer) -> None:
    give(alice, 100)

    answer = alice.get("/servers/")

    assert (answer.json()["count"], len(ids(answer))) == (100, 100)
    assert "Link" not in answer


def test_of_more_than_a_hundred_the_header_leads_to_the_rest(alice: Customer) -> None:
    newest_first = give(alice, 101)

    first = alice.get("/servers/")
    rest = alice.get(links(first)["next"])

    assert list(first.json()) == ["count", "results"]
    assert first.json()["count"] == rest.json()["count"] == 101
    assert ids(first) + ids(rest) == newest_first
    assert list(links(first)) == ["next"]
    assert list(links(rest)) == ["prev"]


def test_deleted_servers_and_those_of_others_are_not_counted(alice: Customer) -> None:
    mine = give(alice, 2)
    ServerFactory.create()
    Server.objects.filter(pk=mine[0]).update(deleted_at="2025-01-01T00:00:00Z")

    answer = alice.get("/servers/")

    assert answer.json()["count"] == 1
    assert ids(answer) == mine[1:]


# With them.


def test_pages_lead_from_the_first_to_the_last_and_back(alice: Customer) -> None:
    newest_first = give(alice, 5)

    pages, path = [], "/servers/?page_size=2"
    while path:
        pages.append(alice.get(path))
        path = below(pages[-1].json()["next"]) if pages[-1].json()["next"] else ""

    assert [len(ids(page)) for page in pages] == [2, 2, 1]
    assert [number for page in pages for number in ids(page)] == newest_first
    assert {page.json()["count"] for page in pages} == {5}
    assert all(list(page.json()) == ["count", "next", "previous", "results"] for page in pages)
    assert pages[0].json()["previous"] is None
    assert ids(alice.get(below(pages[2].json()["previous"]))) == ids(pages[1])
    assert ids(alice.get(below(pages[1].json()["previous"]))) == ids(pages[0])


def test_the_header_says_what_the_body_says(alice: Customer) -> None:
    give(alice, 3)

    answer = alice.get("/servers/?page_size=1&page=2")

    told = answer.json()
    assert links(answer) == {"next": below(told["next"]), "prev": below(told["previous"])}


def test_the_page_before_one_past_the_end_is_the_last(alice: Customer) -> None:
    newest_first = give(alice, 5)

    beyond = alice.get("/servers/?page=7&page_size=2").json()
    last = alice.get(below(beyond["previous"])).json()

    assert [row["id"] for row in last["results"]] == newest_first[-2:]
    assert last["next"] is None


def test_a_page_has_twenty_rows_when_only_its_number_is_given(alice: Customer) -> None:
    newest_first = give(alice, 21)

    assert ids(alice.get("/servers/?page=1")) == newest_first[:20]
    assert ids(alice.get("/servers/?page=2")) == newest_first[20:]


@pytest.mark.parametrize("page", ["2", "1000000000"])
def test_beyond_the_end_there_is_an_empty_page(alice: Customer, page: str) -> None:
    give(alice, 1)

    answer = alice.get(f"/servers/?page={page}&page_size=100")

    assert answer.status_code == 200
    told = answer.json()
    assert (told["count"], told["next"], told["results"]) == (1, None, [])
    assert told["previous"] is not None


def test_without_servers_the_first_page_is_empty(alice: Customer) -> None:
    told = alice.get("/servers/?page=1").json()

    assert told == {"count": 0, "next": None, "previous": None, "results": []}


@pytest.mark.parametrize("field", ["page", "page_size"])
@pytest.mark.parametrize(
    "value", ["0", "-1", "", "two", "1.5", "1e3", "0x1", "+1", "%201", "1,2", "%D9%A3", "%00", "%FF", HUGE]
)
def test_a_page_that_is_no_number_is_refused_by_its_name(alice: Customer, field: str, value: str) -> None:
    answer = alice.get(f"/servers/?{field}={value}")

    assert answer.status_code == 400
    assert is_validation_error(answer.json(), field)


@pytest.mark.parametrize(("field", "value"), [("page_size", 101), ("page", 1_000_000_001)])
def test_there_is_a_largest_page_and_a_last_one(alice: Customer, field: str, value: int) -> None:
    answer = alice.get(f"/servers/?{field}={value}")

    assert answer.status_code == 400
    assert is_validation_error(answer.json(), field)
    assert alice.get(f"/servers/?{field}={value - 1}").status_code == 200


# Filters.


@pytest.mark.parametrize("status", PUBLIC_STATUSES)
def test_each_status_finds_its_servers(alice: Customer, status: ServerStatus) -> None:
    servers = {word: give(alice, 1, status=word) for word in PUBLIC_STATUSES}

    answer = alice.get(f"/servers/?status={status}")

    assert answer.json()["count"] == 1
    assert ids(answer) == servers[status]


def test_a_location_finds_its_servers(alice: Customer) -> None:
    give(alice, 1)
    there = give(alice, 2, location=LocationFactory.create(code="us-east"))

    assert ids(alice.get("/servers/?location=us-east")) == there


def test_a_location_that_is_closed_to_new_servers_still_finds_the_old(alice: Customer) -> None:
    mine = give(alice, 1)
    Location.objects.update(is_active=False)

    assert ids(alice.get("/servers/?location=us-west")) == mine


def test_two_filters_both_hold(alice: Customer) -> None:
    east = LocationFactory.create(code="us-east")
    give(alice, 1, status="stopped")
    give(alice, 1, location=east)
    both = give(alice, 1, location=east, status="stopped")

    assert ids(alice.get("/servers/?status=stopped&location=us-east")) == both


@pytest.mark.parametrize("field", ["status", "location"])
@pytest.mark.parametrize(
    "word", ["mars", "ACTIVE", "active,stopped", "deleted", "deleting", "null", "1", "%00", "%FF", "'--", "*"]
)
def test_an_unknown_word_in_a_filter_is_refused_by_its_name(alice: Customer, field: str, word: str) -> None:
    answer = alice.get(f"/servers/?{field}={word}")

    assert answer.status_code == 400
    assert is_validation_error(answer.json(), field)


def test_all_that_is_wrong_with_the_filters_is_told_at_once(alice: Customer) -> None:
    answer = alice.get("/servers/?status=gone&location=mars")

    assert is_validation_error(answer.json(), "status", "location")


def test_the_next_page_keeps_the_filters(alice: Customer) -> None:
    stopped = give(alice, 3, status="stopped")
    give(alice, 3, status="active")

    first = alice.get("/servers/?status=stopped&location=us-west&page_size=2")
    rest = alice.get(links(first)["next"])

    assert ids(first) + ids(rest) == stopped
    assert first.json()["count"] == rest.json()["count"] == 3


def test_an_empty_filter_filters_nothing(alice: Customer) -> None:
    mine = give(alice, 1)

    assert ids(alice.get("/servers/?location=&status=")) == mine
