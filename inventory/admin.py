from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from core.admin import EditAdmin, ReadOnlyAdmin
from inventory.models import Hypervisor, ImageCopy, IpAddress, IpPool, Placement, Port
from inventory.pools import counted, counts_of


@admin.register(Hypervisor)
class HypervisorAdmin(EditAdmin[Hypervisor]):
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
        "host_uuid",
        "vcpus_used",
        "memory_mib_used",
        "disk_gib_used",
        "is_reachable",
        "is_ready",
        "failures",
        "retry_at",
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

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody: a form cannot ask the host for its UUID, without which the host could be sold twice."""
        return False


@admin.register(Placement)
class PlacementAdmin(ReadOnlyAdmin[Placement]):
    list_display = ["id", "hypervisor", "vcpus", "memory_mib", "disk_gib", "created_at"]
    list_filter = ["hypervisor"]
    list_select_related = ["hypervisor"]
    search_fields = ["hypervisor__name"]


@admin.register(Port)
class PortAdmin(ReadOnlyAdmin[Port]):
    list_display = ["mac", "network", "was_used", "created_at"]
    list_filter = ["network", "was_used"]
    search_fields = ["mac", "addresses__address"]


@admin.register(ImageCopy)
class ImageCopyAdmin(ReadOnlyAdmin[ImageCopy]):
    list_display = ["image", "hypervisor", "created_at"]
    list_filter = ["hypervisor"]
    list_select_related = ["image", "hypervisor"]
    search_fields = ["image__sha256", "hypervisor__name"]


@admin.register(IpPool)
class IpPoolAdmin(EditAdmin[IpPool]):
    """Added and changed by manage.py add_ip_pool, which checks them; switched off here."""

    list_display = ["network", "location", "family", "gateway", "usable", "free", "is_active"]
    list_filter = ["family", "location", "is_active"]
    list_select_related = ["location"]
    search_fields = ["network", "gateway"]
    readonly_fields = ["network", "family", "gateway", "nameservers", "location", "usable", "free"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[IpPool]:
        return counted(super().get_queryset(request))

    @admin.display(description="for servers")
    def usable(self, pool: IpPool) -> int:
        return counts_of(pool).usable

    @admin.display(description="of these free")
    def free(self, pool: IpPool) -> int:
        return counts_of(pool).free

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(IpAddress)
class IpAddressAdmin(ReadOnlyAdmin[IpAddress]):
    list_display = ["address", "pool", "port", "rests_until", "is_reserved"]
    list_filter = ["pool", "is_reserved", ("port", admin.EmptyFieldListFilter)]
    list_select_related = ["pool", "port"]
    search_fields = ["address"]
