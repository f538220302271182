"""What the tests stand on: real services, and customers who talk to the API."""

import json
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts.actors import acting_as
from accounts.models import Account
from backups.store import Store
from deploy.local.guest import GuestImage
from deploy.local.libvirtd import Libvirtd
from inventory.pools import add_ip_pool
from plans import catalogue
from tests.chaos.luck import SEED, TRIALS
from tests.factories import (
    TESTER,
    AccountFactory,
    HypervisorFactory,
    LocationFactory,
    OsVersionFactory,
    PlanFactory,
    token_for,
)
from tests.private_services import VAR
from tests.published import check_answer
from tests.s3 import S3, serving_s3


def pytest_report_header() -> str:
    return f"chaos: CHAOS_SEED={SEED} CHAOS_TRIALS={TRIALS}"


@pytest.fixture(autouse=True)
def new_catalogue() -> None:
    """Rows of the test before are gone, and their ids may be used again."""
    for kept in (catalogue.plans, catalogue.os_versions, catalogue.locations):
        kept.forget()


@pytest.fixture(autouse=True)
def acting() -> Iterator[None]:
    """What a test does itself, an operator does."""
    with acting_as(TESTER):
        yield


@pytest.fixture(scope="session")
def libvirtd() -> Iterator[Libvirtd]:
    """A private libvirtd of the suite's own, with its pool and network."""
    service = Libvirtd(VAR)
    service.start()
    yield service
    service.stop(patience_s=0)


@pytest.fixture(scope="session")
def qemu_uri(libvirtd: Libvirtd) -> str:
    return libvirtd.url


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 server of the suite's own: moto's."""
    with serving_s3() as server:
        yield server


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of backups, of each kind."""
    if request.param == "directory":
        return Store(str(tmp_path / "store"))
    server: S3 = request.getfixturevalue("s3")
    return server.new_store()


@pytest.fixture(scope="session")
def guest_image() -> Path:
    """The bootable image, built once in the suite's folder."""
    return GuestImage(VAR).build()


# Made once: whitenoise looks through all static files for each handler.
HANDLER = APIClient().handler


class Customer:
    """One account with a token, and its way of talking to the API."""

    def __init__(self, account: Account, *permissions: str) -> None:
        self.account = account
        self.token = token_for(account, *permissions)
        self._client = APIClient(raise_request_exception=False)
        self._client.handler = HANDLER

    def ask(self, method: str, path: str, body: Any = None, **headers: Any) -> Any:
        """An answer of ``/api/v1<path>``; ``body`` is sent as JSON.  ``headers`` win over ours.

        Fails when the published schema does not promise the answer.
        """
        headers = {"HTTP_AUTHORIZATION": f"Bearer {self.token}", "CONTENT_TYPE": "application/json"} | headers
        answer = self._client.generic(method, f"/api/v1{path}", _json(body), None, **headers)  # type: ignore[arg-type]
        check_answer(method, f"/api/v1{path}".partition("?")[0], answer)
        return answer

    def get(self, path: str, **headers: Any) -> Any:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: Any) -> Any:
        return self.ask("POST", path, body, **headers)

    def patch(self, path: str, body: Any) -> Any:
        return self.ask("PATCH", path, body)

    def put(self, path: str, body: Any) -> Any:
        return self.ask("PUT", path, body)

    def delete(self, path: str) -> Any:
        return self.ask("DELETE", path)


def _json(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    return b"" if body is None else json.dumps(body).encode()


@pytest.fixture
def customer(db: None) -> Callable[..., Customer]:
    """Make customers: ``alice = customer()``, ``reader = customer("servers:read")``."""

    def make(*permissions: str, **fields: Any) -> Customer:
        return Customer(AccountFactory.create(**fields), *permissions)

    return make


@pytest.fixture
def alice(customer: Callable[..., Customer]) -> Customer:
    return customer()


@pytest.fixture
def shop(db: None) -> dict[str, Any]:
    """One location with room and addresses, a plan and a system: the body of a create that is accepted."""
    location = LocationFactory.create()
    HypervisorFactory.create(location=location)
    for network, gateway in (("203.0.113.0/28", "203.0.113.1"), ("2001:db8:113::/124", "2001:db8:113::1")):
        add_ip_pool(
            location=location, network=ip_network(network), gateway=gateway, nameservers=[], reserved=set()
        )
    return {
        "name": "web-server-02",
        "plan_id": PlanFactory.create().pk,
        "os_id": OsVersionFactory.create().pk,
        "location": location.code,
    }
