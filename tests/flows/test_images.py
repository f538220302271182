"""An image is copied to a host once, however many servers wait for it."""

import hashlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inventory.models import Hypervisor
from provisioning import hosts
from provisioning.carry_out import carry_out
from servers.models import Server
from servers.states import ServerStatus
from tests.factories import OsVersionFactory
from tests.flows.conftest import FaultyHost, finish, open_operation
from tests.flows.test_operations import at_once
from tests.private_services import VAR


@pytest.fixture
def new_image(tmp_path: Path) -> str:
    """The checksum of an image that no host has."""
    path = tmp_path / "new.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "512M"], check=True)
    with path.open("ab") as file:
        file.write(str(tmp_path).encode())  # no other test's image has these bytes
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.rename(VAR / "images" / f"{digest}.qcow2")
    return digest


class SlowCopy(FaultyHost):
    """As with a real image: the copy takes long enough for others to come."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = super().__getattr__(name)
        if name != "put_image":
            return call

        def slowly(*args: Any) -> Any:
            time.sleep(1)
            return call(*args)

        return slowly


def test_of_many_creates_at_once_one_copies_the_image(
    host: Hypervisor, monkeypatch: pytest.MonkeyPatch, order: Callable[..., Server], new_image: str
) -> None:
    """Guard: ``if not mine`` in workflows.fetch_image."""
    slow = SlowCopy(hosts.driver(host))
    monkeypatch.setattr(hosts, "driver", lambda hypervisor: slow)
    version = OsVersionFactory.create(name="New", image_sha256=new_image)
    waiting = [open_operation(order(os_version=version)).pk for _ in range(4)]
    at_once(4, lambda: carry_out(waiting.pop()))
    for server in Server.objects.all():
        assert finish(server).status == ServerStatus.ACTIVE
    assert slow.calls.count("put_image") == 1
