"""What is on offer is what can be had at this moment; and both dialects order it."""

from typing import Any

import pytest

from inventory.models import Hypervisor, IpAddress
from plans.models import Location, OsVersion, Plan
from servers.models import Operation, Server
from servers.states import OperationKind
from tests.api.contract import example, same, shape
from tests.conftest import Customer
from tests.factories import LocationFactory, PlanFactory


def offered(customer: Customer) -> tuple[bool, list[str]]:
    (plan,) = customer.get("/plans/").json()["results"]
    return plan["available"], plan["locations"]


def test_a_plan_begins_with_the_contracts_fields(alice: Customer, shop: dict[str, Any]) -> None:
    told = alice.get("/plans/").json()["results"][0]
    (expected,) = example("plans-list")["results"]

    assert list(told)[: len(expected)] == list(expected)
    assert same(shape({field: told[field] for field in expected}), shape(expected))
    assert (told["ram"], told["ram_unit"], told["disk_space"]) == (4, "GB", 80)
    assert alice.get(f"/plans/{told['uuid']}/").json() == alice.get(f"/plans/{told['id']}/").json() == told


def test_a_plan_is_available_where_a_host_has_room_and_an_address_is_free(
    alice: Customer, shop: dict[str, Any]
) -> None:
    LocationFactory.create(code="us-east")
    assert offered(alice) == (True, ["us-west"])
    changes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"memory_mib": 1024}, {"memory_mib": 10**6}),
        ({"is_reachable": False}, {"is_reachable": True}),
        ({"is_ready": False}, {"is_ready": True}),
        ({"status": "draining"}, {"status": "enabled"}),
    ]
    for spoil, mend in changes:
        Hypervisor.objects.update(**spoil)
        assert offered(alice) == (False, []), spoil
        Hypervisor.objects.update(**mend)
        assert offered(alice) == (True, ["us-west"]), mend
    IpAddress.objects.filter(pool__family=6).update(rests_until="2999-01-01T00:00Z")
    assert offered(alice) == (False, [])


def test_plans_are_filtered_by_where_they_can_be_had(alice: Customer, shop: dict[str, Any]) -> None:
    PlanFactory.create(slug="huge", memory_mib=10**7)
    LocationFactory.create(code="us-east")

    slugs = [plan["slug"] for plan in alice.get("/plans/?location=us-west").json()["results"]]

    assert slugs == ["standard"]
    assert alice.get("/plans/?location=us-east").json()["count"] == 0
    assert list(alice.get("/plans/?location=mars").json()) == ["location"]


def test_a_plan_off_sale_is_not_found(alice: Customer, shop: dict[str, Any]) -> None:
    Plan.objects.update(is_active=False)

    assert alice.get("/plans/").json()["count"] == 0
    assert alice.get(f"/plans/{shop['plan_id']}/").status_code == 404


def test_a_system_without_an_image_is_not_on_offer(alice: Customer, shop: dict[str, Any]) -> None:
    (system,) = alice.get("/operating-systems/").json()["results"]
    assert [version["id"] for version in system["versions"]] == [shop["os_id"]]

    OsVersion.objects.update(image=None)

    assert alice.get("/operating-systems/").json()["count"] == 0
    assert list(alice.post("/servers/", shop).json()) == ["os_id"]


def test_a_location_is_active_while_a_host_there_takes_new_servers(
    alice: Customer, shop: dict[str, Any]
) -> None:
    """F47.  Guard: ``locations_on_offer``."""
    LocationFactory.create(code="us-east")

    def active() -> dict[str, bool]:
        return {row["code"]: row["is_active"] for row in alice.get("/locations/").json()["results"]}

    assert active() == {"us-west": True, "us-east": False}
    for spoil, mend in (
        ({"is_reachable": False}, {"is_reachable": True}),
        ({"is_ready": False}, {"is_ready": True}),
        ({"status": "draining"}, {"status": "enabled"}),
    ):
        Hypervisor.objects.update(**spoil)
        assert not any(active().values()), spoil
        Hypervisor.objects.update(**mend)
        assert active()["us-west"], mend
    Location.objects.update(is_active=False)
    assert not any(active().values())


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("plan_id", 99, "There is no such plan on sale. There are: {plan} (Standard VPS)."),
        ("os_id", 99, "This system is not on offer. There are: {os} (Ubuntu 22.04 LTS)."),
        ("location", "mars", "There is no such location. There are: us-west."),
    ],
)
def test_a_refusal_says_what_is_on_offer(
    alice: Customer, shop: dict[str, Any], field: str, value: Any, said: str
) -> None:
    """F47.  A location without a host is not on offer."""
    LocationFactory.create(code="us-east")
    answer = alice.post("/servers/", shop | {field: value})
    assert answer.json() == {field: [said.format(plan=shop["plan_id"], os=shop["os_id"])]}


def test_a_refusal_for_want_of_room_says_where_there_is_room(alice: Customer, shop: dict[str, Any]) -> None:
    """F47.  Guard: ``_says_where_else`` in servers/services.py."""
    LocationFactory.create(code="us-east")

    told = alice.post("/servers/", shop | {"location": "us-east"}).json()

    assert told["code"] == "no_capacity"
    assert told["detail"] == "This plan is sold out in this location. It can be had in: us-west."
    Hypervisor.objects.update(is_ready=False)
    told = alice.post("/servers/", shop).json()
    assert told["detail"].endswith("It can be had in: no location at the moment.")


def clients_body() -> dict[str, Any]:
    """What the provider's own clients send."""
    return {
        "hostname": "web.example.com",
        "location": Location.objects.get(code="us-west").pk,
        "plan": str(Plan.objects.get().uuid),
        "os_version": str(OsVersion.objects.get().uuid),
        "ssh_keys": [],
    }


def test_the_clients_dialect_makes_the_same_server(alice: Customer, shop: dict[str, Any]) -> None:
    answer = alice.post("/servers/", clients_body())

    assert answer.status_code == 201, answer.json()
    assert (answer.json()["name"], answer.json()["hostname"]) == ("web", "web.example.com")
    assert answer.json()["plan"]["id"] == shop["plan_id"]
    assert answer.json()["location"] == "us-west"


@pytest.mark.parametrize("field", ["hostname", "location", "plan", "os_version"])
def test_what_the_clients_dialect_lacks_is_named(alice: Customer, shop: dict[str, Any], field: str) -> None:
    body = clients_body()
    del body[field]

    answer = alice.post("/servers/", body)

    assert (answer.status_code, list(answer.json())) == (400, [field])


@pytest.mark.parametrize(
    ("word", "kind", "shows"),
    [
        ("start", OperationKind.START, "starting"),
        ("stop", OperationKind.STOP, "stopping"),
        ("restart", OperationKind.REBOOT, "rebooting"),
        ("hard_stop", OperationKind.HARD_STOP, "stopping"),
    ],
)
def test_power_is_the_four_actions_by_one_path(
    alice: Customer, shop: dict[str, Any], word: str, kind: OperationKind, shows: str
) -> None:
    server_id = alice.post("/servers/", shop).json()["id"]
    Operation.objects.update(status="succeeded")
    Server.objects.update(status="stopped" if word == "start" else "active")

    answer = alice.post(f"/servers/{server_id}/power/", {"action": word})

    assert (answer.status_code, answer.json()["server"]["status"]) == (200, shows)
    operation = Operation.objects.latest("pk")
    assert operation.kind == kind
    assert answer["Location"].endswith(f"/operations/{operation.pk}/")
    assert alice.get(f"/operations/{operation.uuid}/").json()["kind"] == kind
