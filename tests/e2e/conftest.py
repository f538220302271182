"""The whole product as a newcomer starts it: ``make run``'s processes, in a folder of the suite's own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.local import settings
from deploy.local.folder import PROJECT
from deploy.local.guest import GuestImage
from tests.private_services import VAR

READY_S = 180
OURS = ("DATABASE_URL", "REDIS_URL")  # of the suite: the product shall start its own


@dataclass
class Product:
    """A running product, and how a customer's program and an operator talk to it."""

    var: Path
    process: subprocess.Popen[bytes]
    url: str
    token: str

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The status and the JSON of an answer.  Sends the headers that the provider's examples send."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
                "X-Request-ID": f"e2e:{method}",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or "null")

    def manage(self, *words: str) -> str:
        """What a management command prints, run beside the product without further settings."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("VPS_", *OURS))}
        command = [sys.executable, "manage.py", *words]
        done = subprocess.run(
            command, cwd=PROJECT, env=env | {"VPS_VAR": str(self.var)}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def settings(self) -> dict[str, str]:
        return settings.read(self.var / "private.env")

    def wait_for_status(self, path: str, wanted: str, limit_s: float = 120) -> dict[str, Any]:
        deadline = time.monotonic() + limit_s
        while True:
            _, server = self.ask("GET", path)
            if server["status"] == wanted:
                return dict(server)
            assert server["status"] != "error", self.log("worker")
            assert time.monotonic() < deadline, f"still {server['status']}\n{self.log('worker')}"
            time.sleep(0.3)

    def log(self, part: str) -> str:
        return "\n".join((self.var / "log" / f"{part}.log").read_text().splitlines()[-40:])


def start(var: Path) -> Product:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("VPS_", *OURS))}
    env |= {"VPS_VAR": str(var), "PORT": str(port), "VPS_SHUTDOWN_TIMEOUT": "60"}
    env |= {"VPS_GRACE_HOURS": "0"}  # who has no credits left is suspended at once
    env["VPS_WEBHOOK_PRIVATE_NETWORKS"] = "127.0.0.0/8"
    command = [sys.executable, "-m", "deploy.local", "run"]
    with (var / "run.log").open("wb") as out:
        process = subprocess.Popen(command, cwd=PROJECT, env=env, stdout=out, stderr=out)
    deadline = time.monotonic() + READY_S
    while "Ctrl-C" not in (said := (var / "run.log").read_text()):
        assert process.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.1)
    demo = settings.read(var / "demo.env")
    return Product(var, process, demo["VPS_API_URL"], demo["VPS_API_TOKEN"])


def stop(product: Product) -> int:
    """Press Ctrl-C and wait; the exit status."""
    product.process.send_signal(signal.SIGINT)
    return product.process.wait(60)


@pytest.fixture(scope="session")
def product_folder(guest_image: Path) -> Iterator[Path]:
    """A new folder, with the image that the suite has built already."""
    var = VAR / "e2e"
    clean = [sys.executable, "-m", "deploy.local", "clean"]
    env = os.environ | {"VPS_VAR": str(var)}
    subprocess.run(clean, cwd=PROJECT, env=env, check=True, capture_output=True)
    image = GuestImage(var).path
    image.parent.mkdir(parents=True)
    shutil.copy(guest_image, image)
    (var / "lock").touch()  # else it would be somebody's folder
    yield var
    subprocess.run(clean, cwd=PROJECT, env=env, check=True, capture_output=True)
    assert not var.exists()


@pytest.fixture(scope="session")
def product(product_folder: Path) -> Iterator[Product]:
    running = start(product_folder)
    yield running
    if running.process.poll() is None:
        assert stop(running) == 0
