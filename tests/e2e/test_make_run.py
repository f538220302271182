"""What make run promises: ready in seconds, alone in its folder, gone without a trace, the same again."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

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


def test_a_part_that_ends_ends_the_run_and_says_so(var: Path, start: Callable[[], Run]) -> None:
    run = start()
    worker = int((var / "pids" / "worker").read_text().split()[0])
    began = monotonic()
    os.kill(worker, signal.SIGKILL)
    assert run.wait(30) == 1
    assert monotonic() - began < 20
    assert "worker ended by itself" in (var / "output").read_text()
    assert _left_in(var) == []


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


def _status(demo: dict[str, str]) -> int:
    headers = {"Authorization": f"Bearer {demo['VPS_API_TOKEN']}"}
    request = urllib.request.Request(f"{demo['VPS_API_URL']}/servers/", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(answer.status)


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
