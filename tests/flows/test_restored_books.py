"""The database was restored from a dump that is older than the hosts: nothing of a customer is destroyed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import libvirt
import pytest
from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.db.models import Model

from core.errors import NoCapacity
from inventory.models import Hypervisor, IpAddress
from provisioning import hypervisors
from provisioning.drivers.base import HostUnreachable
from provisioning.reconcile import reconcile
from provisioning.verify.findings import Code
from provisioning.verify.verification import verify
from servers import services
from servers.models import Operation, Server
from servers.states import OperationStatus, PowerState, ServerStatus
from tests.flows.conftest import FaultyHost, finish, let_lease_end, open_operation
from tests.flows.test_stories import assert_one_machine, come_by

S = ServerStatus
LONG_AGO = "2020-01-01T00:00:00Z"


def dump_of(*rows: Model) -> Callable[[], None]:
    """The columns of these rows as they are now; to be called when they have changed: they are put back."""
    kept = [
        (type(row), row.pk, {f.attname: getattr(row, f.attname) for f in row._meta.concrete_fields})
        for row in rows
    ]

    def restore() -> None:
        with as_a_restore_does():
            for model, pk, columns in kept:
                model._default_manager.filter(pk=pk).update(**columns)

    return restore


@contextmanager
def as_a_restore_does() -> Iterator[CursorWrapper]:
    """No trigger sees what is written."""
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        yield cursor
        cursor.execute("SET session_replication_role = origin")


def made_after_a_dump(server: Server, step: str) -> Callable[[], None]:
    """Dump the books while its create is in this step; then it ends well.  Returns what restores them."""
    if step:
        create = Operation.objects.filter(server=server)
        create.update(step=step, status=OperationStatus.RUNNING, attempt=1, lease_until=LONG_AGO)
    restore = dump_of(server, server.operations.get())
    Operation.objects.update(step="", status=OperationStatus.QUEUED, lease_until=None)
    assert finish(server).status == S.ACTIVE
    return restore


@pytest.mark.parametrize("deadline", ["passed", "to come"])
@pytest.mark.parametrize("step", ["", "make_disk", "define", "await_guest", "undo"])
def test_a_create_that_is_open_in_the_dump_keeps_the_machine_that_was_delivered(
    host: Hypervisor, order: Callable[[], Server], step: str, deadline: str
) -> None:
    """Guards: ``unless_delivered`` in remove_attempt; never_delivered; _keep in engine.py."""
    server = order()
    restore = made_after_a_dump(server, step)
    ip_address, before = server.ip_address, definition(host.uri, server)

    restore()
    if deadline == "passed":
        Operation.objects.update(deadline_at=LONG_AGO)
    back = finish(Server.objects.get(pk=server.pk))

    operation = back.operations.get()
    assert (operation.status, operation.error_code, operation.message) == (OperationStatus.SUCCEEDED, "", "")
    assert (back.status, back.ip_address) == (S.ACTIVE, ip_address)
    assert hypervisors.driver_for(host).power(server.uuid).state == PowerState.RUNNING
    assert_one_machine(host, back)
    assert definition(host.uri, server) == before


def definition(uri: str, server: Server) -> str:
    """As the host will start it, and which run of it is on."""
    domain = libvirt.open(uri).lookupByUUIDString(str(server.uuid))
    return f"{domain.ID()} {domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)}"


def test_a_machine_whose_owner_has_switched_it_off_since_is_kept_and_shown_as_stopped(
    host: Hypervisor, order: Callable[[], Server]
) -> None:
    server = order()
    restore = made_after_a_dump(server, "await_guest")
    services.hard_stop_server(server=server)
    finish(server)
    Operation.objects.filter(server=server, kind="hard_stop").delete()
    restore()
    assert finish(Server.objects.get(pk=server.pk)).status == S.ACTIVE
    reconcile(host)
    server.refresh_from_db()
    assert server.status == S.STOPPED
    assert_one_machine(host, server)


def test_what_looks_like_a_failed_create_and_was_delivered_stays(
    host: Hypervisor, faulty: FaultyHost, order: Callable[[], Server]
) -> None:
    """Its host was silent when the create was undone.  Guard: ``unless_delivered`` in _remove_leftovers."""
    server = order()
    restore = made_after_a_dump(server, "await_guest")
    restore()
    Operation.objects.update(deadline_at=LONG_AGO)
    faulty.fail_next("delete", HostUnreachable("no answer"))
    assert finish(Server.objects.get(pk=server.pk)).status == S.ERROR
    Hypervisor.objects.update(retry_at=None, failures=0)
    host.refresh_from_db()
    reconcile(host)
    server.refresh_from_db()
    assert server.home is not None
    assert hypervisors.driver_for(host).power(server.uuid).state == PowerState.RUNNING
    assert_one_machine(host, server)


def addresses_of(server: Server) -> set[str]:
    return set(IpAddress.objects.filter(port=server.port_id).values_list("address", flat=True))


def test_a_host_with_machines_of_no_server_takes_nothing_new_and_their_addresses_stay_theirs(
    host: Hypervisor, order: Callable[[], Server]
) -> None:
    """Guards: fault_of_strangers, and ``reserve``.  The rows of what was ordered after the dump are gone."""
    old, new = finish(order()), finish(order())
    theirs = addresses_of(new)
    with as_a_restore_does() as cursor:
        cursor.execute("UPDATE inventory_ipaddress SET port_id = NULL WHERE port_id = %s", [new.port_id])
        cursor.execute("UPDATE servers_server SET port_id = NULL, uuid = %s WHERE id = %s", [uuid4(), new.pk])
        Server.objects.filter(pk=new.pk).update(home=None, status=S.DELETED, deleted_at=LONG_AGO)
    reconcile(host)
    reconcile(host)
    host.refresh_from_db()
    assert "1 machines of ours of which no server is known" in host.last_error
    with pytest.raises(NoCapacity):
        order()
    assert (
        set(IpAddress.objects.filter(is_reserved=True, port=None).values_list("address", flat=True)) >= theirs
    )
    assert Code.MACHINE_ORPHAN in {finding.code for finding in verify()}
    old.refresh_from_db()
    assert old.status == S.ACTIVE

    hypervisors.driver_for(host).delete(new.uuid)  # somebody has compared
    reconcile(host)
    assert not theirs & addresses_of(order())


def test_a_machine_that_is_ready_is_delivered_however_late(
    host: Hypervisor, faulty: FaultyHost, order: Callable[[], Server], monkeypatch: Any
) -> None:
    """Guard: ``deliver`` in _walk."""
    server = order()
    operation = open_operation(server)
    mark = faulty.mark_delivered

    def late(machine: object) -> None:
        Operation.objects.filter(pk=operation.pk).update(deadline_at=LONG_AGO)
        let_lease_end(server)
        monkeypatch.setattr(faulty, "mark_delivered", mark)
        raise KeyboardInterrupt

    monkeypatch.setattr(faulty, "mark_delivered", late)
    with pytest.raises(KeyboardInterrupt):
        finish(server)
    come_by(server)
    server.refresh_from_db()
    assert server.status == S.ACTIVE
