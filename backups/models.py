"""The keys of accounts.  What they encrypt is in the store, not in Postgres."""

from django.db import models
from django.db.models.functions import Now

from accounts.models import Account


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
