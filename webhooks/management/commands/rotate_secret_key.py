from typing import Any

from django.core.management.base import CommandError

from core.commands import OurCommand
from webhooks.services import reseal_secrets


class Command(OurCommand):
    help = (
        "After a change of VPS_SECRET_KEY: encrypt the secrets of webhooks with the new key, so that "
        "VPS_OLD_SECRET_KEYS can be emptied. Customers notice nothing. Run it when every process has the "
        "new key; it may be repeated. Ends with status 1 if there are secrets that no key opens. "
        "Example: manage.py rotate_secret_key"
    )

    def handle(self, *args: Any, **options: Any) -> None:
        done, unreadable = reseal_secrets()
        self.stdout.write(f"{done} secrets of webhooks were encrypted anew")
        if unreadable:
            raise CommandError(
                f"No key opens the secrets of {unreadable} webhooks: put the key that they were encrypted "
                "with into VPS_OLD_SECRET_KEYS, or have their customers replace them."
            )
