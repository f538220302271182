"""One contract, two kinds of libvirt: its in-memory ``test:///`` and a real one with QEMU."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import libvirt
import pytest

from provisioning.drivers.base import Driver, Image, MachineSpec
from provisioning.drivers.storage_names import image_marker, image_volume
from tests.contract.guests import boot
from tests.contract.labs import Lab
from tests.contract.wire import Wire


@pytest.fixture(scope="session")
def test_lab() -> Lab:
    """libvirt's own pretence.  It takes no files, so the image is there by its name alone."""
    image = Image(sha256="00" * 32)
    lab = Lab(
        "test:///default",
        domain_type="test",
        pool="default-pool",
        network="default",
        image=image,
    )
    for name in (image_volume(image), image_marker(image)):
        lab.storage.createXML(f"<volume><name>{name}</name><capacity>0</capacity></volume>")
    # All connections to test:/// share their listeners, and where the last one goes off in the moment of an
    # event, the next hears nothing: see libvirt_events.  So one always listens.
    lab.driver.powers()  # starts libvirt's event loop
    lab.libvirt.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lambda *_: None, None)
    return lab


@pytest.fixture(scope="session")
def qemu_lab(qemu_uri: str, guest_image: Path) -> Lab:
    image = Image(sha256=hashlib.sha256(guest_image.read_bytes()).hexdigest())
    lab = Lab(qemu_uri, domain_type="qemu", pool="vps", network="vps", image=image)
    lab.driver.prepare()
    lab.driver.put_image(image, guest_image)
    return lab


@pytest.fixture(params=["test", "qemu"])
def lab(request: pytest.FixtureRequest) -> Lab:
    chosen: Lab = request.getfixturevalue(f"{request.param}_lab")
    return chosen


@pytest.fixture
def driver(lab: Lab) -> Driver:
    return lab.driver


@pytest.fixture
def make_spec(lab: Lab) -> Iterator[Callable[..., MachineSpec]]:
    """Specs of machines whose every trace is removed after the test."""
    specs = []

    def make(**changes: Any) -> MachineSpec:
        specs.append(lab.spec(**changes))
        return specs[-1]

    yield make
    for spec in specs:
        lab.driver.delete(spec.uuid)


@pytest.fixture
def spec(make_spec: Callable[..., MachineSpec]) -> MachineSpec:
    return make_spec()


@pytest.fixture
def machine(lab: Lab, spec: MachineSpec) -> MachineSpec:
    """A machine that is defined and off."""
    lab.make(spec)
    return spec


@pytest.fixture
def wire(qemu_lab: Lab) -> Iterator[Wire]:
    with TemporaryDirectory(prefix="wire") as folder:  # not tmp_path: a socket's path has to be short
        wire = Wire(Path(folder) / "socket", qemu_lab.uri)
        yield wire
        wire.close()


@pytest.fixture(scope="session")
def guest(qemu_lab: Lab) -> Iterator[MachineSpec]:
    """A real guest, up, for tests that leave it so."""
    spec = qemu_lab.spec(hostname="guest.example.com")
    boot(qemu_lab, spec)
    yield spec
    qemu_lab.driver.delete(spec.uuid)
