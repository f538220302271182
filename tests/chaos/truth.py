"""What must be true when everything has come to rest, whatever happened before."""

from collections import Counter

from django.db.models import Sum
from django.utils import timezone

from backups.kinds import BackupStatus
from backups.models import Backup
from backups.reading import check
from backups.services import manifest_of, vault_of
from core.findings import Severity
from inventory.models import Hypervisor, IpAddress, Placement, Port
from provisioning import hypervisors
from provisioning.verify.verification import verify
from servers.models import Operation, Server
from servers.states import GONE, OPEN_OPERATION, OperationStatus, PowerState, ServerStatus

S = ServerStatus
FINAL = {S.ACTIVE, S.STOPPED, S.SUSPENDED, S.DELETED, S.ERROR}
OF_THE_MACHINE = "HOST_DISK_NEARLY_FULL"  # this one's, and no fault of the product
POWER = {S.ACTIVE: PowerState.RUNNING, S.STOPPED: PowerState.OFF, S.SUSPENDED: PowerState.OFF}


def assert_all_is_true() -> None:
    """One domain, disk and address of each family for each server; counters that add up; nothing left."""
    assert not Operation.objects.filter(status__in=OPEN_OPERATION).exists()
    assert not Operation.objects.filter(lease_until__gt=timezone.now()).exists()
    servers = list(Server.objects.all())
    assert {server.status for server in servers} <= FINAL
    for server in servers:
        _assert_has_its_reason(server)
    for host in Hypervisor.objects.all():
        _assert_host_is_true(host, [s for s in servers if s.home and s.home.hypervisor == host])
    _assert_claims_are_true(servers)
    Backup.objects.filter(damage__startswith="did not boot").update(damage="")  # there is nothing that boots
    wrong = [f for f in verify() if f.code.severity == Severity.ERROR or f.code.startswith("BACKUP_")]
    assert [str(finding) for finding in wrong if finding.code != OF_THE_MACHINE] == []
    for backup in Backup.objects.exclude(status=BackupStatus.DELETED):
        _assert_backup_is_true(backup)


def _assert_has_its_reason(server: Server) -> None:
    if server.status == S.ERROR:
        last = server.operations.latest("pk")
        assert (last.status, bool(last.error_code), bool(last.message)) == (
            OperationStatus.FAILED,
            True,
            True,
        )


def _assert_host_is_true(host: Hypervisor, servers: list[Server]) -> None:
    driver = hypervisors.bare_driver_for(host)
    assert {uuid: power.state for uuid, power in driver.powers().items()} == {
        server.uuid: POWER[S(server.status)] for server in servers
    }
    files = Counter(volume.machine for volume in driver.volumes() if volume.machine and volume.is_ours)
    wanted = Counter({server.uuid: 2 for server in servers})  # a disk and a seed each
    more, fewer = dict(files - wanted), dict(wanted - files)
    assert not more | fewer, f"files of {host}: too many {more}, missing {fewer}"
    claims = host.placements.aggregate(v=Sum("vcpus"), m=Sum("memory_mib"), d=Sum("disk_gib"))
    host.refresh_from_db()
    assert (host.vcpus_used, host.memory_mib_used, host.disk_gib_used) == tuple(
        claims[key] or 0 for key in "vmd"
    )


def _assert_backup_is_true(backup: Backup) -> None:
    """Whole, with every piece in the store, or failed for a reason that is told."""
    if backup.status == BackupStatus.FAILED:
        assert backup.error_code, backup
        assert backup.message, backup
        return
    assert backup.status == BackupStatus.COMPLETED, backup
    vault = vault_of(backup.account, backup.store)
    assert check(vault, manifest_of(backup, vault)) == []


def _assert_claims_are_true(servers: list[Server]) -> None:
    holders = [server for server in servers if server.status not in GONE | {S.ERROR}]
    homes, ports = ({getattr(server, name) for server in holders} for name in ("home_id", "port_id"))
    assert {server.home_id for server in servers if server.home_id} == homes
    assert {server.port_id for server in servers if server.port_id} == ports
    assert set(Placement.objects.values_list("pk", flat=True)) == homes
    assert set(Port.objects.values_list("pk", flat=True)) == ports
    given = Counter(IpAddress.objects.exclude(port=None).values_list("port_id", "pool__family"))
    assert given == {(port, family): 1 for port in ports for family in (4, 6)}
    for server in servers:
        if server.home:
            assert server.plan.vcpus == server.home.vcpus
