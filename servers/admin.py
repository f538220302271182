"""What staff see of servers and may do to them: by the services, like everybody else."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from core import clock
from core.admin import ReadOnlyAdmin
from core.admin_actions import Action, Deed, action_on_each
from inventory.admin import HypervisorAdmin
from inventory.models import Hypervisor
from servers import dunning, services
from servers.models import Operation, ResourceUsage, Server
from servers.states import SuspensionReason


def action_on_servers(label: str, question: str) -> Callable[[Deed], Action]:
    done = "Accepted for {count}. See their operations for how it goes."
    return action_on_each(label, permission="operate", question=question, done=done)


class OperationInline(admin.TabularInline[Operation, Server]):
    model = Operation
    fields = ["kind", "status", "step", "retries", "actor", "created_at", "finished_at", "message"]
    readonly_fields = ["actor"]
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class SuspendedForLong(admin.SimpleListFilter):
    """VPS_TERMINATE_AFTER_DAYS ago or earlier, by billing: somebody should decide what becomes of it."""

    title = "suspension"
    parameter_name = "suspension"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("long", "By billing, for long")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Server]) -> QuerySet[Server]:
        return queryset & dunning.suspended_for_long(clock.now()) if self.value() else queryset


@admin.register(Server)
class ServerAdmin(ReadOnlyAdmin[Server]):
    list_display = [
        "id",
        "name",
        "account",
        "status",
        "power_state",
        "ip_address",
        "location",
        "plan",
        "os_version",
        "hypervisor",
        "created_at",
    ]
    list_filter = [
        "status",
        "power_state",
        "suspended_for",
        SuspendedForLong,
        "location",
        "plan",
        "os_version",
        "created_at",
    ]
    list_select_related = ["account", "location", "plan", "os_version", "home__hypervisor"]
    search_fields = ["name", "hostname", "uuid", "ip_address", "ipv6_address", "account__email"]
    inlines = [OperationInline]
    actions = ["start", "stop", "reboot", "suspend", "unsuspend", "delete"]

    @admin.display(description="host", ordering="home__hypervisor")
    def hypervisor(self, server: Server) -> str:
        return server.home.hypervisor.name if server.home else "-"

    @action_on_servers("Start", "Start these servers?")
    def start(self, server: Server) -> None:
        services.start_server(server=server)

    @action_on_servers("Stop", "Have these servers shut down?")
    def stop(self, server: Server) -> None:
        services.stop_server(server=server)

    @action_on_servers("Reboot", "Have these servers shut down and started again?")
    def reboot(self, server: Server) -> None:
        services.reboot_server(server=server)

    @action_on_servers("Suspend for abuse", "Shut these servers down for abuse, until staff unsuspend them?")
    def suspend(self, server: Server) -> None:
        services.suspend_server(server=server, reason=SuspensionReason.ABUSE)

    @action_on_servers("Unsuspend", "Have these servers be what they were before they were suspended?")
    def unsuspend(self, server: Server) -> None:
        services.unsuspend_server(server=server)

    @action_on_servers(
        "Delete for good, with the disk", "Delete these servers for good? Their disks cannot be restored."
    )
    def delete(self, server: Server) -> None:
        services.delete_server(server=server)

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("servers.change_server")


admin.site.unregister(Hypervisor)


@admin.register(Hypervisor)
class HypervisorWithOperationsAdmin(HypervisorAdmin):
    """The host's page of inventory, which knows no operations, and what can be ordered of a host."""

    actions = ["check_now"]

    @action_on_each(
        "Check now: ask what it is and has",
        permission="change",
        question=None,
        done="Accepted for {count}. The answers are on their operations.",
    )
    def check_now(self, host: Hypervisor) -> None:
        services.check_hypervisor(hypervisor=host)


@admin.register(Operation)
class OperationAdmin(ReadOnlyAdmin[Operation]):
    list_display = [
        "id",
        "kind",
        "subject",
        "status",
        "step",
        "retries",
        "actor",
        "created_at",
        "finished_at",
        "error_code",
    ]
    list_filter = ["status", "kind", "hypervisor", "error_code", "created_at"]
    list_select_related = ["server", "hypervisor"]
    search_fields = ["server__name", "server__uuid", "hypervisor__name", "error_code", "actor_label"]


@admin.register(ResourceUsage)
class ResourceUsageAdmin(ReadOnlyAdmin[ResourceUsage]):
    list_display = [
        "server",
        "cpu_percent",
        "memory_used_mib",
        "disk_used_gib",
        "bandwidth_used_gb",
        "sampled_at",
    ]
    list_filter = ["sampled_at"]
    list_select_related = ["server"]
    search_fields = ["server__name", "server__uuid"]
