from typing import Any

from django.core.management.base import BaseCommand, CommandError

from servers import arrears, metering
from vpsorg import clock


class Command(BaseCommand):
    help = (
        "Charge every hour that has begun and was not charged yet, and see to the accounts that it leaves "
        "short: warned, suspended, or back again. Celery beat does the same every minute; to do it "
        "twice, or on two machines at once, changes nothing: one charges, the others leave. Lists what has "
        "been suspended for VPS_TERMINATE_AFTER_DAYS."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            accounts = arrears.tick()
            self.stdout.write(f"{len(accounts)} accounts charged")
        except clock.ClocksDiffer as error:
            raise CommandError(str(error)) from None
        except metering.TickUnderWay:
            self.stdout.write("Another tick is under way and charges what is due.")
        for server in (
            arrears.suspended_for_long(clock.now()).select_related("account").order_by("suspended_at")
        ):
            self.stdout.write(
                f"suspended since {server.suspended_at:%Y-%m-%d}: {server}, {server.account.email}, "
                f"{server.account.balance:.2f} credits"
            )
