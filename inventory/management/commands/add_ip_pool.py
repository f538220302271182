from typing import Any

from django.core.management.base import CommandError, CommandParser

from core.commands import OurCommand
from inventory.networks import network_from
from inventory.pools import add_ip_pool, counts_of
from plans.models import Location


class Command(OurCommand):
    help = (
        "Give a location a network whose addresses its servers get. A server gets one address of each family "
        "that its location has. May be repeated: an existing pool gets what it lacks, its gateway and "
        "nameservers become those given, and an address that was ever kept back stays so until --unreserve. "
        "Example: manage.py add_ip_pool --location us-west --network 203.0.113.0/24 --gateway 203.0.113.1"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--location", required=True, metavar="CODE", help="us-west")
        parser.add_argument("--network", required=True, help="203.0.113.0/24 or 2001:db8::/64")
        parser.add_argument(
            "--gateway",
            required=True,
            help="the guests' router; never given out. In the network, a link-local IPv6 address, or, "
            "of a network that is a single address, any neighbour",
        )
        parser.add_argument(
            "--nameserver", action="append", default=[], help="may be repeated; never given out"
        )
        parser.add_argument("--reserve", action="append", default=[], help="an address never given out")
        parser.add_argument(
            "--unreserve", action="append", default=[], help="an address that may be given out again"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        location = Location.objects.filter(code=options["location"]).first()
        if location is None:
            raise CommandError(
                f"There is no location {options['location']}. manage.py load_catalogue makes some."
            )
        pool = add_ip_pool(
            location=location,
            network=network_from(options["network"]),
            gateway=options["gateway"],
            nameservers=options["nameserver"],
            reserved=set(options["reserve"]),
            unreserved=options["unreserve"],
        )
        for held in pool.addresses.filter(is_reserved=True).exclude(port=None):
            self.stderr.write(f"{held} is kept back, but a server holds it until it is deleted.")
        self.stdout.write(f"{pool}: {counts_of(pool).usable} addresses in {location}")
