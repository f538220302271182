"""Plans, systems and locations are kept in memory; what staff do to them shows all the same."""

from time import monotonic

import pytest

from plans.catalogue import FRESH_S
from plans.models import Location, OsVersion, Plan
from servers.models import Server
from tests.api.contract import SERVER
from tests.conftest import Customer
from tests.factories import PlanFactory


def names(customer: Customer) -> list[str]:
    told = customer.get(f"/servers/{SERVER}/").json()
    return [told["plan"]["name"], told["plan_name"], told["os"]["name"], told["location_name"]]


def test_a_new_name_shows_within_seconds(
    alice: Customer, web_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(alice) == ["Standard VPS", "Standard VPS", "Ubuntu 22.04 LTS", "US West"]
    for model in (Plan, OsVersion, Location):
        model._default_manager.update(name="Renamed")

    later = monotonic() + FRESH_S + 1
    monkeypatch.setattr("plans.catalogue.monotonic", lambda: later)

    assert names(alice) == ["Renamed"] * 4


def test_what_is_new_shows_at_once(alice: Customer, web_server: Server) -> None:
    names(alice)
    Server.objects.update(plan=PlanFactory.create(pk=2, slug="new", name="New VPS"))

    assert names(alice)[:2] == ["New VPS", "New VPS"]
