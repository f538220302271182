from django.contrib import admin

from plans.models import Location, OperatingSystem, OsVersion, Plan


@admin.register(Location)
class LocationAdmin(admin.ModelAdmin[Location]):
    list_display = ["code", "name", "country_name", "is_active"]
    list_filter = ["is_active"]
    search_fields = ["code", "name", "country_name"]


@admin.register(Plan)
class PlanAdmin(admin.ModelAdmin[Plan]):
    list_display = ["name", "vcpus", "memory_mib", "disk_gib", "price_monthly", "price_hourly", "is_active"]
    list_filter = ["is_active"]
    search_fields = ["name", "slug"]
    readonly_fields = ["uuid"]


@admin.register(OperatingSystem)
class OperatingSystemAdmin(admin.ModelAdmin[OperatingSystem]):
    list_display = ["name", "uuid"]
    search_fields = ["name"]
    readonly_fields = ["uuid"]


@admin.register(OsVersion)
class OsVersionAdmin(admin.ModelAdmin[OsVersion]):
    list_display = ["name", "operating_system", "is_active", "has_agent", "image_sha256"]
    list_filter = ["is_active", "has_agent", "operating_system"]
    list_select_related = ["operating_system"]
    search_fields = ["name", "image_sha256"]
    # manage.py import_image sets these, from the image itself.
    readonly_fields = ["uuid", "image_sha256", "min_disk_gib"]
