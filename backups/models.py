"""What backups are: the accounts' keys, and the copies of servers' disks.  Their bytes are in the store."""

from uuid import uuid4

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from accounts.models import Account
from backups.kinds import GONE, BackupKind, BackupStatus, Verified
from images.models import Image
from plans.models import Location, OsVersion


class AccountKey(models.Model):
    """The key of all backups of one account, encrypted with VPS_BACKUP_KEY.

    Without this row no backup of the account can be read: it is never changed, and it keeps its account.
    """

    account = models.OneToOneField(Account, models.PROTECT, related_name="backup_key")
    wrapped = models.BinaryField(max_length=61, help_text="Made and opened by backups.keys.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"key of account {self.account_id}"


class Backup(models.Model):
    """One stored copy of one server's disk: an automatic or a manual backup, or a snapshot.

    It outlives its server, of which it knows the number, the uuid and the last name only.
    """

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    account = models.ForeignKey(Account, models.PROTECT, related_name="backups")
    server_id = models.BigIntegerField(help_text="The server's number.")
    server_uuid = models.UUIDField()
    server_name = models.CharField(max_length=63)
    location = models.ForeignKey(Location, models.PROTECT, help_text="Where the server was.")
    store = models.CharField(max_length=255, help_text="The address of the store that has it.")
    kind = models.CharField(max_length=16, choices=[(kind.value, kind.value) for kind in BackupKind])
    name = models.CharField(max_length=63, blank=True, help_text="Of a snapshot.")
    description = models.CharField(max_length=255, blank=True)
    status = models.CharField(
        max_length=16,
        choices=[(status.value, status.value) for status in BackupStatus],
        default=BackupStatus.IN_PROGRESS,
    )

    os_version = models.ForeignKey(OsVersion, models.PROTECT, help_text="The server's, when this was taken.")
    base_image = models.ForeignKey(
        Image,
        models.PROTECT,
        help_text="The server's, when this was taken: it says whether there is an agent.",
    )
    disk_number = models.PositiveIntegerField(help_text="Which of the server's disks it is a copy of.")
    disk_gib = models.PositiveIntegerField(help_text="A server needs so much storage to get this disk.")
    stored_as = models.UUIDField(
        null=True,
        editable=False,
        help_text="The name of its manifest. Each worker that stores it chooses one, and one counts.",
    )
    copied_as = models.UUIDField(
        null=True,
        editable=False,
        help_text="Its name on the host. Each worker that begins the copy chooses one, and one counts.",
    )
    was_running = models.BooleanField(null=True, help_text="Read while the server went on.")
    parent = models.UUIDField(null=True, help_text="Only what changed since this backup was read.")
    is_consistent = models.BooleanField(
        null=True, help_text="The guest had its file systems frozen, or the server was off."
    )
    size_bytes = models.PositiveBigIntegerField(null=True, help_text="Of the disk, without what is zero.")
    new_bytes = models.PositiveBigIntegerField(null=True, help_text="What the store grew by.")
    error_code = models.CharField(max_length=50, blank=True)
    message = models.CharField(max_length=255, blank=True, help_text="A sentence the customer may read.")

    created_at = models.DateTimeField(db_default=Now(), editable=False)
    completed_at = models.DateTimeField(null=True, editable=False)
    expires_at = models.DateTimeField(null=True, help_text="Removed by itself then. Empty: never.")
    verified_at = models.DateTimeField(null=True, editable=False, help_text="Last found whole.")
    verified_by = models.CharField(
        max_length=16,
        blank=True,
        choices=[(how.value, how.value) for how in Verified],
        help_text="How it was found whole.",
    )
    damage = models.CharField(
        max_length=255, blank=True, editable=False, help_text="What was found wrong with it. For staff."
    )
    deleted_at = models.DateTimeField(null=True, editable=False, help_text="Gone for the customer since.")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["server_id"],
                condition=Q(status=BackupStatus.IN_PROGRESS),
                name="one_backup_of_a_server_at_a_time",
            ),
            models.CheckConstraint(
                condition=~Q(status=BackupStatus.COMPLETED)
                | Q(
                    stored_as__isnull=False,
                    size_bytes__isnull=False,
                    completed_at__isnull=False,
                    verified_at__isnull=False,
                ),
                name="a_completed_backup_was_read_back",
            ),
            models.CheckConstraint(
                condition=Q(status__in=sorted(GONE), deleted_at__isnull=False)
                | Q(deleted_at=None) & ~Q(status__in=sorted(GONE)),
                name="a_backup_is_deleted_or_not",
            ),
        ]
        indexes = [
            models.Index(fields=["account", "-id"], condition=Q(deleted_at=None), name="backups_of_account"),
            models.Index(fields=["server_id", "-id"], condition=Q(deleted_at=None), name="backups_of_server"),
            models.Index(
                fields=["server_id"],
                condition=Q(status=BackupStatus.FAILED, copied_as__isnull=False),
                name="copies_left_on_hosts",
            ),
            models.Index(
                fields=["expires_at"],
                condition=Q(deleted_at=None, expires_at__isnull=False),
                name="expiring_backups",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} backup #{self.pk} of {self.server_name}"
