from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db.models import Q
from django.db.models.functions import Now

from core import clock
from core.api.references import named_by
from core.commands import ListCommand, age_of, whole_number
from servers.models import Operation, Server
from servers.states import OPEN_OPERATION, OperationStatus

PATIENCE = timedelta(minutes=5)
IS_LATE = Now() - PATIENCE
STUCK = (
    Q(deadline_at__lt=Now())
    | Q(retries__gte=5)
    | Q(due_at__lt=IS_LATE) & (Q(lease_until=None) | Q(lease_until__lt=IS_LATE))
)


class Command(ListCommand):
    help = (
        "List operations, the newest first, with their step and their error. --stuck lists those that a "
        "person should look at: open past their deadline, retried five times or more, or due for five "
        "minutes without a worker. "
        "Example: manage.py operations --stuck"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--stuck", action="store_true", help="those that do not get on")
        parser.add_argument("--open", action="store_true", help="those that have not ended")
        parser.add_argument("--failed", action="store_true", help="those that failed")
        parser.add_argument("--server", metavar="ID", help="those of this server, by its id or uuid")
        parser.add_argument("--limit", type=whole_number(1), default=100, metavar="N", help="at most N (100)")

    def handle(
        self,
        *args: Any,
        stuck: bool,
        failed: bool,
        server: str | None,
        limit: int,
        json: bool,
        **options: Any,
    ) -> None:
        found = Operation.objects.select_related("server", "hypervisor")
        if server is not None:
            about = Server.objects.filter(named_by(server)).first()
            if about is None:
                raise CommandError(f"There is no server {server}.")
            found = found.filter(server=about)
        if stuck or options["open"]:
            found = found.filter(status__in=OPEN_OPERATION)
        if failed:
            found = found.filter(status=OperationStatus.FAILED)
        if stuck:
            found = found.filter(STUCK)
        now = clock.now()
        rows = [
            {
                "id": operation.pk,
                "kind": operation.kind,
                "subject": operation.subject_name,
                "status": operation.status,
                "step": operation.step,
                "in step": age_of(operation.step_since if operation.status in OPEN_OPERATION else None, now),
                "retries": operation.retries,
                "age": age_of(operation.created_at, now),
                "by": operation.actor_label,
                "error": operation.error_code,
            }
            for operation in found[:limit]
        ]
        self.show(rows, as_json=json)
