from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from inventory.models import Hypervisor, IpAddress, IpPool, Placement
from vpsorg.admin_site import ReadOnlyAdmin


@admin.register(Hypervisor)
class HypervisorAdmin(admin.ModelAdmin[Hypervisor]):
    """Added by manage.py add_hypervisor, which asks the host; drained and disabled here."""

    list_display = [
        "name",
        "location",
        "domain_type",
        "status",
        "is_reachable",
        "is_ready",
        "memory",
        "vcpu",
        "disk",
    ]
    list_filter = ["status", "is_reachable", "is_ready", "location", "domain_type"]
    list_select_related = ["location"]
    search_fields = ["name", "uri"]
    readonly_fields = [
        "vcpus_used",
        "memory_mib_used",
        "disk_gib_used",
        "is_reachable",
        "is_ready",
        "silences",
        "ask_again_at",
        "last_seen_at",
        "last_error",
    ]

    @admin.display(description="memory, MiB", ordering="memory_mib_used")
    def memory(self, host: Hypervisor) -> str:
        return f"{host.memory_mib_used} of {host.memory_mib}"

    @admin.display(description="vCPUs", ordering="vcpus_used")
    def vcpu(self, host: Hypervisor) -> str:
        return f"{host.vcpus_used} of {host.vcpus}"

    @admin.display(description="disk, GiB", ordering="disk_gib_used")
    def disk(self, host: Hypervisor) -> str:
        return f"{host.disk_gib_used} of {host.disk_gib}"


@admin.register(Placement)
class PlacementAdmin(ReadOnlyAdmin[Placement]):
    list_display = ["id", "hypervisor", "vcpus", "memory_mib", "disk_gib", "mac", "created_at"]
    list_filter = ["hypervisor"]
    list_select_related = ["hypervisor"]
    search_fields = ["hypervisor__name", "addresses__address"]


@admin.register(IpPool)
class IpPoolAdmin(admin.ModelAdmin[IpPool]):
    """Added and changed by manage.py add_ip_pool, which makes and keeps back the addresses too."""

    list_display = ["network", "location", "family", "gateway", "is_active"]
    list_filter = ["family", "location", "is_active"]
    list_select_related = ["location"]
    search_fields = ["network", "gateway"]
    readonly_fields = ["network", "family", "gateway", "nameservers", "location"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(IpAddress)
class IpAddressAdmin(ReadOnlyAdmin[IpAddress]):
    list_display = ["address", "pool", "placement", "rests_until", "is_reserved"]
    list_filter = ["pool", "is_reserved", ("placement", admin.EmptyFieldListFilter)]
    list_select_related = ["pool", "placement"]
    search_fields = ["address"]
