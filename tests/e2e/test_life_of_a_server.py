"""One server from POST to DELETE, over HTTP, with real processes and a guest that boots."""

import re
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import libvirt
import pytest
from redis import Redis

from tests.e2e.conftest import Product, start, stop
from tests.e2e.guest import GuestOf

CREATED = [
    *("id", "name", "hostname", "status", "ip_address", "location", "plan", "os"),
    *("backups_enabled", "created_at", "updated_at", "message"),
]


def order(product: Product, **changes: Any) -> dict[str, Any]:
    body = {"name": "web-server-01", "plan_id": 3, "os_id": 5, "location": "us-west"} | changes
    status, server = product.ask("POST", "/servers/", body)
    assert status == 201, server
    return dict(server)


def guest_of(product: Product, server_id: int) -> GuestOf:
    query = f"from servers.models import Server; print(Server.objects.get(pk={server_id}).uuid)"
    uuid = UUID(product.manage("shell", "--no-imports", "-c", query))
    return GuestOf(product.settings()["VPS_HYPERVISOR_URI"], uuid)


def public_key(folder: Path) -> str:
    path = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@laptop", "-f", path], check=True)
    return path.with_suffix(".pub").read_text().strip()


def test_a_server_boots_obeys_and_disappears(product: Product, tmp_path: Path) -> None:
    pool = product.var / "libvirt" / "pool"
    key = public_key(tmp_path)
    status, added = product.ask("POST", "/ssh-keys/", {"name": "laptop", "public_key": key})
    assert status == 201, added

    server = order(product, hostname="web01.example.com", ssh_key_id=added["id"])
    assert list(server)[: len(CREATED)] == CREATED
    assert (server["status"], server["ip_address"]) == ("provisioning", None)
    path = f"/servers/{server['id']}/"
    detail = product.wait_for_status(path, "active")
    told = re.search(r" e2e:POST token:\d+ provisioning\.engine create #", product.log("worker"))
    assert told, "the request's id and its actor reach the worker"

    guest = guest_of(product, server["id"])
    assert guest.hostname() == "web01.example.com"
    assert guest.read("/root/.ssh/authorized_keys").split() == key.split()
    assert {detail["ip_address"], detail["ipv6_address"]} <= guest.addresses()
    assert "default via 2001:db8:113::1" in guest.run("/sbin/ip", "-6", "route")
    assert guest.console(pool).count("vps-guest: up hostname=web01.example.com") == 1

    status, answer = product.ask("POST", f"{path}stop/")
    assert (status, answer["server"]["status"]) == (200, "stopping")
    product.wait_for_status(path, "stopped")
    assert not guest.is_running()
    assert "vps-guest: power button pressed" in guest.console(pool)
    assert guest.console(pool).rstrip().endswith("reboot: Power down"), "the guest's kernel did it, not we"
    assert "its power was cut" not in product.log("worker")
    assert product.ask("POST", f"{path}stop/")[1]["code"] == "not_running"

    assert product.ask("PATCH", path, {"hostname": "web02.example.com"})[0] == 200
    assert product.ask("POST", f"{path}start/")[0] == 200
    product.wait_for_status(path, "active")
    assert guest.hostname() == "web02.example.com", "a new hostname reaches the guest at its next boot"
    assert product.ask("POST", f"{path}start/")[1]["code"] == "already_running"

    assert product.ask("POST", f"{path}reboot/")[1]["server"]["status"] == "rebooting"
    product.wait_for_status(path, "active")
    assert guest.console(pool).count("vps-guest: booting") == 3

    assert product.ask("DELETE", path) == (204, None)
    assert product.ask("GET", path)[0] == 404
    wait_until_nothing_is_left(product, guest.uuid)


def wait_until_nothing_is_left(product: Product, uuid: UUID) -> None:
    query = (
        "import time; from servers.models import Server; from inventory.models import *\n"
        "for _ in range(300):\n"
        f"    s = Server.objects.get(uuid='{uuid}')\n"
        "    if s.status == 'deleted': break\n"
        "    time.sleep(0.1)\n"
        "h = Hypervisor.objects.get()\n"
        "print(s.status, s.home_id, Placement.objects.count(), h.vcpus_used, h.memory_mib_used,"
        " h.disk_gib_used, IpAddress.objects.exclude(port=None).count())"
    )
    assert product.manage("shell", "--no-imports", "-c", query) == "deleted None 0 0 0 0 0"
    left = [path.name for path in (product.var / "libvirt" / "pool").iterdir() if str(uuid) in path.name]
    assert left == []
    connection = libvirt.open(product.settings()["VPS_HYPERVISOR_URI"])
    assert str(uuid) not in [domain.UUIDString() for domain in connection.listAllDomains()]


def test_a_flushed_broker_loses_no_order(product: Product) -> None:
    server = order(product, name="flushed")
    Redis.from_url(product.settings()["REDIS_URL"]).flushall()
    product.wait_for_status(f"/servers/{server['id']}/", "active")
    assert product.ask("DELETE", f"/servers/{server['id']}/")[0] == 204


def test_an_operator_beside_a_running_product_needs_no_settings(product: Product) -> None:
    token = product.manage("create_token", "--account", "bob@example.com", "--name", "laptop")
    assert token.startswith("vps_")
    bob = Product(product.var, product.process, product.url, token)
    assert bob.ask("GET", "/servers/") == (200, {"count": 0, "results": []})
    assert "free" in product.manage("check_hypervisor")


@pytest.mark.timeout(400)
def test_after_ctrl_c_everything_goes_on_where_it_was(product: Product) -> None:
    server = order(product, name="survivor")
    path = f"/servers/{server['id']}/"
    address = product.wait_for_status(path, "active")["ip_address"]
    token = product.token
    assert stop(product) == 0

    again = start(product.var)
    product.process, product.url = again.process, again.url
    assert again.token == token
    # Its guest ended with its host; reconcile finds that out and starts it again.
    guest = guest_of(product, server["id"])
    wait_until(guest.is_running)
    assert product.wait_for_status(path, "active")["ip_address"] == address
    assert product.ask("DELETE", path)[0] == 204


def wait_until(comes_true: Callable[[], bool], limit_s: float = 90) -> None:
    deadline = time.monotonic() + limit_s
    while not comes_true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_many_who_wait_for_an_operation_do_not_keep_others_waiting(product: Product) -> None:
    server = order(product, name="awaited")
    _, history = product.ask("GET", f"/servers/{server['id']}/operations/")
    waiting = f"/operations/{history['results'][0]['id']}/?wait=30"
    with ThreadPoolExecutor() as threads:
        ends = [threads.submit(product.ask, "GET", waiting) for _ in range(4)]
        began = time.monotonic()
        assert product.ask("GET", "/account/me/")[0] == 200
        assert time.monotonic() - began < 5
        assert {(end.result()[0], end.result()[1]["status"]) for end in ends} <= {
            (200, "succeeded"),
            (200, "running"),
            (200, "queued"),
        }
    product.wait_for_status(f"/servers/{server['id']}/", "active")
    assert product.ask("DELETE", f"/servers/{server['id']}/")[0] == 204
