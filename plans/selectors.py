"""Named querysets."""

from django.db.models import QuerySet

from plans.models import OsVersion


def versions_on_offer() -> QuerySet[OsVersion]:
    """The systems that a customer may choose: active ones that have an image."""
    return OsVersion.objects.filter(is_active=True).exclude(image=None)
