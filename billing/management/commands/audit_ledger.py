from typing import Any

from django.core.management.base import CommandError

from billing.ledger_audit import findings
from core.commands import OurCommand


class Command(OurCommand):
    help = (
        "Count everything again: each balance against the sum of its lines, each charge against the rates "
        "of its meter. Prints what does not add up, one finding a line, its code first, and then ends with "
        "status 1; docs/billing.md says what each code means. Changes no line."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        found = 0
        for finding in findings():
            self.stdout.write(str(finding))
            found += 1
        if found:
            raise CommandError(f"{found} findings.", returncode=1)
        self.stdout.write("Everything adds up.")
