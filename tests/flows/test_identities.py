"""A host is its own UUID, whatever its address says."""

from collections.abc import Callable

import pytest
from django.core.management import CommandError, call_command

from deploy.local.libvirtd import Libvirtd
from inventory.models import Hypervisor
from provisioning import hypervisors
from provisioning.engine import carry_out
from provisioning.reconcile import reconcile
from provisioning.verify.findings import Code
from provisioning.verify.verification import verify
from servers import services
from servers.models import Server
from servers.states import PowerState, ServerStatus
from tests.flows.conftest import finish, let_lease_end

pytestmark = pytest.mark.django_db(transaction=True)


def add(name: str, uri: str, *more: str) -> None:
    options = ["--location", "us-west", "--uri", uri, "--pool", "vps", "--network", "vps"]
    call_command("add_hypervisor", name, *options, "--disk-gib", "100", "--memory-mib", "100000", *more)


@pytest.fixture
def known(host: Hypervisor) -> Hypervisor:
    """The host, as the command registers it."""
    add(host.name, host.uri)
    host.refresh_from_db()
    return host


def test_a_host_is_not_sold_twice_under_two_addresses(known: Hypervisor) -> None:
    """Guard: ``same`` in add_hypervisor."""
    again = known.uri.replace("socket=/", "socket=/./")
    assert again != known.uri
    with pytest.raises(CommandError, match=f"registered already, as {known.name}"):
        add("kvm-again", again)
    assert list(Hypervisor.objects.all()) == [known]
    add(known.name, again)  # its address may be spelt in another way


def test_a_name_stays_with_its_host_until_somebody_says_so(
    known: Hypervisor, small_libvirtd: Libvirtd
) -> None:
    """Guard: ``known`` in add_hypervisor."""
    for another in (small_libvirtd.url, "test:///default"):
        with pytest.raises(CommandError, match="--new-identity"):
            add(known.name, another)
    assert Hypervisor.objects.get().host_uuid == known.host_uuid
    add(known.name, small_libvirtd.url, "--new-identity")
    assert Hypervisor.objects.get().host_uuid != known.host_uuid


def test_nothing_is_done_on_another_host_that_answers(
    known: Hypervisor, order: Callable[[], Server], small_libvirtd: Libvirtd
) -> None:
    """Or its servers would be missing there, and deletes give back what still runs elsewhere."""
    server = finish(order())
    uri = known.uri
    Hypervisor.objects.update(uri=small_libvirtd.url)  # as if the name led elsewhere
    for _ in range(2):
        known.refresh_from_db()
        known.retry_at = None
        assert reconcile(known) == []
    known.refresh_from_db()
    assert (known.is_reachable, "is meant" in known.last_error) == (False, True)
    server.refresh_from_db()
    assert (server.status, server.power_state) == (ServerStatus.ACTIVE, PowerState.UNKNOWN)
    assert {finding.code for finding in verify()} == {Code.HOST_WRONG, Code.HOST_NOT_SEEN}

    operation = services.delete_server(server=server)
    Hypervisor.objects.update(retry_at=None)
    carry_out(operation.pk)
    server.refresh_from_db()
    assert server.home is not None, "its claims were given back while its machine runs"

    Hypervisor.objects.update(uri=uri, retry_at=None)
    let_lease_end(server)
    assert (
        hypervisors.bare_driver_for(Hypervisor.objects.get()).power(server.uuid).state == PowerState.RUNNING
    )
    assert finish(server).status == ServerStatus.DELETED
