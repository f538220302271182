"""What staff see of servers and may do to them: by the services, like everybody else."""

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from servers import arrears, services
from servers.models import Meter, Operation, Rate, ResourceUsage, Server
from servers.states import SuspensionReason
from vpsorg import clock
from vpsorg.admin_site import ReadOnlyAdmin
from vpsorg.errors import Refusal


class OperationInline(admin.TabularInline[Operation, Server]):
    model = Operation
    fields = ["kind", "status", "step", "retries", "requested_by", "created_at", "finished_at", "message"]
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
        return queryset & arrears.suspended_for_long(clock.now()) if self.value() else queryset


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
    list_select_related = ["account", "location", "plan", "os_version", "placement__hypervisor"]
    search_fields = ["name", "hostname", "uuid", "ip_address", "ipv6_address", "account__email"]
    inlines = [OperationInline]
    actions = ["start", "stop", "reboot", "suspend", "unsuspend", "delete"]

    @admin.display(description="host", ordering="placement__hypervisor")
    def hypervisor(self, server: Server) -> str:
        return server.placement.hypervisor.name if server.placement else "-"

    @admin.action(description="Start", permissions=["operate"])
    def start(self, request: HttpRequest, queryset: QuerySet[Server]) -> None:
        self._each(request, queryset, services.start_server)

    @admin.action(description="Stop", permissions=["operate"])
    def stop(self, request: HttpRequest, queryset: QuerySet[Server]) -> None:
        self._each(request, queryset, services.stop_server)

    @admin.action(description="Reboot", permissions=["operate"])
    def reboot(self, request: HttpRequest, queryset: QuerySet[Server]) -> None:
        self._each(request, queryset, services.reboot_server)

    @admin.action(description="Suspend for abuse", permissions=["operate"])
    def suspend(self, request: HttpRequest, queryset: QuerySet[Server]) -> None:
        self._each(request, queryset, partial(services.suspend_server, reason=SuspensionReason.ABUSE))

    @admin.action(description="Unsuspend", permissions=["operate"])
    def unsuspend(self, request: HttpRequest, queryset: QuerySet[Server]) -> None:
        self._each(request, queryset, services.unsuspend_server)

    @admin.action(description="Delete for good, with the disk", permissions=["operate"])
    def delete(self, request: HttpRequest, queryset: QuerySet[Server]) -> None:
        self._each(request, queryset, services.delete_server)

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("servers.change_server")

    def _each(
        self, request: HttpRequest, servers: QuerySet[Server], service: Callable[..., Operation | None]
    ) -> None:
        """Ask for it server by server, and say of each that refused why."""
        accepted = 0
        for server in servers:
            try:
                service(server=server, requested_by=f"staff {request.user}")
                accepted += 1
            except Refusal as refusal:
                self.message_user(request, f"{server}: {refusal.sentence}", messages.WARNING)
        if accepted:
            self.message_user(request, f"Accepted for {accepted}. See their operations for how it goes.")


@admin.register(Operation)
class OperationAdmin(ReadOnlyAdmin[Operation]):
    list_display = [
        "id",
        "kind",
        "server",
        "status",
        "step",
        "retries",
        "requested_by",
        "created_at",
        "finished_at",
        "error_code",
    ]
    list_filter = ["status", "kind", "error_code", "created_at"]
    list_select_related = ["server"]
    search_fields = ["server__name", "server__uuid", "error_code", "requested_by"]


@admin.register(Rate)
class RateAdmin(ReadOnlyAdmin[Rate]):
    list_display = ["server", "since", "price_hourly", "price_monthly", "backups_hourly", "backups_monthly"]
    list_filter = ["since"]
    list_select_related = ["server"]
    search_fields = ["server__name", "server__uuid"]


@admin.register(Meter)
class MeterAdmin(ReadOnlyAdmin[Meter]):
    list_display = ["server", "began_at", "next_at"]
    list_filter = ["next_at"]
    list_select_related = ["server"]
    search_fields = ["server__name", "server__uuid"]


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
