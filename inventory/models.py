"""Where servers can run, and what is claimed there.  The database refuses to oversell."""

from ipaddress import ip_network
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

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
        default=True, editable=False, help_text="It can start machines: its storage pool and network are on."
    )
    silences = models.PositiveIntegerField(
        default=0, editable=False, help_text="How often in a row it did not answer; see contact.py."
    )
    ask_again_at = models.DateTimeField(
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


TAKES_NEW_SERVERS = Q(status=Hypervisor.Status.ENABLED, is_reachable=True, is_ready=True)


class Placement(models.Model):
    """A claim on one host: what a server takes there until its last trace is gone."""

    hypervisor = models.ForeignKey(Hypervisor, models.PROTECT, related_name="placements")
    vcpus = models.PositiveIntegerField()
    memory_mib = models.PositiveIntegerField()
    disk_gib = models.PositiveIntegerField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.vcpus} vCPU, {self.memory_mib} MiB, {self.disk_gib} GiB"

    @property
    def mac(self) -> str:
        """The network card's address, unique because the row's id is: ``52:54`` and the id's last 32 bits."""
        tail = (self.pk & 0xFFFFFFFF).to_bytes(4, "big")
        return ":".join(f"{byte:02x}" for byte in b"\x52\x54" + tail)


class IpPool(models.Model):
    """A network whose addresses servers of a location get.  Its rows of addresses are made with it."""

    location = models.ForeignKey(Location, models.PROTECT, related_name="ip_pools")
    network = models.CharField(max_length=50, unique=True, help_text="203.0.113.0/24 or 2001:db8::/64")
    gateway = models.GenericIPAddressField()
    nameservers = models.JSONField(default=list, blank=True, help_text="Addresses that guests resolve by.")
    family = models.PositiveSmallIntegerField(choices=[(4, "IPv4"), (6, "IPv6")], editable=False)
    is_active = models.BooleanField(default=True)

    class Meta:
        ordering = ["network"]
        verbose_name = "IP pool"

    def __str__(self) -> str:
        return self.network

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.family = ip_network(self.network).version
        super().save(*args, **kwargs)

    def clean(self) -> None:
        try:
            network = ip_network(self.network)
        except ValueError:
            raise ValidationError({"network": "Should be a network such as 203.0.113.0/24."}) from None
        self.family = network.version


class IpAddress(models.Model):
    """One address of a pool.  Free when it has no placement, has rested and is not reserved."""

    pool = models.ForeignKey(IpPool, models.CASCADE, related_name="addresses")
    address = models.GenericIPAddressField(unique=True)
    placement = models.ForeignKey(
        Placement, models.PROTECT, null=True, blank=True, editable=False, related_name="addresses"
    )
    rests_until = models.DateTimeField(default=timezone.now)
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
                condition=Q(placement=None, is_reserved=False),
                name="free_ip_addresses",
            )
        ]

    def __str__(self) -> str:
        return str(self.address)
