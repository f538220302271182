"""What is owned.  Fields and constraints; the verbs are in ``lifecycle`` and ``services``."""

from enum import StrEnum
from uuid import uuid4

import pgtrigger
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Now

from accounts.models import Account, ActorColumns
from backups.models import Backup
from core.errors import NotAllowedNow
from core.leases import LeasedWork, under_way
from images.models import Image
from inventory.models import Hypervisor, Placement, Port
from plans.models import SIZES, Location, OsVersion, Plan
from servers.states import (
    OPEN_OPERATION,
    BackupOperationKind,
    HostOperationKind,
    OperationKind,
    OperationStatus,
    PowerState,
    ServerStatus,
    SuspensionReason,
)
from servers.wishes import Kind, Wish, wish_of


def _choices(words: type[StrEnum]) -> list[tuple[str, str]]:
    return [(word.value, word.value) for word in words]


class Server(models.Model):
    """A customer's machine.

    Three questions, three columns: what was promised (``status``), what is being
    done (the open operation), what the host last said (``power_state``).
    Only ``lifecycle`` writes them.
    """

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    account = models.ForeignKey(Account, models.PROTECT, related_name="servers")
    name = models.CharField(max_length=63)
    hostname = models.CharField(max_length=253)
    plan = models.ForeignKey(Plan, models.PROTECT)
    os_version = models.ForeignKey(OsVersion, models.PROTECT)
    base_image = models.ForeignKey(
        Image, models.PROTECT, editable=False, help_text="What its disk is based on."
    )
    disk_number = models.PositiveIntegerField(
        default=1, editable=False, help_text="Which disk is its own: each rebuild makes the next one."
    )
    disk_needs_image = models.BooleanField(
        default=True, editable=False, help_text="A disk that was made from a backup stands alone."
    )
    location = models.ForeignKey(Location, models.PROTECT)
    home = models.OneToOneField(
        Placement, models.PROTECT, null=True, editable=False, help_text="Its claim on the host that it is on."
    )
    incoming = models.OneToOneField(
        Placement,
        models.PROTECT,
        null=True,
        editable=False,
        related_name="arriving_server",
        help_text="Its claim on the host that it is moving to.",
    )
    port = models.OneToOneField(
        Port,
        models.PROTECT,
        null=True,
        editable=False,
        help_text="Its network card, on whichever host it is.",
    )
    authorized_keys = models.JSONField(default=list, editable=False)
    backups_enabled = models.BooleanField(default=False)
    backup_due_at = models.DateTimeField(
        null=True, editable=False, help_text="When the next automatic backup begins. Empty: none."
    )

    status = models.CharField(max_length=16, choices=_choices(ServerStatus), editable=False)
    power_state = models.CharField(
        max_length=16, choices=_choices(PowerState), default=PowerState.UNKNOWN, editable=False
    )
    observed_at = models.DateTimeField(null=True, editable=False)
    written_at = models.DateTimeField(
        db_default=Now(),
        editable=False,
        help_text="When lifecycle last wrote. What a host said before that is out of date.",
    )
    suspended_for = models.CharField(
        max_length=16, choices=_choices(SuspensionReason), blank=True, editable=False
    )
    suspended_from = models.CharField(
        max_length=16, blank=True, editable=False, help_text="Its status before the suspension."
    )
    suspended_at = models.DateTimeField(null=True, editable=False, help_text="Its guest is off since.")
    ip_address = models.GenericIPAddressField(null=True, editable=False)
    ipv6_address = models.GenericIPAddressField(null=True, editable=False)
    guest_addresses = ArrayField(
        models.CharField(max_length=45),
        default=list,
        editable=False,
        help_text="What its guest showed besides our addresses when it came up.",
    )

    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)
    deleted_at = models.DateTimeField(null=True, editable=False, help_text="Gone for the customer since.")

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["account", "-id"], condition=Q(deleted_at=None), name="servers_of_account"),
            models.Index(
                fields=["backup_due_at"], condition=Q(backup_due_at__isnull=False), name="backups_due"
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(incoming=None) | Q(home=None) | ~Q(incoming=F("home")),
                name="a_server_moves_to_another_placement",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} (#{self.pk})"

    @property
    def claim(self) -> Placement:
        """The server's claim on its host.  Raises NotAllowedNow for a server that failed or is deleted."""
        if self.home is None:
            raise NotAllowedNow("This server holds no place on a host.", code="no_placement")
        return self.home


class SoldPlan(Plan):
    """A plan as servers see it: once sold, or once a resize leads to it, its size cannot change."""

    class Meta:
        proxy = True
        triggers = [
            pgtrigger.Trigger(
                name="size_of_a_sold_plan_stays",
                when=pgtrigger.Before,
                operation=pgtrigger.Update,
                condition=pgtrigger.AnyChange(*SIZES),
                func=f"""
                    IF EXISTS (SELECT FROM servers_server WHERE plan_id = OLD.id)
                        OR EXISTS (
                            SELECT FROM servers_operation
                            WHERE status IN ({", ".join(f"'{word}'" for word in sorted(OPEN_OPERATION))})
                            AND kind = '{OperationKind.RESIZE}' AND (wish ->> 'plan_id')::bigint = OLD.id
                        )
                    THEN
                        RAISE EXCEPTION 'the size of a plan that was sold stays: make a new plan'
                            USING ERRCODE = 'integrity_constraint_violation';
                    END IF;
                    RETURN NEW;
                """,  # noqa: S608
            )
        ]


class WrongSubject(ValueError):
    """An operation was taken for one about something else, a host for a server, say: a bug of ours."""


class Operation(LeasedWork, ActorColumns):
    """One thing asked of one server, one host or one backup: the customer's receipt, the worker's order.

    Operations are never edited back or deleted; together they are the history of
    their subject.  The constraints are the lock: a server does one thing at a time, and
    so do a host and a backup.
    """

    OPEN = Q(status__in=sorted(OPEN_OPERATION))

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    server = models.ForeignKey(
        Server,
        models.PROTECT,
        null=True,
        related_name="operations",
        help_text="What it is about; none: it is about the host, or a backup.",
    )
    backup = models.ForeignKey(
        Backup, models.PROTECT, null=True, related_name="operations", help_text="What it is about."
    )
    hypervisor = models.ForeignKey(
        Hypervisor,
        models.PROTECT,
        null=True,
        related_name="operations",
        help_text="Where the work is done; none for a server that held no place when this was ordered.",
    )
    trial_room = models.ForeignKey(
        Placement,
        models.PROTECT,
        null=True,
        related_name="trials",
        help_text="What a machine holds that is started to see whether a backup boots. It has our uuid.",
    )
    kind = models.CharField(
        max_length=16,
        choices=[
            *_choices(OperationKind),
            *_choices(HostOperationKind),
            *_choices(BackupOperationKind),
        ],
    )
    wish = models.JSONField(default=dict, help_text="See servers/wishes.py.")
    status = models.CharField(
        max_length=16, choices=_choices(OperationStatus), default=OperationStatus.QUEUED
    )
    status_before = models.CharField(
        max_length=16, blank=True, choices=_choices(ServerStatus), help_text="The server's."
    )

    step = models.CharField(max_length=50, blank=True)
    step_since = models.DateTimeField(null=True)
    pressed_at = models.DateTimeField(null=True, help_text="When the guest was last asked to shut down.")
    progress = models.PositiveSmallIntegerField(default=0, help_text="Percent of its steps.")
    retries = models.PositiveIntegerField(default=0)
    deadline_at = models.DateTimeField(null=True)

    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    error_code = models.CharField(max_length=50, blank=True)
    message = models.CharField(max_length=255, blank=True, help_text="A sentence the customer may read.")
    error_detail = models.TextField(blank=True, help_text="For staff.")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["server"],
                condition=Q(status__in=sorted(OPEN_OPERATION)),
                name="one_open_operation_per_server",
            ),
            models.UniqueConstraint(
                fields=["hypervisor"],
                condition=Q(server=None, backup=None, status__in=sorted(OPEN_OPERATION)),
                name="one_open_operation_per_host",
            ),
            models.UniqueConstraint(
                fields=["backup"],
                condition=Q(status__in=sorted(OPEN_OPERATION)),
                name="one_open_operation_per_backup",
            ),
            models.CheckConstraint(
                condition=Q(server__isnull=False, backup=None)
                | Q(server=None, backup__isnull=False)
                | Q(server=None, backup=None, hypervisor__isnull=False),
                name="an_operation_is_about_one_thing",
            ),
        ]
        indexes = [
            models.Index(
                fields=["due_at"], condition=Q(status__in=sorted(OPEN_OPERATION)), name="open_operations"
            ),
            models.Index(
                fields=["hypervisor", "started_at", "due_at"],
                condition=Q(status__in=sorted(OPEN_OPERATION)),
                name="open_operations_of_host",
            ),
            models.Index(
                fields=["lease_until"], condition=Q(lease_until__isnull=False), name="held_operations"
            ),
            models.Index(
                fields=["finished_at"], condition=Q(finished_at__isnull=False), name="ended_operations"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} #{self.pk}"

    @classmethod
    def may_begin(cls) -> Q:
        """No worker still holds another operation on the same server, such as one that a delete cancelled.

        The same holds for a backup.
        """
        others = under_way(cls.objects.exclude(pk=OuterRef("pk")))
        of_server = others.filter(server=OuterRef("server"))
        of_backup = others.filter(backup=OuterRef("backup"))
        return Q(~Exists(of_server)) & Q(~Exists(of_backup))

    @property
    def subject(self) -> Server | Hypervisor | Backup:
        return self.server or self.backup or self.subject_hypervisor

    @property
    def subject_server(self) -> Server:
        """The server that it is about.  Raises WrongSubject."""
        if self.server is None:
            raise WrongSubject(f"{self} is not about a server")
        return self.server

    @property
    def subject_server_id(self) -> int:
        """Asks the database nothing.  Raises WrongSubject."""
        if self.server_id is None:
            raise WrongSubject(f"{self} is not about a server")
        return self.server_id

    @property
    def subject_hypervisor(self) -> Hypervisor:
        """The host that it is about.  Raises WrongSubject."""
        if self.server_id is not None or self.backup_id is not None or self.hypervisor is None:
            raise WrongSubject(f"{self} is not about a host")
        return self.hypervisor

    @property
    def subject_backup(self) -> Backup:
        """The backup that it is about.  Raises WrongSubject."""
        if self.backup is None:
            raise WrongSubject(f"{self} is not about a backup")
        return self.backup

    @property
    def subject_name(self) -> str:
        """For logs: ``server <uuid>``, ``backup <uuid>`` or ``host <name>``."""
        if self.backup:
            return f"backup {self.backup.uuid}"
        return f"server {self.server.uuid}" if self.server else f"host {self.hypervisor}"

    @property
    def typed_kind(self) -> Kind:
        if self.backup_id is not None:
            return BackupOperationKind(self.kind)
        return HostOperationKind(self.kind) if self.server_id is None else OperationKind(self.kind)

    @property
    def typed_wish(self) -> Wish:
        return wish_of(self.typed_kind, self.wish)


class ResourceUsage(models.Model):
    """A server's last sample, and what it has moved this month.  Written often, so in a table of its own."""

    server = models.OneToOneField(Server, models.CASCADE, related_name="usage")
    sampled_at = models.DateTimeField(null=True)
    cpu_percent = models.FloatField(default=0.0)
    memory_used_mib = models.PositiveIntegerField(default=0)
    disk_used_gib = models.PositiveIntegerField(default=0)
    month = models.DateField(null=True, help_text="The month that the two sums belong to.")
    received_bytes = models.PositiveBigIntegerField(default=0)
    sent_bytes = models.PositiveBigIntegerField(default=0)
    last_cpu_time_ns = models.PositiveBigIntegerField(default=0)
    last_received_bytes = models.PositiveBigIntegerField(default=0)
    last_sent_bytes = models.PositiveBigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "resource usage"

    def __str__(self) -> str:
        return f"{self.cpu_percent:.1f} % CPU, {self.memory_used_mib} MiB"

    @property
    def bandwidth_used_gb(self) -> int:
        return bandwidth_gb(self.received_bytes, self.sent_bytes)


def bandwidth_gb(received_bytes: int, sent_bytes: int) -> int:
    """The traffic of a month that counts: the larger of the two, in whole GB (the provider's rule)."""
    return max(received_bytes, sent_bytes) // 10**9
