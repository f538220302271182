"""What must be true when everything has come to rest, whatever happened before."""

from collections import Counter

from django.db.models import Sum
from django.utils import timezone

from inventory.models import Hypervisor, IpAddress, Placement
from provisioning import hosts
from provisioning.verify.findings import Severity
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
        _assert_host_is_true(host, [s for s in servers if s.placement and s.placement.hypervisor == host])
    _assert_claims_are_true(servers)
    errors = [finding for finding in verify() if finding.severity == Severity.ERROR]
    assert [str(finding) for finding in errors if finding.code != OF_THE_MACHINE] == []


def _assert_has_its_reason(server: Server) -> None:
    if server.status == S.ERROR:
        last = server.operations.latest("pk")
        assert (last.status, bool(last.error_code), bool(last.message)) == (
            OperationStatus.FAILED,
            True,
            True,
        )


def _assert_host_is_true(host: Hypervisor, servers: list[Server]) -> None:
    driver = hosts.driver(host)
    assert {uuid: power.state for uuid, power in driver.powers().items()} == {
        server.uuid: POWER[S(server.status)] for server in servers
    }
    files = Counter(volume.machine for volume in driver.volumes() if volume.machine)
    assert files == {server.uuid: 3 for server in servers}, "a disk, a seed and a log each"
    claims = host.placements.aggregate(v=Sum("vcpus"), m=Sum("memory_mib"), d=Sum("disk_gib"))
    host.refresh_from_db()
    assert (host.vcpus_used, host.memory_mib_used, host.disk_gib_used) == tuple(
        claims[key] or 0 for key in "vmd"
    )


def _assert_claims_are_true(servers: list[Server]) -> None:
    holders = {server.placement_id for server in servers if server.status not in GONE | {S.ERROR}}
    assert {server.placement_id for server in servers if server.placement_id} == holders
    assert set(Placement.objects.values_list("pk", flat=True)) == holders
    given = Counter(IpAddress.objects.exclude(placement=None).values_list("placement_id", "pool__family"))
    assert given == {(holder, family): 1 for holder in holders for family in (4, 6)}
    for server in servers:
        if server.placement:
            assert server.plan.vcpus == server.placement.vcpus
