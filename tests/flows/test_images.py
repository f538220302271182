"""An image is copied to a host once, however many servers wait for it."""

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connection

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


def test_of_many_creates_at_once_one_copies_the_image(
    faulty: FaultyHost, order: Callable[..., Server], new_image: str
) -> None:
    """Guard: _only_one in workflows.py."""
    version = OsVersionFactory.create(name="New", image_sha256=new_image)
    waiting = [open_operation(order(os_version=version)).pk for _ in range(4)]

    def work() -> None:
        carry_out(waiting.pop())
        connection.close()

    at_once(4, work)
    assert faulty.calls.count("put_image") == 1
    for server in Server.objects.all():
        assert finish(server).status == ServerStatus.ACTIVE
    assert faulty.calls.count("put_image") == 1
