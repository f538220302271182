"""What is sold: places, sizes and systems."""

from uuid import uuid4

from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q


class Location(models.Model):
    """A data centre.  Customers name it by its code (contract: ``us-west``)."""

    code = models.SlugField(max_length=32, unique=True)
    name = models.CharField(max_length=100)
    country_name = models.CharField(max_length=100)
    country_code = models.CharField(max_length=2)
    is_active = models.BooleanField(default=True, help_text="New servers may be made here.")

    class Meta:
        ordering = ["code"]

    def __str__(self) -> str:
        return self.code


class Plan(models.Model):
    """A size of server and its price in credits."""

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    name = models.CharField(max_length=100)
    slug = models.SlugField(max_length=50, unique=True)
    description = models.CharField(max_length=255, blank=True)
    vcpus = models.PositiveIntegerField(validators=[MinValueValidator(1)])
    memory_mib = models.PositiveIntegerField(validators=[MinValueValidator(128)])
    disk_gib = models.PositiveIntegerField(validators=[MinValueValidator(1)])
    bandwidth_gb = models.PositiveIntegerField(help_text="GB a month.")
    speed_mbps = models.PositiveIntegerField(default=1000, help_text="The network card's limit, Mbit/s.")
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
            )
        ]

    def __str__(self) -> str:
        return self.name


class OperatingSystem(models.Model):
    """A family of versions: Debian, Ubuntu."""

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    name = models.CharField(max_length=100, unique=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class OsVersion(models.Model):
    """What a customer chooses by ``os_id``.  It is on offer once it has an image.

    The image is a qcow2 file in ``VPS_IMAGE_DIR``, named by its SHA-256.
    """

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    operating_system = models.ForeignKey(OperatingSystem, models.PROTECT, related_name="versions")
    name = models.CharField(max_length=100, unique=True, help_text="The full name: Debian 12.")
    is_active = models.BooleanField(default=True, help_text="On offer, if there is an image.")
    image_sha256 = models.CharField(
        max_length=64,
        blank=True,
        validators=[RegexValidator(r"\A[0-9a-f]{64}\Z", "Should be 64 lower-case hexadecimal digits.")],
    )
    min_disk_gib = models.PositiveIntegerField(default=1, help_text="The image's virtual size, GiB.")
    has_agent = models.BooleanField(
        default=True, help_text="The image runs the QEMU guest agent: a server is active once it answers."
    )

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.name
