"""Where servers can run, and what is claimed there.  The database refuses to oversell."""

from ipaddress import ip_network
from typing import Any

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import RangeOperators
from django.contrib.postgres.indexes import OpClass
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Cast, Now

from images.models import Image
from plans.models import Location


class Hypervisor(models.Model):
    """A libvirt host.  Capacities are what may be sold, used ones the sum of its placements."""

    class DomainType(models.TextChoices):
        KVM = "kvm", "KVM"
        QEMU = "qemu", "QEMU (software emulation)"
        TEST = "test", "libvirt's test driver"

    class Status(models.TextChoices):
        ENABLED = "enabled"
        DRAINING = "draining"  # what runs goes on, nothing new comes
        DISABLED = "disabled"

    name = models.SlugField(max_length=64, unique=True)
    location = models.ForeignKey(Location, models.PROTECT, related_name="hypervisors")
    uri = models.CharField(max_length=255, unique=True, help_text="libvirt's, such as qemu+ssh://host/system")
    host_uuid = models.UUIDField(
        "host UUID",
        null=True,
        unique=True,
        editable=False,
        help_text="The host's own identity. Another host that answers at the URI is left alone.",
    )
    domain_type = models.CharField(max_length=8, choices=DomainType.choices, default=DomainType.KVM)
    storage_pool = models.CharField(max_length=64, default="default")
    network = models.CharField(max_length=64, default="default", help_text="libvirt's name of the network.")
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.ENABLED)

    vcpus = models.PositiveIntegerField(help_text="For sale, overcommitment included.")
    memory_mib = models.PositiveIntegerField(help_text="For sale.")
    disk_gib = models.PositiveIntegerField(help_text="For sale, by allocation.")
    vcpus_used = models.PositiveIntegerField(default=0, editable=False)
    memory_mib_used = models.PositiveIntegerField(default=0, editable=False)
    disk_gib_used = models.PositiveIntegerField(default=0, editable=False)

    max_operations = models.PositiveSmallIntegerField(
        default=4, validators=[MinValueValidator(1)], help_text="How many may be under way on it at once."
    )

    is_reachable = models.BooleanField(default=True, editable=False)
    is_ready = models.BooleanField(
        default=True,
        editable=False,
        help_text="Nothing is wrong there that keeps new servers away; see the last error.",
    )
    failures = models.PositiveIntegerField(
        default=0, editable=False, help_text="How often in a row it did not answer; see health.py."
    )
    retry_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="Set: it is silent, and left alone until then."
    )
    last_seen_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_error = models.TextField(blank=True, editable=False)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(condition=Q(vcpus_used__lte=F("vcpus")), name="vcpus_not_oversold"),
            models.CheckConstraint(
                condition=Q(memory_mib_used__lte=F("memory_mib")), name="memory_not_oversold"
            ),
            models.CheckConstraint(condition=Q(disk_gib_used__lte=F("disk_gib")), name="disk_not_oversold"),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Refuses to sell less than servers have.  True until the row changes: lock it first."""
        sold = {name: getattr(self, f"{name}_used") for name in ("vcpus", "memory_mib", "disk_gib")}
        less = {
            name: f"Servers have {used} of it: sell at least as much."
            for name, used in sold.items()
            if (for_sale := getattr(self, name)) is not None and for_sale < used
        }
        if less:
            raise ValidationError(less)


TAKES_NEW_SERVERS = Q(status=Hypervisor.Status.ENABLED, is_reachable=True, is_ready=True)


class Placement(models.Model):
    """A claim of room on one host.  A server has one as its home, and a second while it moves."""

    hypervisor = models.ForeignKey(Hypervisor, models.PROTECT, related_name="placements")
    vcpus = models.PositiveIntegerField()
    memory_mib = models.PositiveIntegerField()
    disk_gib = models.PositiveIntegerField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.vcpus} vCPU, {self.memory_mib} MiB, {self.disk_gib} GiB"


class Port(models.Model):
    """A network card: its MAC, and the addresses that point at it.  It outlives the host that it is on."""

    class Network(models.TextChoices):
        PUBLIC = "public", "the network that Hypervisor.network names"

    mac = models.CharField(
        max_length=17,
        unique=True,
        validators=[RegexValidator(r"\A[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z", "Should be a MAC in lower case.")],
    )
    network = models.CharField(
        max_length=16,
        choices=Network.choices,
        default=Network.PUBLIC,
        help_text="Each host says what libvirt calls it there.",
    )
    was_used = models.BooleanField(
        default=False, help_text="A machine was started with it: its addresses rest after it."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.mac


class ImageCopy(models.Model):
    """A host has this image, whole.  Reconcile keeps these rows what the host says."""

    hypervisor = models.ForeignKey(Hypervisor, models.CASCADE, related_name="image_copies")
    image = models.ForeignKey(Image, models.PROTECT, related_name="copies")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "image copies"
        constraints = [
            models.UniqueConstraint(fields=["hypervisor", "image"], name="one_copy_of_an_image_on_a_host")
        ]

    def __str__(self) -> str:
        return f"{self.image} on {self.hypervisor}"


class IpPool(models.Model):
    """A network whose addresses servers of a location get.  ``inventory.pools`` makes them."""

    location = models.ForeignKey(Location, models.PROTECT, related_name="ip_pools")
    network = models.CharField(max_length=50, unique=True, help_text="203.0.113.0/24 or 2001:db8::/64")
    gateway = models.GenericIPAddressField()
    nameservers = models.JSONField(default=list, blank=True, help_text="Addresses that guests resolve by.")
    family = models.PositiveSmallIntegerField(choices=[(4, "IPv4"), (6, "IPv6")], editable=False)
    is_active = models.BooleanField(default=True)
    next_address = models.GenericIPAddressField(
        null=True, editable=False, help_text="The first address without a row; none: all have theirs."
    )

    class Meta:
        ordering = ["network"]
        verbose_name = "IP pool"
        constraints = [
            ExclusionConstraint(
                name="ip_pools_do_not_overlap",
                expressions=[
                    (
                        OpClass(Cast("network", models.GenericIPAddressField()), name="inet_ops"),
                        RangeOperators.OVERLAPS,
                    )
                ],
            )
        ]

    def __str__(self) -> str:
        return self.network

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.family = ip_network(self.network).version
        super().save(*args, **kwargs)


class IpAddress(models.Model):
    """One address of a pool.  Free when it has no port, has rested and is not reserved."""

    pool = models.ForeignKey(IpPool, models.CASCADE, related_name="addresses")
    address = models.GenericIPAddressField(unique=True)
    port = models.ForeignKey(
        Port, models.PROTECT, null=True, blank=True, editable=False, related_name="addresses"
    )
    rests_until = models.DateTimeField(db_default=Now())
    is_reserved = models.BooleanField(
        default=False, help_text="Never given out. A server that holds it keeps it until it is deleted."
    )

    class Meta:
        ordering = ["id"]
        verbose_name = "IP address"
        verbose_name_plural = "IP addresses"
        indexes = [
            models.Index(
                fields=["pool", "rests_until"],
                condition=Q(port=None, is_reserved=False),
                name="free_ip_addresses",
            )
        ]

    def __str__(self) -> str:
        return str(self.address)
