from typing import Any

from django.core.management.base import CommandError

from billing import metering
from core import clock
from core.commands import OurCommand
from servers import dunning


class Command(OurCommand):
    help = (
        "Charge every hour that has begun and was not charged yet, and see to the accounts that it leaves "
        "short: warned, suspended, or back again. The scheduler does the same every minute; to do it "
        "twice, or on two machines at once, changes nothing: each hour is charged once. Lists what has "
        "been suspended for VPS_TERMINATE_AFTER_DAYS."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            accounts = dunning.tick()
            self.stdout.write(f"{len(accounts)} accounts charged")
        except clock.ClocksDiffer as error:
            raise CommandError(str(error)) from None
        except metering.TickInProgress:
            self.stdout.write("Other ticks are under way and charge what is due.")
        for server in (
            dunning.suspended_for_long(clock.now()).select_related("account").order_by("suspended_at")
        ):
            self.stdout.write(
                f"suspended since {server.suspended_at:%Y-%m-%d}: {server}, {server.account.email}, "
                f"{server.account.balance:.2f} credits"
            )
