"""An image is copied to a host once, however many servers wait for it, and goes when nothing needs it."""

import hashlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from images.models import Image
from inventory.models import Hypervisor, ImageCopy
from plans.models import OsVersion
from provisioning import hypervisors
from provisioning.drivers import base
from provisioning.engine import carry_out
from provisioning.image_copies import see_to_images
from provisioning.verify.findings import Code
from provisioning.verify.verification import verify
from servers import services
from servers.models import Server
from servers.states import ServerStatus
from tests.factories import OsVersionFactory
from tests.flows.conftest import FaultyHost, clear, finish, open_operation
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
    slow = SlowCopy(hypervisors.bare_driver_for(host))
    monkeypatch.setattr(hypervisors, "bare_driver_for", lambda hypervisor: slow)
    version = OsVersionFactory.create(name="New", image__sha256=new_image)
    waiting = [open_operation(order(os_version=version)).pk for _ in range(4)]
    at_once(4, lambda: carry_out(waiting.pop()))
    for server in Server.objects.all():
        assert finish(server).status == ServerStatus.ACTIVE
    assert slow.calls.count("put_image") == 1


def copies_on(host: Hypervisor) -> set[str]:
    """What the rows say, and so does the host."""
    rows = set(ImageCopy.objects.filter(hypervisor=host).values_list("image__sha256", flat=True))
    files = {copy.image.sha256 for copy in hypervisors.bare_driver_for(host).images() if copy.is_whole}
    assert rows == files & set(Image.objects.values_list("sha256", flat=True))
    return rows


def is_on(host: Hypervisor, sha256: str) -> bool:
    return any(sha256 in volume.name for volume in hypervisors.bare_driver_for(host).volumes())


@pytest.fixture
def old(host: Hypervisor, order: Callable[..., Server], new_image: str) -> Iterator[OsVersion]:
    """A system that is not on offer any more, with one server: its image is on the host."""
    version = OsVersionFactory.create(name="Old", image__sha256=new_image)
    finish(order(os_version=version))
    version.is_active = False
    version.save()
    yield version
    driver, image = hypervisors.bare_driver_for(host), base.Image(sha256=new_image)
    clear(driver)
    driver.retire_image(image)
    driver.remove_image(image)


def delete(*servers: Server) -> None:
    for server in servers:
        services.delete_server(server=server)
        finish(server)


def look_twice(host: Hypervisor) -> None:
    """The first round retires, the second removes."""
    see_to_images(host)
    see_to_images(host)


def test_what_a_host_got_is_recorded_at_once_and_what_else_it_has_when_it_is_looked_at(
    host: Hypervisor, old: OsVersion, empty_image: Path
) -> None:
    """Guards: ``record_image_copy`` in fetch_image; ``record_image_copies`` in image_copies.py."""
    digest = old.image_to_start_from.sha256
    assert [copy.image.sha256 for copy in ImageCopy.objects.all()] == [digest]
    see_to_images(host)
    assert copies_on(host) == {digest, empty_image.stem}


def test_an_image_that_nothing_needs_is_removed_and_one_on_offer_stays(
    host: Hypervisor, old: OsVersion, empty_image: Path
) -> None:
    """Guard: ``on_offer`` in images_needed_on."""
    delete(*Server.objects.all())
    look_twice(host)
    assert copies_on(host) == {empty_image.stem}
    assert not is_on(host, old.image_to_start_from.sha256)


def test_an_image_that_a_server_is_based_on_stays(
    host: Hypervisor, old: OsVersion, caplog: pytest.LogCaptureFixture
) -> None:
    """Guard: ``based_on`` in images_needed_on: the driver, which refuses as well, is not even asked."""
    caplog.set_level("INFO")
    look_twice(host)
    assert old.image_to_start_from.sha256 in copies_on(host)
    assert "keeps an image" not in caplog.text


def test_a_rebuild_changes_what_the_server_is_based_on_and_frees_the_old_image(
    host: Hypervisor, old: OsVersion, empty_image: Path, settings: Any
) -> None:
    """Guard: ``base_image_id`` in lifecycle.adopt."""
    settings.VPS_SHUTDOWN_TIMEOUT = 0
    server, other = Server.objects.get(), OsVersion.objects.get(image__sha256=empty_image.stem)
    services.rebuild_server(server=server, os_version=other)
    assert finish(server).base_image.sha256 == empty_image.stem
    look_twice(host)
    assert copies_on(host) == {empty_image.stem}


def test_an_image_that_an_open_rebuild_wants_stays(host: Hypervisor, old: OsVersion, active: Server) -> None:
    """Guard: ``wanted`` in images_needed_on."""
    delete(*Server.objects.exclude(pk=active.pk))
    services.rebuild_server(server=active, os_version=old)
    look_twice(host)
    assert old.image_to_start_from.sha256 in copies_on(host)


def test_a_worker_that_saw_the_image_before_it_was_retired_still_makes_its_disk(
    host: Hypervisor, old: OsVersion, order: Callable[..., Server]
) -> None:
    """Its operation is open when the second round comes.  Guard: the two rounds in image_copies.py."""
    delete(*Server.objects.all())
    see_to_images(host)
    assert old.image_to_start_from.sha256 not in copies_on(host)
    assert is_on(host, old.image_to_start_from.sha256)
    late = order(os_version=old)
    see_to_images(host)
    assert is_on(host, old.image_to_start_from.sha256)
    assert finish(late).status == ServerStatus.ACTIVE
    assert old.image_to_start_from.sha256 in copies_on(host)


def test_an_image_without_a_row_is_left_alone(host: Hypervisor, old: OsVersion) -> None:
    """As after a backup of the database was restored: nothing is removed before somebody has looked."""
    digest = old.image_to_start_from.sha256
    delete(*Server.objects.all())
    Image.objects.filter(sha256=digest).update(sha256="e" * 64)
    look_twice(host)
    assert is_on(host, digest)
    assert Code.IMAGE_UNKNOWN in {finding.code for finding in verify()}
