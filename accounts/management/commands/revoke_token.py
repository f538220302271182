from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts.models import ApiToken
from accounts.services import digest_of, revoke_token
from core.commands import OurCommand


class Command(OurCommand):
    help = (
        "Revoke an API token at once: requests with it are answered 401 from now on. Name it by the "
        "beginning that the admin and GET /account/me/ show (vps_4W7t8kct), or give - and the whole token on "
        "standard input, where no list of processes shows it. Example: manage.py revoke_token vps_4W7t8kct"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("token", metavar="PREFIX|-", help="vps_ and eight characters, or - to read it")

    def handle(self, *args: Any, token: str, **options: Any) -> None:
        if token == "-":  # noqa: S105  (not a password)
            named = ApiToken.objects.filter(digest=digest_of(input().strip()))
        else:
            named = ApiToken.objects.filter(prefix=token)
        found = list(named.select_related("account")[:2])
        if not found:
            raise CommandError("There is no such token.")
        if len(found) > 1:
            raise CommandError("Several tokens begin so: revoke it in the admin site.")
        revoke_token(token=found[0])
        self.stdout.write(f"{found[0].name} of {found[0].account.email} is revoked")
