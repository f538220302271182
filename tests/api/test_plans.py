"""The size of a plan that was sold stays, and what a server holds is asked of its claim."""

import json
from pathlib import Path
from typing import Any

import pgtrigger
import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.test import Client

from plans.models import Plan
from servers import services
from servers.models import Server
from servers.states import OperationKind, PowerState, ServerStatus
from servers.wishes import column_of, resize_to
from tests.api.test_admin import admin_client as admin_client
from tests.api.test_admin import as_shown
from tests.conftest import Customer
from tests.factories import (
    ImageFactory,
    OperationFactory,
    OsVersionFactory,
    PlanFactory,
    ServerFactory,
    wish_for,
)

pytestmark = pytest.mark.django_db
SIZES = ["vcpus", "memory_mib", "disk_gib", "speed_mbps"]
each_size = pytest.mark.parametrize("size", SIZES)
TRIGGER = "servers.SoldPlan:size_of_a_sold_plan_stays"


@each_size
@pytest.mark.parametrize("status", [ServerStatus.ACTIVE, ServerStatus.DELETED])
def test_the_size_of_a_sold_plan_is_changed_by_nobody(
    admin_client: Client, tmp_path: Path, size: str, status: ServerStatus
) -> None:
    """Guards: ``Plan.clean``, and the trigger of ``SoldPlan``."""
    plan = ServerFactory.create(status=status).plan
    other = getattr(plan, size) + 128
    file = tmp_path / "catalogue.json"
    file.write_text(json.dumps({"plans": [{"id": plan.pk, size: other}]}))

    url, shown = as_shown(admin_client, plan)
    told = admin_client.post(url, shown | {size: other})
    assert "Make a new plan" in str(told.context["adminform"].form.errors[size])
    with pytest.raises(CommandError, match=f"plans, row 1: {size}: .*Make a new plan"):
        call_command("load_catalogue", str(file))
    with pytest.raises(IntegrityError, match="make a new plan"), transaction.atomic():
        Plan.objects.update(**{size: other})

    assert getattr(Plan.objects.get(), size) == getattr(plan, size)


@each_size
def test_nor_is_that_of_a_plan_that_a_resize_leads_to(admin_client: Client, size: str) -> None:
    """Guards: the trigger of ``SoldPlan``, and the sentence that ``EditAdmin`` makes of it."""
    server = ServerFactory.create(plan=PlanFactory.create(slug="small"))
    wish = column_of(OperationKind.RESIZE, wish_for(OperationKind.RESIZE))
    resize = OperationFactory.create(server=server, kind=OperationKind.RESIZE, wish=wish)
    plan = Plan.objects.get(slug="standard")
    url, shown = as_shown(admin_client, plan)
    larger = shown | {size: getattr(plan, size) + 128}

    told = admin_client.post(url, larger, follow=True)

    assert [str(message) for message in told.context["messages"]] == [
        "The size of a plan that was sold stays: make a new plan."
    ]
    plan.refresh_from_db()
    assert getattr(plan, size) == shown[size]
    resize.status = "failed"
    resize.save(update_fields=["status"])
    assert admin_client.post(url, larger).status_code == 302
    plan.refresh_from_db()
    assert getattr(plan, size) == larger[size]


def test_all_else_of_a_sold_plan_may_change(admin_client: Client) -> None:
    plan = ServerFactory.create().plan
    url, shown = as_shown(admin_client, plan)
    told = {"name": "Renamed", "price_hourly": "0.5", "price_monthly": "99", "bandwidth_gb": 1}

    assert admin_client.post(url, shown | told).status_code == 302

    plan.refresh_from_db()
    assert (plan.name, plan.bandwidth_gb) == ("Renamed", 1)


@pytest.mark.parametrize("size", [*SIZES, "bandwidth_gb"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_plan_has_some_of_everything(admin_client: Client, size: str, value: int) -> None:
    """Guards: the validators, and ``a_plan_has_some_of_everything``."""
    plan = PlanFactory.create()
    url, shown = as_shown(admin_client, plan)

    assert size in admin_client.post(url, shown | {size: value}).context["adminform"].form.errors
    with pytest.raises(IntegrityError), transaction.atomic():
        Plan.objects.update(**{size: value})
    with pytest.raises(ValidationError):
        PlanFactory.build(**{size: value}).full_clean()


def test_a_plan_may_have_no_limit_of_speed(admin_client: Client) -> None:
    plan = PlanFactory.create()
    url, shown = as_shown(admin_client, plan)

    assert admin_client.post(url, shown | {"speed_mbps": ""}).status_code == 302

    plan.refresh_from_db()
    assert plan.speed_mbps is None
    assert resize_to(plan).speed_mbps is None


@pytest.fixture
def small_claim(alice: Customer, shop: dict[str, Any]) -> Server:
    """A stopped server that holds 80 GB, and whose plan was then made one of 20 GB behind our back."""
    made = alice.post("/servers/", shop).json()["id"]
    server = Server.objects.get(pk=made)
    server.operations.update(status="succeeded")
    Server.objects.update(status=ServerStatus.STOPPED, power_state=PowerState.OFF)
    with pgtrigger.ignore(TRIGGER):
        Plan.objects.update(disk_gib=20)
    server.refresh_from_db()
    return server


def test_whether_an_image_fits_is_asked_of_the_claim(alice: Customer, small_claim: Server) -> None:
    """Guard: ``RebuildServer.validate`` asks the claim."""
    fits = OsVersionFactory.create(
        name="Fits", image=ImageFactory.create(sha256="8" * 64, minimum_disk_gib=80)
    )
    too_large = OsVersionFactory.create(
        name="Too large", image=ImageFactory.create(sha256="9" * 64, minimum_disk_gib=81)
    )
    path = f"/servers/{small_claim.pk}/rebuild/"

    assert "81 GB" in str(alice.post(path, {"os_id": too_large.pk}).json()["os_id"])
    assert alice.post(path, {"os_id": fits.pk}).status_code == 200


def test_whether_a_disk_would_shrink_is_asked_of_the_claim(alice: Customer, small_claim: Server) -> None:
    """Guard: ``resize_server`` asks the claim."""
    smaller = PlanFactory.create(slug="forty", disk_gib=40)
    same = PlanFactory.create(slug="eighty", disk_gib=80, vcpus=4)
    path = f"/servers/{small_claim.pk}/resize/"

    assert alice.post(path, {"plan_id": smaller.pk}).json()["code"] == "disk_shrinks"
    assert alice.post(path, {"plan_id": same.pk}).status_code == 200
    small_claim.refresh_from_db()
    assert small_claim.claim.disk_gib == 80


def test_a_resize_that_is_undone_leaves_the_claim_what_it_was(alice: Customer, small_claim: Server) -> None:
    """Guard: ``ResizeWish.held``."""
    larger = PlanFactory.create(slug="large", disk_gib=100, vcpus=4)
    resize = services.resize_server(server=small_claim, plan=larger)
    services.give_back_surplus(operation=resize)
    small_claim.refresh_from_db()
    assert small_claim.claim.disk_gib == 80
