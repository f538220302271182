"""The provider's own clients, unchanged, against the running product: ``vps-mcp`` and ``vps`` (vpsdotorg).

What they print is what a customer, or a customer's assistant, gets to see: a
value that our answers lack shows there as "?", "None" or "N/A".
"""

import json
import re
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.local.folder import PROJECT
from tests.e2e.conftest import Product
from tests.e2e.guest import GuestOf
from tests.e2e.official_clients import Assistant, Terminal, install
from tests.private_services import VAR

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
TOOLS = {
    *("list_servers", "get_server", "create_server", "delete_server", "server_power", "resize_server"),
    *("create_backup", "create_snapshot"),
    *("list_plans", "list_locations", "list_operating_systems"),
    *("list_ssh_keys", "add_ssh_key", "delete_ssh_key"),
}

pytestmark = pytest.mark.timeout(400)  # the first run installs the clients


@pytest.fixture(scope="session")
def programs() -> Path:
    return install(VAR / "clients")


@pytest.fixture
def assistant_of(programs: Path) -> Iterator[Callable[[Product], Assistant]]:
    with ExitStack() as leaving:

        def start(customer: Product) -> Assistant:
            assistant = Assistant(programs, customer.url, customer.token)
            leaving.callback(assistant.leave)
            return assistant

        yield start


@pytest.fixture
def terminal(programs: Path, tmp_path: Path) -> Terminal:
    return Terminal(programs, tmp_path)


def customer(product: Product, email: str, *permissions: str) -> Product:
    words = [word for permission in permissions for word in ("--permission", permission)]
    token = product.manage("create_token", "--account", email, "--name", "laptop", *words)
    return replace(product, token=token)


def _complete(owner: Product, path: str) -> None:
    """Waits until the only copy in a list is whole."""
    deadline = time.monotonic() + 120
    while (copy := owner.ask("GET", path)[1]["results"][0])["status"] != "completed":
        assert copy["status"] == "in_progress", copy
        assert time.monotonic() < deadline, f"{copy}\n{owner.log('backups')}"
        time.sleep(0.3)


def new_key(folder: Path) -> tuple[str, str]:
    """A public key, and its fingerprint as OpenSSH prints it."""
    path = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@laptop", "-f", path], check=True)
    told = subprocess.run(["ssh-keygen", "-l", "-f", path], check=True, capture_output=True, text=True).stdout
    return path.with_suffix(".pub").read_text().strip(), told.split()[1]


def card_with(line: str, text: str) -> str:
    """The one of a list's paragraphs that has this line."""
    [card] = [card for card in text.split("\n\n") if line in card.splitlines()]
    return card


def uuid_in(text: str) -> str:
    [uuid] = re.findall(rf"UUID: ({UUID})\b", text)
    return str(uuid)


def test_an_assistant_runs_a_servers_whole_life(
    product: Product, assistant_of: Callable[[Product], Assistant], tmp_path: Path
) -> None:
    owner = customer(product, "assistant@example.com")
    assistant = assistant_of(owner)
    assert assistant.tools() >= TOOLS
    assert assistant.use("list_servers") == "No results found."
    assert assistant.use("list_ssh_keys") == "No results found."

    public_key, fingerprint = new_key(tmp_path)
    added = assistant.use("add_ssh_key", name="laptop", public_key=public_key)
    key = uuid_in(added)
    assert added.startswith(
        f"SSH key added.\n\nSSH Key: laptop\n  UUID: {key}\n  Fingerprint: {fingerprint}\n"
    )
    assert "Last used" not in added

    plans = assistant.use("list_plans")
    small, bigger = (uuid_in(card_with(f"  RAM: {ram} GB", plans)) for ram in (2, 4))
    assert card_with("  RAM: 2 GB", plans) == (
        f"Plan: 2 GB\n  UUID: {small}\n  CPU: 1 vCPUs\n  RAM: 2 GB\n  Disk: 40 GB\n"
        "  Transfer: 1024 GB\n  Price: $5.0/mo\n  Hourly: $0.007/hr"
    )
    locations = assistant.use("list_locations")
    assert card_with("Location: US West", locations) == (
        "Location: US West\n  ID: 1\n  Country: United States (US)\n  Active: True"
    )
    systems = assistant.use("list_operating_systems")
    versions = dict(re.findall(rf"Version: (.*) \(UUID: ({UUID})\)", systems))

    wanted = {"hostname": "mcp01.example.com", "location_id": 1, "plan_uuid": small}
    created = assistant.use(
        "create_server", **wanted, os_version_uuid=versions["Tiny Linux"], ssh_key_ids=[key]
    )
    server = uuid_in(created)
    assert created.startswith(
        f"Server creation initiated.\n\nServer: mcp01.example.com\n  UUID: {server}\n  Status: provisioning\n"
        "  Location: US West\n  Plan: Starter VPS\n  OS: Tiny Linux\n  Created: 20"
    )

    def wait_for(status: str) -> str:
        deadline = time.monotonic() + 120
        while f"  Status: {status}\n" not in (text := assistant.use("get_server", server_uuid=server)):
            assert time.monotonic() < deadline, f"{text}\n{product.log('worker')}"
            time.sleep(0.3)
        return text

    def power(action: str) -> None:
        said = assistant.use("server_power", server_uuid=server, action=action)
        assert said == f"Power action '{action}' sent to server {server}."

    shown = wait_for("active")
    guest = GuestOf(product.settings()["VPS_HYPERVISOR_URI"], server)
    [v4], [v6] = re.findall(r"IPv4: (.*)", shown), re.findall(r"IPv6: (.*)", shown)
    assert shown.startswith(
        f"Server: mcp01.example.com\n  UUID: {server}\n  Status: active\n  IPv4: {v4}\n  IPv6: {v6}\n"
        "  Location: US West\n  Plan: Starter VPS\n  OS: Tiny Linux\n  Created: 20"
    )
    assert assistant.use("list_servers") == f"{shown}\n\n\nPage 1 of 1 (1 total)"
    assert {v4, v6} <= guest.addresses()
    assert guest.hostname() == "mcp01.example.com"
    assert guest.read("/root/.ssh/authorized_keys").split() == public_key.split()
    assert "  Last used: 20" in assistant.use("list_ssh_keys")

    guest.run("/bin/sh", "-c", "data && echo first >/data/file && sync")
    copies = {
        "backup": assistant.use_and_see("create_backup", server_uuid=server),
        "snapshot": "",
    }
    _complete(owner, "/backups/")
    guest.run("/bin/sh", "-c", "echo second >/data/file && sync")
    copies["snapshot"] = assistant.use_and_see("create_snapshot", server_uuid=server, label="second thoughts")
    _complete(owner, "/snapshots/")
    guest.run("/bin/sh", "-c", "echo third >/data/file && sync")
    for what, text in (("snapshot", "second"), ("backup", "first")):
        assert copies[what].startswith(f"{what.capitalize()} initiated for server {server}.\n\n  id: ")
        [copy] = owner.ask("GET", f"/{what}s/")[1]["results"]
        status, told = owner.ask("POST", f"/{what}s/{copy['id']}/restore/")
        assert (status, told["server"]["status"]) == (200, "restoring")
        wait_for("active")
        guest = GuestOf(product.settings()["VPS_HYPERVISOR_URI"], server)
        assert guest.run("/bin/sh", "-c", "data && cat /data/file") == f"{text}\n"

    pool = product.var / "libvirt" / "pool"
    booted = guest.console(pool).count("vps-guest: booting")
    power("restart")
    wait_for("active")
    assert guest.console(pool).count("vps-guest: booting") == booted + 1
    again = assistant.use("server_power", server_uuid=server, action="start")
    assert again == "Error (400): This server is already running."

    power("hard_stop")
    wait_for("stopped")
    assert not guest.is_running()
    assert guest.console(pool).count("vps-guest: power button pressed") == 1, "only the restart's"
    again = assistant.use("server_power", server_uuid=server, action="stop")
    assert again == "Error (400): This server is not running. Start it first."

    resized = assistant.use("resize_server", server_uuid=server, new_plan_uuid=bigger)
    assert resized.startswith(
        f"Resize initiated for server {server}.\n\n  status: success\n  message: Server is resizing\n"
    )
    assert "  Plan: Standard VPS\n" in wait_for("stopped")
    power("start")
    wait_for("active")
    assert guest.read("/proc/cpuinfo").count("processor\t:") == 2
    power("stop")
    wait_for("stopped")
    assert guest.console(pool).rstrip().endswith("reboot: Power down"), "the guest's kernel did it, not we"

    gone = assistant.use("delete_server", server_uuid=server)
    assert gone == f"Server {server} has been deleted."
    assert assistant.use("get_server", server_uuid=server).startswith("Error (404): ")
    assert assistant.use("list_servers") == "No results found."
    assert assistant.use("delete_ssh_key", ssh_key_uuid=key) == f"SSH key {key} deleted."
    assert assistant.use("list_ssh_keys") == "No results found."


def test_an_assistant_is_told_what_its_token_may_not_do(
    product: Product, assistant_of: Callable[[Product], Assistant], tmp_path: Path
) -> None:
    reader = assistant_of(customer(product, "reader@example.com", "servers:read"))
    assert reader.use("list_servers") == "No results found."
    assert "Plan: 2 GB" in reader.use("list_plans")
    nobody = "00000000-0000-4000-8000-000000000000"
    wanted = {"hostname": "a", "location_id": 1, "plan_uuid": nobody, "os_version_uuid": nobody}
    assert reader.use("create_server", **wanted) == (
        "Error (403): This API token lacks the permission servers:write."
    )
    assert reader.use("list_ssh_keys") == "Error (403): This API token lacks the permission ssh_keys:read."

    writer = assistant_of(customer(product, "reader@example.com"))
    refused = writer.use("create_server", **wanted)
    assert refused.startswith("Error (400):\n")
    plan, system = refused.splitlines()[1:3]
    assert plan.startswith("  plan: There is no such plan on sale. There are: 1 (")
    assert system.startswith("  os_version: This system is not on offer. There are: ")

    stranger = assistant_of(replace(product, token="vps_" + "x" * 40))
    assert stranger.use("list_plans") == "Error (401): This API token is unknown."


def test_a_project_is_linked_to_a_server_and_logs_into_it(
    product: Product, terminal: Terminal, tmp_path: Path
) -> None:
    erin = customer(product, "erin@example.com")
    public_key, _ = new_key(tmp_path)
    _, key = erin.ask("POST", "/ssh-keys/", {"name": "laptop", "public_key": public_key})
    order = {"name": "shop", "plan_id": 3, "os_id": 5, "location": "us-west", "ssh_key_id": key["id"]}
    status, server = erin.ask("POST", "/servers/", order | {"hostname": "shop.example.com"})
    assert status == 201, server

    site = erin.url.removesuffix("/api/v1")
    exit_status, said = terminal.run("login", "--api-url", site, typed=f"{erin.token}\n")
    assert (exit_status, said.splitlines()[-1]) == (0, "Logged in successfully. 1 server(s) found."), said

    active = erin.wait_for_status(f"/servers/{server['id']}/", "active")
    exit_status, said = terminal.run("link", typed="1\nmy-shop\npython\n")
    assert exit_status == 0, said
    line = f"  [1] shop.example.com ({active['ip_address']}) — active [{active['uuid'][:8]}]"
    assert line in said.splitlines()
    assert "Linked to shop.example.com" in said
    linked = {"server_uuid": active["uuid"], "hostname": "shop.example.com"}
    assert json.loads((terminal.folder / ".vps-link").read_text()) == linked

    (terminal.folder / ".vps-link").unlink()
    assert terminal.run("link", "--server", active["uuid"]) == (0, "Linked to shop.example.com\n")
    assert json.loads((terminal.folder / ".vps-link").read_text()) == linked

    ssh_in_the_guests_network(terminal.programs / "ssh", product, tmp_path / "id_ed25519")
    exit_status, said = terminal.run("ssh", typed="hostname\nexit\n")
    assert exit_status == 0, said
    assert said.splitlines()[-1] == "shop.example.com"

    assert erin.ask("DELETE", f"/servers/{server['id']}/")[0] == 204
    nowhere = terminal.run("link", "--server", active["uuid"])
    assert nowhere == (1, f"Server {active['uuid']} not found.\n")
    exit_status, said = terminal.run("link")
    assert (exit_status, said.split(".")[0]) == (1, "No servers found")


def ssh_in_the_guests_network(program: Path, product: Product, key: Path) -> None:
    """An ``ssh`` for the terminal: the real one, run where the private libvirt's guests are."""
    options = [
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
        "ConnectTimeout=20",
    ]
    ssh = [str(shutil.which("ssh")), "-i", str(key), *(word for option in options for word in ("-o", option))]
    enter = [sys.executable, "-m", "deploy.local", "enter", "--", *ssh]
    program.write_text(
        f"#!/bin/sh\ncd {shlex.quote(str(PROJECT))}\n"
        f'VPS_VAR={shlex.quote(str(product.var))} exec {shlex.join(enter)} "$@"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_a_wrong_token_is_told_to_log_in_again(product: Product, terminal: Terminal) -> None:
    site = product.url.removesuffix("/api/v1")
    exit_status, said = terminal.run("login", "--api-url", site, "--token", "vps_" + "x" * 40)
    assert (exit_status, said) == (
        1,
        "Error: Invalid or expired API token. Run `vps login` to authenticate.\n",
    )
    assert terminal.run("link") == (1, "Not logged in. Run `vps login` first.\n"), "and it is not kept"


def test_a_token_without_the_permission_says_which_one_it_lacks(product: Product, terminal: Terminal) -> None:
    keys_only = customer(product, "reader@example.com", "ssh_keys:*")
    site = product.url.removesuffix("/api/v1")
    exit_status, said = terminal.run("login", "--api-url", site, "--token", keys_only.token)
    assert (exit_status, said) == (1, "Error: This API token lacks the permission servers:read.\n")
