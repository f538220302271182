"""manage.py verify and reconcile on a real host: each fault is really made, and found by its code."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from typing import Any
from uuid import uuid4

import libvirt
import pytest
from django.core.management import CommandError, call_command
from django.db.models import F
from django.utils import timezone

from backups.kinds import BackupKind
from core.findings import Finding, FindingCode
from inventory.models import Hypervisor, IpPool
from provisioning import hypervisors
from provisioning.drivers import domain_xml
from provisioning.drivers.storage_names import disk_volume, seed_volume
from provisioning.reconcile import reconcile
from provisioning.verify import verification
from provisioning.verify.findings import Code
from provisioning.verify.rows import read_rows
from provisioning.verify.snapshot import Rows
from provisioning.verify.verification import verify
from servers import backup_services, services
from servers.models import Operation, Server
from servers.states import ServerStatus
from tests.flows.conftest import FaultyHost, failed, finish
from tests.flows.test_backup_faults import step


@pytest.fixture(autouse=True)
def sound(host: Hypervisor) -> Iterator[None]:
    """The suite's host sells what it has, was heard of, and holds nothing of tests before or of this one."""
    host.memory_mib, host.last_seen_at = 1024, timezone.now()
    host.save(update_fields=["memory_mib", "last_seen_at"])
    _clear(host)
    yield
    _clear(host)


def _clear(host: Hypervisor) -> None:
    driver = hypervisors.bare_driver_for(host)
    for machine in {volume.machine for volume in driver.volumes()} | set(driver.powers()):
        if machine is not None:
            driver.delete(machine)


@pytest.fixture
def on_host(qemu_uri: str) -> Iterator[Any]:
    """An operator's hands on the host."""
    connection = libvirt.open(qemu_uri)
    yield connection
    connection.close()


def domain_of(on_host: Any, server: Server) -> Any:
    return on_host.lookupByUUIDString(str(server.uuid))


def volume(on_host: Any, name: str) -> Any:
    return on_host.storagePoolLookupByName("vps").storageVolLookupByName(name)


@pytest.fixture(autouse=True)
def images_of_other_tests_are_known(host: Hypervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """They share the suite's libvirtd, and their rows are gone."""
    others = {copy.image.sha256 for copy in hypervisors.bare_driver_for(host).images()}

    def with_others() -> Rows:
        rows = read_rows()
        return replace(rows, known_images=rows.known_images | others)

    monkeypatch.setattr(verification, "read_rows", with_others)


def found() -> list[Finding]:
    """All findings but one: how full the machine under the suite is."""
    return [finding for finding in verify() if finding.code != Code.HOST_DISK_NEARLY_FULL]


def codes() -> set[FindingCode]:
    return {finding.code for finding in found()}


def test_a_server_as_it_should_be_is_not_found(active: Server) -> None:
    assert found() == []
    services.hard_stop_server(server=active)
    assert found() == [], "while it is being stopped"
    finish(active)
    assert found() == []
    services.delete_server(server=active)
    finish(active)
    assert found() == []


def test_a_host_that_answers_nonsense_is_one_of_many(active: Server, faulty: FaultyHost) -> None:
    """Guard: the last ``except`` in _ask."""
    faulty.fail_next("machines", UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "what is this?"))
    [finding] = found()
    assert (finding.code, "what is this?" in finding.sentence) == (Code.HOST_NOT_VERIFIED, True)


def test_a_machine_deleted_behind_our_back_is_missing(active: Server, on_host: Any) -> None:
    domain = domain_of(on_host, active)
    domain.destroy()
    domain.undefine()
    [finding] = found()
    assert (finding.code, finding.object) == (Code.SERVER_MACHINE_MISSING, f"server {active.pk}")


@pytest.mark.parametrize(
    ("name_of", "code"),
    [(disk_volume, Code.SERVER_DISK_MISSING), (seed_volume, Code.SERVER_SEED_MISSING)],
)
def test_a_volume_deleted_behind_our_back_is_missing(
    active: Server, on_host: Any, name_of: Callable[..., str], code: Code
) -> None:
    volume(on_host, name_of(active.uuid)).delete()
    assert codes() == {code}


def test_a_stray_machine_of_ours_is_an_orphan_and_is_not_removed(host: Hypervisor, on_host: Any) -> None:
    stray = uuid4()
    on_host.defineXML(
        f"<domain type='qemu'><name>{domain_xml.domain_name(stray)}</name><uuid>{stray}</uuid>"
        "<memory unit='MiB'>32</memory><os><type arch='x86_64'>hvm</type></os></domain>"
    )
    [finding] = found()
    assert (finding.code, str(stray) in finding.object) == (Code.MACHINE_ORPHAN, True)
    reconcile(host)
    assert on_host.lookupByUUIDString(str(stray))


def test_a_file_of_no_server_is_an_orphan(host: Hypervisor, on_host: Any) -> None:
    name = disk_volume(uuid4())
    xml = f"<volume><name>{name}</name><capacity>1</capacity></volume>"
    stray = on_host.storagePoolLookupByName("vps").createXML(xml)
    try:
        [finding] = found()
    finally:
        stray.delete()
    assert (finding.code, finding.object) == (Code.VOLUME_ORPHAN, f"volume {name} on {host}")


def test_a_machine_that_was_edited_is_found_by_what_was_edited(active: Server, on_host: Any) -> None:
    definition = ET.fromstring(domain_of(on_host, active).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    for tag, text in {"vcpu": "2", "memory": str(256 * 1024), "currentMemory": str(256 * 1024)}.items():
        element = definition.find(tag)
        assert element is not None
        element.text = text
    interface = definition.find("devices/interface")
    assert interface is not None
    for filterref in interface.findall("filterref"):
        interface.remove(filterref)
    mac = interface.find("mac")
    assert mac is not None
    mac.set("address", "52:54:00:ff:ff:ff")
    on_host.defineXML(ET.tostring(definition, encoding="unicode"))
    assert codes() == {
        Code.SERVER_VCPUS,
        Code.SERVER_MEMORY,
        Code.SERVER_MAC,
        Code.SERVER_UNFILTERED,
        Code.SERVER_ADDRESSES,
    }


def test_a_copy_of_a_machine_is_found_by_what_it_shares(active: Server, on_host: Any) -> None:
    definition = ET.fromstring(domain_of(on_host, active).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    for tag, text in {"name": "a-copy", "uuid": str(uuid4())}.items():
        element = definition.find(tag)
        assert element is not None
        element.text = text
    copy = on_host.defineXML(ET.tostring(definition, encoding="unicode"))
    try:
        assert codes() == {Code.MACHINE_COPY, Code.MACHINE_SAME_MAC, Code.MACHINE_SAME_ADDRESS}
    finally:
        copy.undefine()


def test_power_that_contradicts_is_found_until_reconcile_has_corrected_it(
    active: Server, on_host: Any, host: Hypervisor
) -> None:
    domain_of(on_host, active).suspend()
    assert codes() == {Code.SERVER_PAUSED}
    domain_of(on_host, active).destroy()
    assert codes() == {Code.SERVER_POWER}
    reconcile(host)
    assert codes() == set()


def test_claims_that_disagree_are_found(active: Server, host: Hypervisor) -> None:
    home = hypervisors.home_of(active)
    Server.objects.filter(pk=active.pk).update(home=None, status=ServerStatus.DELETED)
    Hypervisor.objects.filter(pk=host.pk).update(vcpus_used=7)
    assert codes() == {
        Code.HOST_COUNTERS,
        Code.PLACEMENT_UNUSED,
        Code.PORT_UNUSED,
        Code.MACHINE_ORPHAN,
        Code.VOLUME_ORPHAN,
    }
    Server.objects.filter(pk=active.pk).update(home=home)
    assert codes() == {Code.HOST_COUNTERS, Code.PLACEMENT_OF_DELETED}


def test_a_status_without_its_operation_is_found(active: Server) -> None:
    services.reboot_server(server=active)
    assert codes() == set()
    Operation.objects.filter(server=active).update(status="cancelled")
    assert codes() == {Code.SERVER_STUCK}


def test_an_image_that_is_gone_is_found(host: Hypervisor, settings: Any, tmp_path: Any) -> None:
    settings.VPS_IMAGE_DIR = tmp_path
    assert codes() == {Code.IMAGE_MISSING}


def test_of_an_unreachable_host_nothing_is_called_missing(active: Server, host: Hypervisor) -> None:
    Hypervisor.objects.filter(pk=host.pk).update(uri="qemu+unix:///system?socket=/nowhere")
    [finding] = found()
    assert finding.code == Code.HOST_UNREACHABLE
    assert "1 servers are not verified" in finding.sentence


def test_what_changes_while_the_host_is_asked_is_no_finding(
    active: Server, order: Callable[..., Server], monkeypatch: Any
) -> None:
    """Guard: _confirmed in verification.py.  One server is deleted and one made after the rows were read."""
    made, read = [], vars(verification)["read_rows"]

    def read_and_go_on() -> Any:
        rows = read()
        services.delete_server(server=active)
        finish(active)
        made.append(finish(order()))
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(verification, "read_rows", read_and_go_on)
        assert found() == []
    assert found() == []
    assert made[0].status == ServerStatus.ACTIVE


def test_a_backup_begun_while_the_host_is_asked_is_no_finding(active: Server, monkeypatch: Any) -> None:
    """Guard: ``_by_server`` in verification.py."""
    read = vars(verification)["read_rows"]

    def read_and_go_on() -> Any:
        rows = read()
        backup = backup_services.take_backup(server=active, kind=BackupKind.MANUAL)
        step(backup, "store_backup")
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(verification, "read_rows", read_and_go_on)
        assert found() == []


# The commands.


def run(command: str, *words: str) -> tuple[str, str]:
    """What a command prints, and the sentence that it fails with, if it does."""
    out = StringIO()
    try:
        call_command(command, *words, stdout=out)
    except CommandError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), ""


def test_errors_end_with_status_1_and_warnings_only_when_asked_for(active: Server, on_host: Any) -> None:
    assert run("verify", "--strict") == ("", "")
    volume(on_host, seed_volume(active.uuid)).delete()
    printed, failure = run("verify")
    assert printed.startswith(f"SERVER_SEED_MISSING warning server {active.pk}: has no seed ")
    assert failure == ""
    assert run("verify", "--strict") == (printed, "0 errors, 1 warnings.")
    volume(on_host, disk_volume(active.uuid)).delete()
    printed, failure = run("verify", "--json")
    assert failure == "1 errors, 1 warnings."
    assert [(f["code"], f["severity"]) for f in json.loads(printed)] == [
        ("SERVER_DISK_MISSING", "error"),
        ("SERVER_SEED_MISSING", "warning"),
    ]


def test_findings_are_counted_and_left_out_as_asked(active: Server, on_host: Any, host: Hypervisor) -> None:
    volume(on_host, seed_volume(active.uuid)).delete()
    volume(on_host, disk_volume(active.uuid)).delete()
    Hypervisor.objects.update(vcpus_used=F("vcpus_used") + 1)
    failed = "2 errors, 1 warnings."
    printed, failure = run("verify", "--summary")
    assert printed.splitlines() == [
        "1 HOST_COUNTERS error",
        "1 SERVER_DISK_MISSING error",
        "1 SERVER_SEED_MISSING warning",
    ]
    assert failure == failed
    printed, failure = run("verify", "--summary", "--json")
    assert {"code": "HOST_COUNTERS", "severity": "error", "count": 1} in json.loads(printed)
    assert failure == failed
    printed, failure = run("verify", "--host", host.name, "--summary")
    assert printed.split()[1::3] == ["SERVER_DISK_MISSING", "SERVER_SEED_MISSING"]
    assert failure == "1 errors, 1 warnings."
    printed, failure = run("verify", "--code", "SERVER_SEED_MISSING", "--code", "HOST_COUNTERS")
    assert [line.split()[0] for line in printed.splitlines()] == ["HOST_COUNTERS", "SERVER_SEED_MISSING"]
    assert failure == "1 errors, 1 warnings."
    assert run("verify", "--host", "atlantis") == ("", "There is no hypervisor atlantis.")


def test_reconcile_says_what_it_would_do_and_does_it(active: Server, on_host: Any, host: Hypervisor) -> None:
    assert run("reconcile", "--dry-run") == (f"{host}: 1 servers are as promised\n", "")
    domain_of(on_host, active).destroy()
    said = f"{host}: 0 servers are as promised\n{host}: server {active.pk}: follow (the host says off)\n"
    assert run("reconcile", "--host", host.name, "--dry-run") == (said, "")
    active.refresh_from_db()
    assert active.status == ServerStatus.ACTIVE
    assert run("reconcile", "--host", host.name) == (said, "")
    active.refresh_from_db()
    assert active.status == ServerStatus.STOPPED
    assert run("reconcile") == (f"{host}: 1 servers are as promised\n", "")


def test_reconcile_names_what_it_would_clear(active: Server, host: Hypervisor) -> None:
    failed(active)
    line = f"{host}: server {active.pk}: clear what its failed create left, if the host lets us\n"
    assert line in run("reconcile", "--dry-run")[0]
    assert hypervisors.bare_driver_for(host).power(active.uuid)
    run("reconcile")
    assert active.uuid not in hypervisors.bare_driver_for(host).powers()


@pytest.mark.parametrize("words", [[], ["--dry-run"]])
def test_reconcile_fails_for_a_host_that_cannot_be_asked(
    active: Server, host: Hypervisor, words: list[str]
) -> None:
    Hypervisor.objects.filter(pk=host.pk).update(uri="qemu+unix:///system?socket=/nowhere")
    printed, failure = run("reconcile", *words)
    assert "/nowhere" in printed
    assert failure == f"Could not be asked: {host}."
    active.refresh_from_db()
    assert active.status == ServerStatus.ACTIVE


def test_reconcile_refuses_a_host_that_is_not_there() -> None:
    assert run("reconcile", "--host", "nobody") == ("", "There is no host nobody, or it is disabled.")


def test_reserved_addresses_are_neither_left_nor_missed(active: Server) -> None:
    """Guard: both ``for_servers`` in provisioning/verify/rows.py."""
    pool = IpPool.objects.get(family=4)
    few = pool.addresses.filter(port=None).order_by("pk")[:10]
    pool.addresses.exclude(pk__in=few.values("pk")).update(is_reserved=True)
    assert found() == [], "ten of ten"
    pool.addresses.update(is_reserved=True)
    assert codes() == {Code.ADDRESSES_NEARLY_GONE}
