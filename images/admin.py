from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from core.admin import EditAdmin
from images.models import Image


@admin.register(Image)
class ImageAdmin(EditAdmin[Image]):
    """Taken in by manage.py import_image, which reads the file; here only ``has_agent`` can be corrected."""

    list_display = ["sha256", "format", "source", "size_bytes", "minimum_disk_gib", "has_agent", "created_at"]
    list_filter = ["source", "has_agent"]
    search_fields = ["sha256"]
    readonly_fields = [
        "sha256",
        "format",
        "source",
        "size_bytes",
        "virtual_size_bytes",
        "minimum_disk_gib",
        "created_at",
    ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
