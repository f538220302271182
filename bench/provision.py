"""make bench-provision: the cost of making servers, one at a time and many at once."""

import json
import statistics
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

import libvirt

from bench import ground
from bench.books import Books, cpu_of_all_s, cpu_of_s
from bench.customer import Customer
from bench.machines import Bare, Ear, VirtInstall
from deploy.local.errors import LocalError
from deploy.local.folder import claimed, var_folder
from deploy.local.guest import sha256
from deploy.local.libvirtd import Libvirtd
from deploy.local.postgres import Postgres
from deploy.local.run import Servers
from provisioning.drivers.base import Image
from provisioning.drivers.domain_xml import domain_name
from provisioning.drivers.libvirt import LibvirtDriver
from provisioning.drivers.storage_names import CONSOLE_FOLDER, image_marker, image_volume

CLIENTS = 20
WORKERS = 4  # processes, as make run starts them
QEMU, TEST = "us-west", "us-east"  # where the two hosts are
PLAN = {
    "id": 9,
    "name": "Bench",
    "slug": "bench",
    "vcpus": 1,
    "memory_mib": 128,
    "disk_gib": 1,
    "bandwidth_gb": 1,
    "price_monthly": "1.00",
    "price_hourly": "0.0010",
}
HOST_ROOM = ["--vcpus", "1000", "--memory-mib", "1000000", "--disk-gib", "10000"]
PATIENCE_S = 280


class Shop(NamedTuple):
    """Everything that runs: the product, and the libvirtd behind it."""

    servers: Servers
    libvirtd: Libvirtd
    connection: Any
    test_connection: Any
    image: Image
    books: Books
    customers: list[Customer]
    pids: Callable[[], list[int | None]]

    def order(self, location: str) -> dict[str, Any]:
        return {"name": "bench", "plan_id": PLAN["id"], "os_id": 5, "location": location}


def main(turns: int, servers: int, machines: int, watched: int) -> None:
    var = var_folder() / "bench"
    with claimed(var), ExitStack() as running:
        libvirtd = Libvirtd(var)
        running.callback(lambda: libvirtd.stop(patience_s=0))
        libvirtd.start()
        postgres, env = running.enter_context(ground.services(var, durable=True))
        env["VPS_ADDRESS_REST"] = "0"
        ground.make_empty(postgres, "vps")
        shop = _open(var, env, postgres, libvirtd, running)
        _one_at_a_time(var, shop, turns)
        print(f"\nBursts: so many POSTs at once from {CLIENTS} clients, then as many DELETEs; per second")
        print(f"{'':34}{'accepted':>9}{'active':>8}{'made+deleted':>14}{'CPU s each: ours':>18}{'all':>7}")
        _burst(shop, "libvirt's test driver", TEST, servers)
        _burst(shop, "QEMU", QEMU, machines)
        _bare_burst(shop, machines)
        shop.servers.stop()
        print(ground.python(env, "bench.watch", "test", str(watched)), end="")


def _open(var: Path, env: dict[str, str], postgres: Postgres, libvirtd: Libvirtd, running: ExitStack) -> Shop:
    """Two hosts behind one libvirtd: QEMU, and libvirt's test driver, whose machines do nothing."""
    image_file = _empty_image(var)
    image = Image(sha256=sha256(image_file))
    qemu = LibvirtDriver(libvirtd.url, domain_type="qemu", pool="vps", networks=("vps",))
    qemu.prepare()  # and so libvirt's event loop runs in this process: the connections below need it
    qemu.put_image(image, image_file)
    connection = libvirt.open(libvirtd.url)
    test_url = libvirtd.url.replace("qemu+unix:///system", "test+unix:///default")
    test_connection = libvirt.open(test_url)  # the test driver's machines vanish with its last connection
    for name in (image_volume(image), image_marker(image)):
        test_connection.storagePoolLookupByName("default-pool").createXML(
            f"<volume><name>{name}</name><capacity>0</capacity></volume>"
        )
    plan = var / "plan.json"
    plan.write_text(json.dumps({"plans": [PLAN]}))
    accounts = [f"customer{number}@example.com" for number in range(CLIENTS)]
    hosts = {
        "qemu": ["--location", QEMU, "--uri", libvirtd.url, "--pool", "vps", "--network", "vps"],
        "test": ["--location", TEST, "--uri", test_url, "--pool", "default-pool", "--domain-type", "test"],
    }
    networks = {
        "203.0.113.0/25": (QEMU, "203.0.113.1"),
        "2001:db8:113::/120": (QEMU, "2001:db8:113::1"),
        "198.18.0.0/22": (TEST, "198.18.0.1"),
        "2001:db8:18::/112": (TEST, "2001:db8:18::1"),
    }
    ground.manage(env, ["migrate", "--no-input"], ["load_catalogue"], ["load_catalogue", str(plan)])
    ground.manage(
        env,
        *(["add_hypervisor", name, *words, *HOST_ROOM] for name, words in hosts.items()),
        *(
            ["add_ip_pool", "--location", location, "--network", network, "--gateway", gateway]
            for network, (location, gateway) in networks.items()
        ),
        ["import_image", str(image_file), "--os", "5", "--sha256", image.sha256],
    )
    tokens = ground.manage(
        env, *(["create_token", "--account", account, "--name", "bench"] for account in accounts)
    ).split()
    servers = Servers(var, ground.free_port())
    running.callback(servers.stop)
    servers.start(env)
    servers.wait_until_answering()
    return Shop(
        servers=servers,
        libvirtd=libvirtd,
        connection=connection,
        test_connection=test_connection,
        image=image,
        books=Books(postgres.url),
        customers=[Customer(servers.url, token) for token in tokens],
        pids=lambda: [part.pid for part in servers.parts] + [postgres.pid],
    )


def _empty_image(var: Path) -> Path:
    """A valid image with nothing in it."""
    path = var / "empty.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "1G"], check=True)
    return path


# One at a time


def _one_at_a_time(var: Path, shop: Shop, turns: int) -> None:
    ear, connection, image = Ear(shop.connection), shop.connection, shop.image
    bare, open_bare = Bare(connection, image), Bare(connection, image, is_filtered=False)
    typed, open_typed = (
        VirtInstall(shop.libvirtd, connection, image, var, is_filtered=filtered) for filtered in (True, False)
    )
    cases: dict[str, Callable[[], dict[str, float]]] = {
        "floor: libvirt-python": lambda: _timed(ear, bare),
        "ours": lambda: _ours(ear, shop),
        "virt-install": lambda: _timed(ear, typed),
        "floor, no network filter": lambda: _timed(ear, open_bare),
        "virt-install, no network filter": lambda: _timed(ear, open_typed),
    }
    for case in cases.values():
        case()  # warm
    every = [{name: case() for name, case in cases.items()} for _ in range(turns)]
    print(f"One machine, 1 vCPU, 128 MiB, nothing on its disk: seconds, medians of {turns} turns.")
    print(f"{'':34}{'running':>9}{'- floor':>9}{'/ floor':>9}{'active':>9}")
    for name in cases:
        running = [turn[name]["running"] for turn in every]
        floor = [turn["floor: libvirt-python"]["running"] for turn in every]
        more = statistics.median(a - b for a, b in zip(running, floor, strict=True))
        ratio = statistics.median(a / b for a, b in zip(running, floor, strict=True))
        row = f"{name:34}{statistics.median(running):9.3f}{more:+9.3f}{ratio:9.2f}"
        if name == "ours":
            row += f"{statistics.median(turn[name]['active'] for turn in every):9.3f}"
        print(row, flush=True)


def _timed(ear: Ear, way: Bare | VirtInstall) -> dict[str, float]:
    began = monotonic()
    name = way.make()
    seconds = ear.await_start(name) - began
    way.remove(name)
    return {"running": seconds}


def _ours(ear: Ear, shop: Shop) -> dict[str, float]:
    customer = shop.customers[0]
    began = monotonic()
    server = customer.ask("POST", "/servers/", shop.order(QEMU))
    running_at = ear.await_start(domain_name(server["uuid"]))
    while customer.ask("GET", f"/servers/{server['id']}/")["status"] != "active":
        if monotonic() - began > PATIENCE_S:
            raise LocalError(f"Server {server['id']} runs and does not become active.")
        sleep(0.005)
    active_at = monotonic()
    customer.ask("DELETE", f"/servers/{server['id']}/")
    shop.books.await_quiet(PATIENCE_S)
    return {"running": running_at - began, "active": active_at - began}


# Many at once


def _burst(shop: Shop, what: str, location: str, servers: int) -> None:
    """Make so many and delete them again; raises LocalError unless all ended well and nothing is left."""
    before = shop.books.statuses()  # all deleted
    ours, everything = cpu_of_s(shop.pids()), cpu_of_all_s()
    began = monotonic()
    with ThreadPoolExecutor(CLIENTS) as threads:
        shares = [servers // CLIENTS + (number < servers % CLIENTS) for number in range(CLIENTS)]

        def post(customer: Customer, share: int) -> list[int]:
            order = shop.order(location)
            return [customer.ask("POST", "/servers/", order)["id"] for _ in range(share)]

        made = list(threads.map(post, shop.customers, shares))
        accepted = monotonic() - began
        shop.books.await_quiet(PATIENCE_S)
        active = monotonic() - began
        shop.books.expect(**before, active=servers)

        def delete(customer: Customer, ids: list[int]) -> None:
            for pk in ids:
                customer.ask("DELETE", f"/servers/{pk}/")

        list(threads.map(delete, shop.customers, made))
    shop.books.await_quiet(PATIENCE_S)
    both = monotonic() - began
    ours, everything = cpu_of_s(shop.pids()) - ours, cpu_of_all_s() - everything
    shop.books.expect(deleted=before.get("deleted", 0) + servers)
    shop.books.expect_nothing_held()
    _expect_empty(shop.connection, "vps")
    _expect_empty(shop.test_connection, "default-pool")
    print(
        f"{f'{what}, {servers} servers':34}{servers / accepted:9.1f}{servers / active:8.1f}"
        f"{servers / both:14.1f}{ours / servers:18.3f}{everything / servers:7.3f}",
        flush=True,
    )


def _expect_empty(connection: Any, pool: str) -> None:
    """Raises LocalError when anything but the image and the folder of consoles is left on the host."""
    domains = [d.name() for d in connection.listAllDomains() if d.name().startswith(domain_name(""))]
    volumes = connection.storagePoolLookupByName(pool).listVolumes()
    if left := domains + [name for name in volumes if not name.startswith(("image-", CONSOLE_FOLDER))]:
        raise LocalError(f"Left on a host: {left}")


def _bare_burst(shop: Shop, machines: int) -> None:
    """What QEMU and libvirtd allow: the floor's script in as many threads as there are workers."""
    bare, everything, began = Bare(shop.connection, shop.image), cpu_of_all_s(), monotonic()
    with ThreadPoolExecutor(WORKERS) as threads:
        names = list(threads.map(lambda _: bare.make(), range(machines)))
        active = monotonic() - began
        list(threads.map(bare.remove, names))
    both, everything = monotonic() - began, cpu_of_all_s() - everything
    print(
        f"{f'floor: {WORKERS} threads, {machines} machines':34}{'':9}{machines / active:8.1f}"
        f"{machines / both:14.1f}{'':18}{everything / machines:7.3f}",
        flush=True,
    )
