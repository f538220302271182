"""Shared code of this room's commands."""

from typing import Any

from django.core.management.base import CommandError

from accounts.models import Account
from backups.errors import BackupError
from core.commands import OurCommand


class BackupCommand(OurCommand):
    """The base of all commands about backups: what the store refuses is said in one sentence."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except BackupError as error:
            raise CommandError(str(error)) from None


def account_named(email: str) -> Account:
    account = Account.objects.filter(email__iexact=email).first()
    if account is None:
        raise CommandError(f"There is no account {email}.")
    return account
