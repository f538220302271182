"""What make run promises: ready in seconds, alone in its folder, gone without a trace, the same again."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from deploy.local import settings
from deploy.local.folder import PROJECT
from deploy.local.guest import GuestImage
from deploy.local.processes import wait_for

READY_S = 120
Run = subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def var(tmp_path_factory: pytest.TempPathFactory, guest_image: Path) -> Path:
    """A folder for a first run, spared the building of the image."""
    folder = tmp_path_factory.mktemp("v")
    image = GuestImage(folder).path
    image.parent.mkdir()
    shutil.copy(guest_image, image)
    (folder / "lock").touch()  # else it would be somebody's folder
    return folder


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def start(var: Path, port: int) -> Iterator[Callable[[], Run]]:
    """Start a run and wait until it says that it is ready."""
    runs: list[Run] = []
    output = var / "output"

    def start() -> Run:
        with output.open("wb") as file:
            run = _local(var, "run", "--port", str(port), stdout=file, stderr=file)
        runs.append(run)
        assert wait_for(lambda: "\nready (" in output.read_text() or run.poll() is not None, READY_S)
        assert run.poll() is None, output.read_text()
        return run

    yield start
    for run in runs:
        with suppress(ProcessLookupError):
            run.kill()
        run.wait()


def test_a_run_starts_stops_goes_on_and_leaves_nothing(
    var: Path, port: int, start: Callable[[], Run]
) -> None:
    first = start()
    demo = settings.read(var / "demo.env")
    assert demo["VPS_API_URL"] == f"http://127.0.0.1:{port}/api/v1"
    assert _status(demo) == 200
    assert _manage(var, "check_hypervisor").startswith("local: ")
    _log_in(f"http://127.0.0.1:{port}/admin/", (var / "output").read_text(), demo["VPS_ADMIN_PASSWORD"])
    assert f"http://127.0.0.1:{port}/api/v1/docs/" in (var / "output").read_text()

    second = _local(var, "run", "--port", "1", stderr=subprocess.PIPE)
    assert "runs in" in second.communicate()[1].decode()
    assert second.returncode == 1

    first.send_signal(signal.SIGINT)
    assert first.wait(30) == 0
    assert _left_in(var) == []

    third = start()
    assert settings.read(var / "demo.env") == demo, "the same token, and it works"
    assert _status(demo) == 200

    third.kill()
    assert wait_for(lambda: _left_in(var) == [], 20), _left_in(var)


def test_the_contracts_own_create_and_the_prefilled_one_boot_a_guest(
    var: Path, start: Callable[[], Run]
) -> None:
    """F47.  Guard: ``deploy/local/demo.json`` gives the tiny guest the contract's ``os_id``."""
    start()
    demo = settings.read(var / "demo.env")
    contracts = {
        "name": "web-server-02",
        "plan_id": 1,
        "os_id": 5,
        "location": "us-west",
        "hostname": "web02.example.com",
        "backups_enabled": True,
    }
    schema = _ask(demo, "GET", "/schema/")
    create = schema["paths"]["/api/v1/servers/"]["post"]["requestBody"]["content"]["application/json"]
    assert [shown["value"] for shown in create["examples"].values()] == [contracts]
    [shown] = re.findall(r"-d '({.*})'", (var / "output").read_text())

    for body in (contracts, json.loads(shown)):
        made = _ask(demo, "POST", "/servers/", body)
        path = f"/servers/{made['id']}/"
        _wait_for_its_create(demo, path)
        assert _ask(demo, "GET", path)["status"] == "active"
        _ask(demo, "DELETE", path)

    offered = {row["code"]: row["is_active"] for row in _ask(demo, "GET", "/locations/")["results"]}
    assert offered == {"us-west": True, "us-east": False, "eu-central": False}
    (system,) = _ask(demo, "GET", "/operating-systems/")["results"]
    assert [version["id"] for version in system["versions"]] == [5]


def test_a_part_that_ends_is_started_again_and_that_is_said(var: Path, start: Callable[[], Run]) -> None:
    """F50.  Guard: ``_restart``; the last death shows that it gives up on what no restart mends."""
    run = start()
    output = var / "output"
    for name in ("worker", "webhooks", "scheduler", "redis", "api"):
        dead = _pid(var, name)
        os.kill(dead, signal.SIGKILL)
        assert _replaced(var, name, dead, run), output.read_text()
        assert f"{name} ended by itself and is started again" in output.read_text()
    assert wait_for(lambda: _answers(settings.read(var / "demo.env")), 60)

    while run.poll() is None:
        if dead := _pid(var, "host-events"):
            with suppress(ProcessLookupError):
                os.kill(dead, signal.SIGKILL)
        assert _replaced(var, "host-events", dead, run)
    assert run.wait(30) == 1
    assert "host-events ended by itself, again and again" in output.read_text()
    assert _left_in(var) == []


def _pid(var: Path, name: str) -> int:
    """The id of a part's process as it was last recorded; 0 while it is being written."""
    with suppress(OSError, ValueError, IndexError):
        return int((var / "pids" / name).read_text().split()[0])
    return 0


def _replaced(var: Path, name: str, dead: int, run: Run) -> bool:
    """Wait until the part has another process, or until the run gives up."""
    return wait_for(lambda: _pid(var, name) not in (dead, 0) or run.poll() is not None, 60)


def _answers(demo: dict[str, str]) -> bool:
    with suppress(OSError):
        return _status(demo) == 200
    return False


def _local(var: Path, *words: str, **options: object) -> Run:
    # The suite's own services are in the environment, and a run would take them for its own.
    ours = {"DATABASE_URL", "REDIS_URL", "VPS_HYPERVISOR_URI"}
    env = {
        name: value for name, value in os.environ.items() if name not in ours and not name.startswith("VPS_")
    }
    env["VPS_VAR"] = str(var)
    command = [sys.executable, "-m", "deploy.local", *words]
    return subprocess.Popen(command, cwd=PROJECT, env=env, **options)  # type: ignore[call-overload, no-any-return]


def _manage(var: Path, *words: str) -> str:
    """What manage.py prints beside a run, told nothing but the folder."""
    env = {"PATH": os.environ["PATH"], "VPS_VAR": str(var)}
    return subprocess.check_output([sys.executable, "manage.py", *words], cwd=PROJECT, env=env, text=True)


def _log_in(site: str, printed: str, password: str) -> None:
    """As the run says how."""
    assert f"{site}, user admin, password {password}\n" in printed
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    page = browser.open(f"{site}login/", timeout=30).read().decode()
    [token] = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    form = {"csrfmiddlewaretoken": token, "username": "admin", "password": password, "next": "/admin/"}
    front = browser.open(f"{site}login/", urllib.parse.urlencode(form).encode(), timeout=30)
    assert front.url == site
    assert "Log out" in front.read().decode()


def _wait_for_its_create(demo: dict[str, str], server: str) -> None:
    (create,) = _ask(demo, "GET", f"{server}operations/")["results"]
    for _ in range(5):
        create = _ask(demo, "GET", f"/operations/{create['id']}/?wait=30")
        if create["status"] not in {"queued", "running"}:
            return


def _ask(demo: dict[str, str], method: str, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        f"{demo['VPS_API_URL']}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {demo['VPS_API_TOKEN']}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or "null")


def _status(demo: dict[str, str]) -> int:
    return 200 if _ask(demo, "GET", "/servers/") else 0


def _left_in(var: Path) -> list[str]:
    """What still runs and has a file of the folder open, or the folder in its command line."""
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            files = [os.readlink(file) for file in (process / "fd").iterdir()]
            if str(var) in words or any(file.startswith(str(var)) for file in files):
                left.append(f"{process.name} {words}")
    return [line for line in left if not line.startswith(f"{os.getpid()} ")]
