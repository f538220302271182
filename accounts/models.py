"""Who buys: accounts, their tokens and keys."""

from decimal import Decimal
from uuid import uuid4

import pgtrigger
from django.db import models
from django.db.models.functions import Lower, Now

from accounts.actors import LONGEST_ID, LONGEST_LABEL, Actor, ActorKind


class ActorColumns(models.Model):
    """Who made a row.  Fill the columns with ``actors.current().columns``."""

    actor_kind = models.CharField(
        max_length=16, choices=[(kind.value, kind.value) for kind in ActorKind], editable=False
    )
    actor_id = models.CharField(
        max_length=LONGEST_ID,
        editable=False,
        help_text="The token's or user's id, the operator's login name, or the name of a part of ours.",
    )
    actor_label = models.CharField(max_length=LONGEST_LABEL, editable=False, help_text="For people.")

    class Meta:
        abstract = True

    @property
    def actor(self) -> Actor:
        return Actor(ActorKind(self.actor_kind), self.actor_id, self.actor_label)


class Account(models.Model):
    """A customer.  Staff are Django's users; customers are these.

    ``balance`` and ``below_zero_since`` are written by the database itself, with
    each line of the ledger; the database refuses any other write of them.
    """

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    email = models.EmailField()
    first_name = models.CharField(max_length=100, blank=True)
    last_name = models.CharField(max_length=100, blank=True)
    company_name = models.CharField(max_length=200, blank=True)
    is_active = models.BooleanField(default=True, help_text="Off: none of its tokens is accepted.")
    max_servers = models.PositiveIntegerField(
        null=True, blank=True, help_text="How many servers it may have. Empty: VPS_MAX_SERVERS. 0: no limit."
    )
    max_open_creates = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="How many of them in the making at once. Empty: VPS_MAX_OPEN_CREATES. 0: no limit.",
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    balance = models.DecimalField(
        max_digits=20, decimal_places=4, default=Decimal(0), editable=False, help_text="The sum of its lines."
    )
    below_zero_since = models.DateTimeField(null=True, editable=False, db_index=True)
    warned_at = models.DateTimeField(
        null=True, editable=False, help_text="When it was told that its credits run out."
    )

    # Django REST framework asks this of whatever an authenticator returns.
    is_authenticated = True

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(Lower("email"), name="one_account_per_email")]
        triggers = [
            # The only writers of the two columns are the triggers of ``billing.models``: depth 2 for this.
            pgtrigger.Trigger(
                name="balance_is_the_sum",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert | pgtrigger.Update,
                func="""
                    IF TG_OP = 'INSERT' THEN
                        IF NEW.balance = 0 AND NEW.below_zero_since IS NULL THEN RETURN NEW; END IF;
                    ELSIF pg_trigger_depth() > 1 OR (NEW.balance, NEW.below_zero_since)
                        IS NOT DISTINCT FROM (OLD.balance, OLD.below_zero_since) THEN RETURN NEW;
                    END IF;
                    RAISE EXCEPTION 'a balance changes with the lines of its ledger only'
                        USING ERRCODE = 'integrity_constraint_violation';
                """,
            )
        ]

    def __str__(self) -> str:
        return self.email


class ApiToken(models.Model):
    """A bearer token.  Only the SHA-256 of its secret is stored; the secret is shown once, at its issue."""

    account = models.ForeignKey(Account, models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=12, help_text="How it begins, so that a leaked one can be found.")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    permissions = models.JSONField(
        default=list, help_text='Words such as "servers:read", "ssh_keys:*", "*:*".'
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class SshKey(models.Model):
    """A public key that can be installed on a new server."""

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    account = models.ForeignKey(Account, models.CASCADE, related_name="ssh_keys")
    name = models.CharField(max_length=100)
    public_key = models.TextField()
    fingerprint = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False, help_text="Last put on a new server.")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["account", "fingerprint"], name="one_ssh_key_per_account")
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.fingerprint})"


class IdempotentAnswer(models.Model):
    """The first answer to a POST with an Idempotency-Key, for ``accounts.access.idempotency``."""

    account = models.ForeignKey(Account, models.CASCADE)
    key = models.CharField(max_length=255)
    request = models.CharField(max_length=64, help_text="SHA-256 of method, path and body.")
    status = models.PositiveSmallIntegerField()
    body = models.TextField()
    headers = models.JSONField(default=dict)
    created_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "key"], name="one_answer_per_key")]

    def __str__(self) -> str:
        return f"{self.status} to {self.key}"
