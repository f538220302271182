"""What disks start from: files that are known by their content and never change."""

from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models.functions import Now


class Image(models.Model):
    """One file, known by its SHA-256.  It is in ``VPS_IMAGE_DIR``, and on the hosts that needed it."""

    class Format(models.TextChoices):
        QCOW2 = "qcow2", "qcow2"

    class Source(models.TextChoices):
        SYSTEM = "system", "a system image, taken in by import_image"
        SERVER = "server", "a copy of a server's disk"

    sha256 = models.CharField(
        "SHA-256",
        max_length=64,
        unique=True,
        validators=[RegexValidator(r"\A[0-9a-f]{64}\Z", "Should be 64 lower-case hexadecimal digits.")],
    )
    format = models.CharField(max_length=8, choices=Format.choices, default=Format.QCOW2)
    source = models.CharField(max_length=8, choices=Source.choices, default=Source.SYSTEM)
    size_bytes = models.PositiveBigIntegerField(help_text="Of the file.")
    virtual_size_bytes = models.PositiveBigIntegerField(help_text="Of the disk that it shows to a guest.")
    minimum_disk_gib = models.PositiveIntegerField(
        validators=[MinValueValidator(1)], help_text="A plan needs so much storage, GiB."
    )
    has_agent = models.BooleanField(
        default=True, help_text="It runs the QEMU guest agent: a server is active once the agent answers."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.sha256[:12]
