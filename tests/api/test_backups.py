"""Backups and snapshots over HTTP: the contract's shapes, its 404s, and what is refused."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from backups.kinds import BackupKind, BackupStatus
from backups.models import Backup
from core import clock
from servers import backup_schedule, backup_services, lifecycle, services
from servers.models import Operation, Server
from servers.services import COPY_LIMIT_S
from servers.states import OPEN_OPERATION, BackupOperationKind
from tests.api.conftest import Broker
from tests.api.contract import is_refusal, is_validation_error
from tests.conftest import Customer
from tests.factories import BackupFactory, ServerFactory, WebhookFactory, complete_backup
from webhooks.models import WebhookDelivery

EXAMPLES = Path(__file__).parent / "examples"
BOTH = pytest.mark.parametrize("what", ["backup", "snapshot"])


def example(name: str) -> Any:
    return json.loads((EXAMPLES / f"{name}.json").read_text())


def beginning_of(answer: dict[str, Any], shown: dict[str, Any]) -> None:
    """The contract's fields come first and in its order; ours may follow, before its ``message``."""
    fields = [name for name in shown if name != "message"]
    assert list(answer)[: len(fields)] == fields
    assert ("message" in shown) == ("message" in answer)


@pytest.fixture
def server(alice: Customer, shop: dict[str, Any]) -> Server:
    """An active server with a claim, as a create leaves it."""
    row = Server.objects.get(pk=alice.post("/servers/", shop | {"name": "web-server-01"}).json()["id"])
    operation = lifecycle.begin(Operation.objects.get(server=row).pk)
    assert operation is not None
    lifecycle.succeed(operation)
    row.refresh_from_db()
    return row


def new(what: str, server: Server, **more: Any) -> dict[str, Any]:
    return (
        {"server_id": server.pk} | ({"name": "pre-migration-snapshot"} if what == "snapshot" else {}) | more
    )


def test_the_list_of_backups_is_the_contracts(alice: Customer) -> None:
    server = ServerFactory.create(account=alice.account)
    BackupFactory.create(
        pk=501,
        server=server,
        kind=BackupKind.AUTOMATIC,
        size_bytes=4523 * 2**20,
        created_at=datetime(2025, 1, 16, 3, tzinfo=UTC),
        expires_at=datetime(2025, 2, 16, 3, tzinfo=UTC),
        description="Automatic daily backup",
    )
    shown, told = example("backups-list"), alice.get("/backups/").json()
    [item], [shown_item] = told["results"], shown["results"]
    beginning_of(item, shown_item)
    shown_item["server"] = {"id": server.pk, "name": server.name}
    assert {name: item[name] for name in shown_item} == shown_item
    assert list(told) == list(shown)


def test_a_new_snapshot_is_the_contracts(alice: Customer, server: Server) -> None:
    answer = alice.post("/snapshots/", new("snapshot", server))
    shown, told = example("snapshot-create"), answer.json()
    assert answer.status_code == 201
    beginning_of(told, shown)
    shown |= {"id": told["id"], "created_at": told["created_at"]}
    shown["server"] = {"id": server.pk, "name": server.name}
    assert {name: told[name] for name in shown} == shown
    assert answer["Location"].endswith(f"/snapshots/{told['id']}/")
    assert alice.get(answer["Location"].removeprefix("/api/v1")).json() == {
        name: value for name, value in told.items() if name != "message"
    }


def test_a_restore_is_the_contracts(alice: Customer, server: Server) -> None:
    copy = complete_backup(server, BackupKind.SNAPSHOT)
    Backup.objects.filter(pk=copy.pk).update(name="pre-migration-snapshot")
    shown = example("snapshot-restore")
    answer = alice.post(f"/snapshots/{copy.pk}/restore/")
    told = answer.json()
    shown["snapshot"] |= {"id": copy.pk, "created_at": told["snapshot"]["created_at"]}
    shown["server"] |= {"id": server.pk, "name": server.name}
    assert told == shown
    assert alice.get(f"/servers/{server.pk}/").json()["status"] == "restoring"
    operation = alice.get(answer["Location"].removeprefix("/api/v1")).json()
    assert (operation["kind"], operation["status"]) == ("restore", "queued")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", {"automatic", "manual", "other"}),
        ("?backup_type=automatic", {"automatic"}),
        ("?backup_type=manual", {"manual", "other"}),
        ("?server_id={server}", {"automatic", "manual"}),
        ("?server_id={server}&backup_type=manual", {"manual"}),
        ("?server_id={bobs}", set()),
        ("?server_id=9223372036854775807", set()),
    ],
)
def test_backups_are_filtered(
    alice: Customer, customer: Callable[..., Customer], query: str, found: set[str]
) -> None:
    server, other = (ServerFactory.create(account=alice.account) for _ in range(2))
    bobs = ServerFactory.create(account=customer().account)
    BackupFactory.create(server=server, kind=BackupKind.AUTOMATIC, description="automatic")
    BackupFactory.create(server=server, description="manual")
    BackupFactory.create(server=other, description="other")
    BackupFactory.create(server=other, kind=BackupKind.SNAPSHOT, description="snapshot")
    BackupFactory.create(server=bobs, description="bobs")
    told = alice.get("/backups/" + query.format(server=server.pk, bobs=bobs.pk)).json()
    assert {item["description"] for item in told["results"]} == found


@pytest.mark.parametrize(
    "query", ["server_id=0", "server_id=x", "server_id=99999999999999999999", "backup_type=x"]
)
def test_a_filter_that_means_nothing_is_refused(alice: Customer, query: str) -> None:
    answer = alice.get(f"/backups/?{query}")
    assert answer.status_code == 400
    assert is_validation_error(answer.json(), query.partition("=")[0])


@BOTH
def test_a_server_of_somebody_else_is_not_there(
    alice: Customer, customer: Callable[..., Customer], what: str
) -> None:
    bobs = ServerFactory.create(account=customer().account)
    for named in (bobs.pk, str(bobs.uuid), 2**40):
        answer = alice.post(f"/{what}s/", new(what, bobs, server_id=named))
        assert answer.status_code == 404
        assert is_refusal(answer.json(), "not_found")
    assert not Backup.objects.exists()


@BOTH
def test_a_copy_of_somebody_else_is_no_source_of_a_server(
    alice: Customer, shop: dict[str, Any], customer: Callable[..., Customer], what: str
) -> None:
    kind = BackupKind.SNAPSHOT if what == "snapshot" else BackupKind.MANUAL
    bobs = BackupFactory.create(server__account=customer().account, kind=kind)
    hers = BackupFactory.create(server__account=alice.account, kind=kind)
    of_other_kind = BackupFactory.create(
        server__account=alice.account,
        kind=BackupKind.MANUAL if what == "snapshot" else BackupKind.SNAPSHOT,
    )
    body = {name: value for name, value in shop.items() if name != "os_id"}
    for named in (bobs.pk, str(bobs.uuid), of_other_kind.pk, 2**40):
        answer = alice.post("/servers/", body | {f"{what}_id": named})
        assert answer.status_code == 404
        assert is_refusal(answer.json(), "not_found")
    for named in (hers.pk, str(hers.uuid)):
        assert alice.post("/servers/", body | {f"{what}_id": named}).status_code == 201
    made = Operation.objects.latest("pk")
    assert made.wish == {"backup_id": hers.pk}


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"snapshot_id": 1}, "backup_id"),
        ({"os_id": "another"}, "os_id"),
        ({"backup_id": "x"}, "backup_id"),
    ],
)
def test_a_source_that_contradicts_is_refused(
    alice: Customer, shop: dict[str, Any], more: dict[str, Any], field: str
) -> None:
    from tests.factories import OsVersionFactory

    copy = BackupFactory.create(server__account=alice.account)
    snapshot = BackupFactory.create(server__account=alice.account, kind=BackupKind.SNAPSHOT)
    body = {name: value for name, value in shop.items() if name != "os_id"} | {"backup_id": copy.pk} | more
    if "snapshot_id" in more:
        body["snapshot_id"] = snapshot.pk
    if more.get("os_id") == "another":
        body["os_id"] = OsVersionFactory.create(name="Debian 12").pk
    answer = alice.post("/servers/", body)
    assert answer.status_code == 400
    assert is_validation_error(answer.json(), field)


def test_a_plan_needs_the_storage_of_the_copy(alice: Customer, shop: dict[str, Any]) -> None:
    copy = BackupFactory.create(server__account=alice.account, disk_gib=10_000)
    answer = alice.post("/servers/", shop | {"backup_id": copy.pk})
    assert answer.status_code == 400
    assert answer.json() == {"plan_id": ["This needs 10000 GB of storage."]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "server_id"),
        ({"server_id": "x"}, "server_id"),
        ({"server_id": True}, "server_id"),
        ({"server_id": None}, "server_id"),
        ({"description": "x" * 256}, "description"),
        ({"description": 1}, "description"),
        ({"description": "\0"}, "description"),
        ({"colour": "red"}, "colour"),
    ],
)
@BOTH
def test_a_wrong_order_is_refused_by_its_field(
    alice: Customer, server: Server, what: str, body: dict[str, Any], field: str
) -> None:
    sound = new(what, server)
    if not body:
        del sound["server_id"]
    answer = alice.post(f"/{what}s/", sound | body)
    assert answer.status_code == 400
    assert is_validation_error(answer.json(), field)
    assert not Backup.objects.exists()


@pytest.mark.parametrize("name", ["", "-x", "x-", "a b", "x" * 64, "ü", 7, None, "<b>", "x\n"])
def test_a_snapshots_name_is_letters_digits_hyphens_and_underscores(
    alice: Customer, server: Server, name: Any
) -> None:
    answer = alice.post("/snapshots/", {"server_id": server.pk, "name": name})
    assert answer.status_code == 400
    assert is_validation_error(answer.json(), "name")


def test_the_clients_paths_make_the_same_rows(alice: Customer, server: Server) -> None:
    first = alice.post(f"/servers/{server.uuid}/backup/")
    assert first.status_code == 201
    assert alice.post(f"/servers/{server.uuid}/snapshot/").status_code == 409
    Backup.objects.update(status=BackupStatus.FAILED)
    named = alice.post(f"/servers/{server.uuid}/snapshot/", {"label": "before it all"}).json()
    Backup.objects.update(status=BackupStatus.FAILED)
    nameless = alice.post(f"/servers/{server.uuid}/snapshot/").json()
    assert (named["name"], nameless["name"][:9]) == ("before it all", "snapshot-")
    kinds = list(Backup.objects.order_by("pk").values_list("kind", flat=True))
    assert kinds == ["manual", "snapshot", "snapshot"]


@pytest.mark.parametrize("path", ["backups", "snapshots", "backup", "snapshot"])
def test_the_order_of_a_copy_that_is_gone_is_not_answered_as_before(
    alice: Customer, server: Server, path: str
) -> None:
    """Guard: ``require_still_true``."""
    where = f"/{path}/" if path.endswith("s") else f"/servers/{server.pk}/{path}/"
    asked = new(path.removesuffix("s"), server) if path.endswith("s") else None
    made = alice.post(where, asked, HTTP_IDEMPOTENCY_KEY="once")
    assert made.status_code == 201
    backup_services.delete_backup(backup=Backup.objects.get())
    assert alice.post(where, asked, HTTP_IDEMPOTENCY_KEY="once").status_code == 410


@BOTH
def test_a_repeated_order_makes_one_copy(alice: Customer, server: Server, what: str) -> None:
    first, again = (
        alice.post(f"/{what}s/", new(what, server), HTTP_IDEMPOTENCY_KEY="once") for _ in range(2)
    )
    assert first.json() == again.json()
    assert Backup.objects.count() == 1


def test_a_worker_of_backups_is_told_when_it_is_committed(
    alice: Customer, server: Server, broker: Broker
) -> None:
    messages = broker.after_commit_of(lambda: alice.post("/backups/", new("backup", server)))
    operation = Operation.objects.get(kind=BackupOperationKind.TAKE)
    assert messages == [("provisioning.carry_out", [operation.pk])]
    assert broker.sent_to == [("backups.us-west", COPY_LIMIT_S)]


LONG = {"time_limit": COPY_LIMIT_S}


@pytest.mark.parametrize(
    ("order", "limit"),
    [
        (lambda server: services.reboot_server(server=server), {}),
        (lambda server: backup_services.restore_backup(backup=complete_backup(server)), LONG),
        (
            lambda server: services.create_server(
                **{name: getattr(server, name) for name in ("account", "plan", "os_version", "location")},
                name="twin",
                backup=complete_backup(server),
            ),
            LONG,
        ),
    ],
    ids=["reboot", "restore", "create"],
)
def test_who_copies_a_disk_has_longer_and_takes_no_worker_of_backups(
    server: Server, order: Callable[[Server], Any], limit: dict[str, int]
) -> None:
    order(server)
    assert services.sent_with(Operation.objects.latest("pk")) == {"queue": "provision.us-west"} | limit


def test_who_listens_hears_that_a_backup_is_complete_or_failed(alice: Customer, server: Server) -> None:
    WebhookFactory.create(account=alice.account, events=["backup.completed", "backup.failed"])
    complete_backup(server)
    backup = backup_services.take_backup(server=server, kind=BackupKind.SNAPSHOT, name="x")
    operation = lifecycle.begin(Operation.objects.get(backup=backup).pk)
    assert operation is not None
    lifecycle.give_up(operation, lifecycle.Failure("pool_full", "There is no room."))
    lifecycle.fail(operation, None)  # type: ignore[arg-type]
    told = [json.loads(delivery.body) for delivery in WebhookDelivery.objects.order_by("pk")]
    assert [message["type"] for message in told] == ["backup.completed", "backup.failed"]
    assert told[1]["data"]["message"] == "There is no room."
    assert told[1]["data"]["server"]["id"] == server.pk
    item = alice.get(f"/snapshots/{backup.pk}/").json()
    assert item["error"] == {"code": "pool_full", "message": "There is no room."}


# Automatic backups.


def due(server: Server) -> Server:
    Server.objects.filter(pk=server.pk).update(backup_due_at=clock.now() - timedelta(minutes=1))
    server.refresh_from_db()
    return server


def fail(backup: Backup) -> None:
    operation = lifecycle.begin(Operation.objects.get(backup=backup, status__in=OPEN_OPERATION).pk)
    assert operation is not None
    lifecycle.give_up(operation, lifecycle.Failure("pool_full", "There is no room."))
    lifecycle.fail(operation, None)  # type: ignore[arg-type]


def test_each_server_has_a_moment_of_its_own_in_the_window(settings: Any) -> None:
    settings.VPS_BACKUP_WINDOW_MINUTES = 60
    noon = datetime(2026, 3, 10, 12, tzinfo=UTC)
    moments = {backup_schedule.next_moment(pk, noon) for pk in range(1, 500)}
    assert len(moments) > 400
    assert min(moments) >= datetime(2026, 3, 11, 3, tzinfo=UTC)
    assert max(moments) < datetime(2026, 3, 11, 4, tzinfo=UTC)
    settings.VPS_BACKUP_WINDOW_MINUTES = 0
    early = datetime(2026, 3, 10, 2, 59, tzinfo=UTC)
    assert backup_schedule.next_moment(7, early) == datetime(2026, 3, 10, 3, tzinfo=UTC)
    assert backup_schedule.next_moment(7, early + timedelta(minutes=1)) == datetime(
        2026, 3, 11, 3, tzinfo=UTC
    )


def test_a_server_is_backed_up_when_its_moment_has_come_and_then_the_next_day(
    alice: Customer, server: Server
) -> None:
    alice.patch(f"/servers/{server.pk}/", {"backups_enabled": True})
    assert backup_services.take_due_backups() == 0
    due(server)
    assert backup_services.take_due_backups() == 1
    assert backup_services.take_due_backups() == 0
    server.refresh_from_db()
    assert server.backup_due_at is not None
    assert server.backup_due_at > clock.now()
    [item] = alice.get("/backups/").json()["results"]
    assert (item["backup_type"], item["description"]) == ("automatic", "Automatic daily backup")
    assert item["expires_at"] is not None


def test_a_backup_has_its_hours_from_its_beginning(server: Server) -> None:
    """Hundreds may wait for one host.  Guard: ``deadline_at`` in ``lifecycle.begin``."""
    backup = backup_services.take_backup(server=server, kind=BackupKind.MANUAL)
    rows = Operation.objects.filter(backup=backup)
    rows.update(created_at=Now() - timedelta(hours=11), deadline_at=Now() + timedelta(hours=1))
    operation = lifecycle.begin(rows.get().pk)
    assert operation is not None
    assert operation.deadline_at is not None
    assert operation.deadline_at - clock.now() > timedelta(hours=11.9)
    lifecycle.postpone(operation, 0)
    again = lifecycle.begin(operation.pk)
    assert again is not None
    assert again.deadline_at == operation.deadline_at


def test_a_moment_that_is_too_far_away_comes_from_a_wrong_clock(alice: Customer, server: Server) -> None:
    """Guard: ``FURTHEST``."""
    alice.patch(f"/servers/{server.pk}/", {"backups_enabled": True})
    Server.objects.filter(pk=server.pk).update(backup_due_at=clock.now() + timedelta(days=365))
    assert backup_services.take_due_backups() == 1
    server.refresh_from_db()
    assert server.backup_due_at is not None
    assert server.backup_due_at < clock.now() + timedelta(days=1, minutes=1)


def test_what_cannot_be_taken_stays_due(
    alice: Customer, server: Server, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.VPS_BACKUP_KEY = b""
    there = due(server)
    assert backup_services.take_due_backups() == 0
    assert "VPS_BACKUP_KEY is not set" in caplog.text
    moment, there.backup_due_at = there.backup_due_at, None
    there.refresh_from_db()
    assert there.backup_due_at == moment


def test_what_is_switched_off_is_backed_up_no_more(alice: Customer, server: Server) -> None:
    alice.patch(f"/servers/{server.pk}/", {"backups_enabled": True})
    alice.patch(f"/servers/{server.pk}/", {"backups_enabled": False})
    server.refresh_from_db()
    assert server.backup_due_at is None


def test_a_backup_that_failed_is_taken_once_more_and_then_the_next_day(
    alice: Customer, server: Server
) -> None:
    """Guard: ``catch_up``."""
    alice.patch(f"/servers/{server.pk}/", {"backups_enabled": True})
    waits = []
    for _ in range(2):
        due(server)
        assert backup_services.take_due_backups() == 1
        fail(Backup.objects.latest("pk"))
        server.refresh_from_db()
        assert server.backup_due_at is not None
        waits.append(server.backup_due_at - clock.now())
    tomorrow = backup_schedule.next_moment(server.pk, clock.now()) - clock.now()
    assert waits[0] <= min(timedelta(hours=1), tomorrow + timedelta(seconds=5))
    assert abs(waits[1] - tomorrow) < timedelta(seconds=5)


def test_the_first_of_a_week_is_kept_longer(server: Server, settings: Any) -> None:
    monday = datetime(2026, 3, 9, 4, tzinfo=UTC)
    assert backup_schedule.keep_until(server, monday) == monday + timedelta(days=28)
    kept = complete_backup(server)
    Backup.objects.filter(pk=kept.pk).update(created_at=monday)
    tuesday = monday + timedelta(days=1)
    assert backup_schedule.keep_until(server, tuesday) == tuesday + timedelta(days=7)
    server.plan.backups_daily, server.plan.backups_weekly = 3, 1
    assert backup_schedule.keep_until(server, tuesday) == tuesday + timedelta(days=3)
    next_monday = monday + timedelta(days=7)
    assert backup_schedule.keep_until(server, next_monday) == next_monday + timedelta(days=7)


def test_what_was_to_be_kept_until_now_goes_and_the_last_one_stays(alice: Customer, server: Server) -> None:
    """Guard: ``is_last`` in ``expired``: when backups fail for weeks an old one is better than none."""
    old = timezone.now() - timedelta(minutes=1)
    first, last = (
        BackupFactory.create(server=server, kind=BackupKind.AUTOMATIC, expires_at=old) for _ in range(2)
    )
    kept = BackupFactory.create(server=server)
    gone = ServerFactory.create(account=alice.account, deleted_at=old, status="deleted")
    of_gone = BackupFactory.create(server=gone, kind=BackupKind.AUTOMATIC, expires_at=old)
    assert backup_services.remove_expired_backups() == 2
    left = set(Backup.objects.filter(deleted_at=None).values_list("pk", flat=True))
    assert left == {last.pk, kept.pk}
    assert not {first.pk, of_gone.pk} & left


def test_a_sound_backup_stays_when_the_newer_ones_are_damaged(server: Server) -> None:
    """Guard: ``damage`` in ``whole_automatic_backups``."""
    old = timezone.now() - timedelta(minutes=1)
    sound = BackupFactory.create(server=server, kind=BackupKind.AUTOMATIC, expires_at=old)
    BackupFactory.create(server=server, kind=BackupKind.AUTOMATIC, damage="is bad")
    assert backup_services.remove_expired_backups() == 0
    BackupFactory.create(server=server, kind=BackupKind.AUTOMATIC)
    assert backup_services.remove_expired_backups() == 1
    sound.refresh_from_db()
    assert sound.deleted_at is not None


def test_where_there_is_no_key_nothing_is_switched_on(
    alice: Customer, server: Server, shop: dict[str, Any], settings: Any
) -> None:
    settings.VPS_BACKUP_KEY = b""
    for answer in (
        alice.post("/servers/", shop | {"backups_enabled": True}),
        alice.patch(f"/servers/{server.pk}/", {"backups_enabled": True}),
        alice.post("/backups/", new("backup", server)),
    ):
        assert answer.status_code == 400
        assert answer.json()["code"] == "backups_unavailable"
    assert alice.post("/servers/", shop | {"backups_enabled": False}).status_code == 201
