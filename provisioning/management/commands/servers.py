from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandParser
from django.core.validators import validate_ipv46_address
from django.db.models import Q

from core import clock
from core.api.references import named_by
from core.commands import ListCommand, age_of, whole_number
from inventory.models import Port
from servers.models import Server
from servers.states import ServerStatus


class Command(ListCommand):
    help = (
        "List servers, the newest first. TEXT finds a server by its id, uuid, name, hostname, address or "
        "MAC, or those of an account by its e-mail address; without TEXT all that are not deleted. "
        "Example: manage.py servers 203.0.113.2"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("text", nargs="?", metavar="TEXT", help="what is known of it")
        parser.add_argument(
            "--status", choices=[status.value for status in ServerStatus], help="only servers in this status"
        )
        parser.add_argument("--host", metavar="NAME", help="only servers on this hypervisor")
        parser.add_argument("--limit", type=whole_number(1), default=100, metavar="N", help="at most N (100)")

    def handle(
        self,
        *args: Any,
        text: str | None,
        status: str | None,
        host: str | None,
        limit: int,
        json: bool,
        **options: Any,
    ) -> None:
        found = Server.objects.select_related("account", "location", "plan", "home__hypervisor", "port")
        if text is not None:
            found = found.filter(_known_by(text))
        elif status is None:
            found = found.exclude(status=ServerStatus.DELETED)
        if status is not None:
            found = found.filter(status=status)
        if host is not None:
            found = found.filter(home__hypervisor__name=host)
        now = clock.now()
        rows = [
            {
                "id": server.pk,
                "name": server.name,
                "status": server.status,
                "power": server.power_state,
                "ip": server.ip_address,
                "host": server.home.hypervisor.name if server.home else None,
                "location": server.location.code,
                "plan": server.plan.slug,
                "account": server.account.email,
                "age": age_of(server.created_at, now),
                "uuid": str(server.uuid),
            }
            for server in found[:limit]
        ]
        self.show(rows, as_json=json)


def _known_by(text: str) -> Q:
    try:
        validate_ipv46_address(text)
    except ValidationError:
        words = Q(name=text) | Q(hostname=text) | Q(account__email__iexact=text) | Q(port__mac=text.lower())
        return words | named_by(text)
    # A server that is being made has not shown its addresses yet; one that was deleted has lost them.
    holders = Port.objects.filter(addresses__address=text)
    return Q(ip_address=text) | Q(ipv6_address=text) | Q(port__in=holders)
