from typing import Any, TypeVar

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from core.admin import EditAdmin
from plans.models import Location, OperatingSystem, OsVersion, Plan

Row = TypeVar("Row", bound=Model)


class SwitchedOffAdmin(EditAdmin[Row]):
    """Rows are deactivated, never deleted: an operation in progress may still refer to one."""

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Location)
class LocationAdmin(EditAdmin[Location]):
    list_display = ["code", "name", "country_name", "is_active"]
    list_filter = ["is_active"]
    search_fields = ["code", "name", "country_name"]


@admin.register(Plan)
class PlanAdmin(SwitchedOffAdmin[Plan]):
    list_display = ["name", "vcpus", "memory_mib", "disk_gib", "price_monthly", "price_hourly", "is_active"]
    list_filter = ["is_active"]
    search_fields = ["name", "slug"]
    readonly_fields = ["uuid"]


@admin.register(OperatingSystem)
class OperatingSystemAdmin(EditAdmin[OperatingSystem]):
    list_display = ["name", "uuid"]
    search_fields = ["name"]
    readonly_fields = ["uuid"]


@admin.register(OsVersion)
class OsVersionAdmin(SwitchedOffAdmin[OsVersion]):
    list_display = ["name", "operating_system", "is_active", "image"]
    list_filter = ["is_active", "operating_system"]
    list_select_related = ["operating_system", "image"]
    search_fields = ["name", "image__sha256"]
    # manage.py import_image sets the image.
    readonly_fields = ["uuid", "image"]
