from typing import Any

from django.core.management.base import CommandError, CommandParser

from core.commands import OurCommand, whole_number
from servers import services
from servers.models import Operation
from servers.states import OPEN_OPERATION


class Command(OurCommand):
    help = (
        "Have operations tried at once that wait for their next try: when what they failed at is mended, a "
        "host or a store, say. manage.py operations --stuck lists them. Ends with status 1 if one of them is "
        "over or a worker is at it. Example: manage.py retry_operation 1017 1020"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ids", nargs="+", type=whole_number(1), metavar="ID", help="which operations")

    def handle(self, *args: Any, ids: list[int], **options: Any) -> None:
        refused = []
        for number in ids:
            operation = Operation.objects.select_related("server", "hypervisor", "backup").filter(pk=number)
            if (found := operation.first()) is None:
                refused.append(f"There is no operation {number}.")
            elif services.retry_now(found):
                self.stdout.write(f"operation {number}, {found.kind} of {found.subject_name}, is tried now")
            elif found.status in OPEN_OPERATION:
                refused.append(f"A worker is at operation {number}.")
            else:
                refused.append(f"Operation {number} is over: it {found.status}.")
        if refused:
            raise CommandError(" ".join(refused))
