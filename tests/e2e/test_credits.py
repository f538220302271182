"""Credits run out and are paid, over HTTP, with a guest that boots."""

from pathlib import Path

from tests.e2e.conftest import Product
from tests.e2e.test_life_of_a_server import guest_of, order

A_DAY = "0.168"  # of the cheapest plan


def test_without_credits_a_guest_is_shut_down_and_comes_back_when_they_are_paid(product: Product) -> None:
    bob = Product(product.var, product.process, product.url, product.token)
    email = ("--account", "bob-of-credits@example.com")
    bob.token = product.manage("create_token", *email, "--name", "laptop")
    have = bob.ask("GET", "/account/balance/")[1]["balance"]
    spent = (
        f"ledger.correct(account=a, amount=Decimal('{A_DAY}') - {have:.0f}, reason='spent', made_by='e2e')"
    )
    shell(product, spent)

    server = order(bob)
    path = f"/servers/{server['id']}/"
    bob.wait_for_status(path, "active")
    guest = guest_of(product, server["id"])
    status, refusal = bob.ask(
        "POST", "/servers/", {"name": "two", "plan_id": 3, "os_id": 5, "location": "us-west"}
    )
    assert (status, refusal["code"], refusal["required"]) == (402, "insufficient_credits", 0.336)

    shell(product, "metering.meter(clock.now() + timedelta(hours=24))")
    shell(product, "current_app.send_task('servers.review_account', [a.pk])")
    suspended = bob.wait_for_status(path, "suspended")
    assert suspended["ip_address"] == bob.ask("GET", path)[1]["ip_address"]
    assert not guest.is_running()
    assert console(product, guest).rstrip().endswith("reboot: Power down"), (
        "the guest's kernel did it, not we"
    )
    status, refusal = bob.ask("POST", f"{path}start/")
    assert (status, refusal["code"]) == (400, "suspended")
    assert bob.ask("GET", "/account/balance/")[1]["balance"] == -0.007

    paid = ("--amount", "1", "--reason", "invoice 17", "--reference", "payment 9")
    assert product.manage("top_up", *email, *paid) == "bob-of-credits@example.com: 0.99 credits"
    bob.wait_for_status(path, "active")
    assert guest.is_running()
    assert console(product, guest).count("vps-guest: up") == 2

    _, lines = bob.ask("GET", f"/account/transactions/?server={server['id']}")
    assert lines["count"] == 2, "25 hours are of two days"
    assert sum(line["hours"] for line in lines["results"]) == 25, "a day, and the hour that begins it all"
    assert bob.ask("GET", f"{path}usage/")[1]["total"] == 0.175
    assert bob.ask("DELETE", path)[0] == 204
    product.manage("meter")
    assert product.manage("audit_ledger") == "Everything adds up."


def shell(product: Product, line: str) -> str:
    """Run one line beside the product, where ``a`` is Bob."""
    imports = (
        "from datetime import timedelta; from decimal import Decimal; from celery import current_app; "
        "from accounts.models import Account; from billing import ledger, metering; "
        "from core import clock; a = Account.objects.get(email='bob-of-credits@example.com'); "
    )
    return product.manage("shell", "--no-imports", "-c", imports + line)


def console(product: Product, guest: object) -> str:
    return guest.console(Path(product.var) / "libvirt" / "pool")  # type: ignore[attr-defined, no-any-return]
