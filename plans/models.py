"""What is sold: locations, plans and operating systems."""

from uuid import uuid4

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import ForeignObjectRel, Q, QuerySet

from core.env import is_store_address
from core.errors import NotAllowedNow
from images.models import Image


def _store_address(value: str) -> None:
    if not is_store_address(value):
        raise ValidationError("Should be /a/folder or s3://BUCKET/PREFIX.")


class Location(models.Model):
    """A data centre.  Customers name it by its code (contract: ``us-west``)."""

    code = models.SlugField(max_length=32, unique=True)
    name = models.CharField(max_length=100)
    country_name = models.CharField(max_length=100)
    country_code = models.CharField(max_length=2)
    is_active = models.BooleanField(default=True, help_text="New servers may be made here.")
    backup_store = models.CharField(
        max_length=255,
        blank=True,
        validators=[_store_address],
        help_text=(
            "Where new backups go: a folder that the workers here share, or s3://BUCKET/PREFIX. "
            "Empty: VPS_BACKUP_STORE."
        ),
    )

    class Meta:
        ordering = ["code"]

    def __str__(self) -> str:
        return self.code


SIZES = ("vcpus", "memory_mib", "disk_gib", "speed_mbps")


class Plan(models.Model):
    """A size of a server, and its price in credits.

    The size of a plan that was sold never changes (``SoldPlan`` in servers holds it): another size is another
    plan, and the old one is switched off.
    """

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    name = models.CharField(max_length=100)
    slug = models.SlugField(max_length=50, unique=True)
    description = models.CharField(max_length=255, blank=True)
    vcpus = models.PositiveIntegerField(validators=[MinValueValidator(1)])
    memory_mib = models.PositiveIntegerField(validators=[MinValueValidator(128)])
    disk_gib = models.PositiveIntegerField(validators=[MinValueValidator(1)])
    bandwidth_gb = models.PositiveIntegerField(validators=[MinValueValidator(1)], help_text="GB a month.")
    speed_mbps = models.PositiveIntegerField(
        default=1000,
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="The network card's limit, Mbit/s. Empty: none.",
    )
    backups_daily = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Days that an automatic backup is kept. Empty: VPS_BACKUPS_DAILY."
    )
    backups_weekly = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        help_text="Weeks that the first automatic backup of a week is kept. Empty: VPS_BACKUPS_WEEKLY.",
    )
    price_monthly = models.DecimalField(max_digits=10, decimal_places=2, validators=[MinValueValidator(0)])
    price_hourly = models.DecimalField(max_digits=10, decimal_places=4, validators=[MinValueValidator(0)])
    is_active = models.BooleanField(default=True, help_text="On sale.")

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(price_hourly__gt=0, price_monthly__gt=0) | Q(price_hourly=0, price_monthly=0),
                name="both_prices_of_a_plan_or_none",
                violation_error_message=(
                    "The prices for an hour and for a month should both be more than 0; "
                    "a plan that costs nothing has 0 in both."
                ),
            ),
            models.CheckConstraint(
                condition=Q(vcpus__gte=1, memory_mib__gte=1, disk_gib__gte=1, bandwidth_gb__gte=1)
                & (Q(speed_mbps__gte=1) | Q(speed_mbps=None)),
                name="a_plan_has_some_of_everything",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Refuses another size for a plan that anything refers to."""
        kept = Plan.objects.filter(pk=self.pk).values(*SIZES).first()
        changed = [name for name, value in (kept or {}).items() if value != getattr(self, name)]
        if changed and any(self._is_named_in(relation) for relation in self._meta.related_objects):
            sentence = "Servers were sold with this. Make a new plan, and switch this one off."
            raise ValidationError(dict.fromkeys(changed, sentence))

    def _is_named_in(self, relation: ForeignObjectRel) -> bool:
        rows: QuerySet[models.Model] = relation.related_model._default_manager.all()
        return rows.filter(**{relation.field.name: self}).exists()


class OperatingSystem(models.Model):
    """A family of versions: Debian, Ubuntu."""

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    name = models.CharField(max_length=100, unique=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class OsVersion(models.Model):
    """What a customer chooses by ``os_id``.  It is on offer once it has an image."""

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    operating_system = models.ForeignKey(OperatingSystem, models.PROTECT, related_name="versions")
    name = models.CharField(max_length=100, unique=True, help_text="The full name: Debian 12.")
    is_active = models.BooleanField(default=True, help_text="On offer, if there is an image.")
    image = models.ForeignKey(
        Image,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="os_versions",
        help_text="What new servers with this system start from.",
    )

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.name

    @property
    def image_to_start_from(self) -> Image:
        """Raises NotAllowedNow for a system that has none."""
        if self.image is None:
            raise NotAllowedNow("This system is not on offer at the moment.", code="not_on_offer")
        return self.image
