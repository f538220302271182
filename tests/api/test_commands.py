"""What operators do by hand: done, may be repeated, or refused with one sentence."""

import hashlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
from argparse import Action
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta
from decimal import Decimal
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from ipaddress import ip_address, ip_network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from django.apps import apps
from django.core.management import (
    BaseCommand,
    CommandError,
    call_command,
    get_commands,
    load_command_class,
)
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Account, ApiToken
from accounts.services import digest_of, issue_token
from billing import metering
from billing.models import Payment, Usage
from core.commands import OurCommand
from deploy.local.processes import wait_for
from images.models import Image
from inventory.models import Hypervisor, IpAddress, IpPool, Port
from inventory.services import claim, make_port, recount, remove_port
from plans.models import Location, OperatingSystem, OsVersion, Plan
from plans.selectors import versions_on_offer
from provisioning import images
from provisioning.drivers.base import ImageInvalid
from provisioning.drivers.libvirt import LibvirtDriver
from servers import tasks
from tests.api.conftest import Broker
from tests.factories import (
    AccountFactory,
    HypervisorFactory,
    ImageFactory,
    LocationFactory,
    OperationFactory,
    OsVersionFactory,
    ServerFactory,
)
from tests.flows.test_dunning import begun
from tests.private_services import POSTGRES

PROJECT = Path(__file__).parents[2]
OUR_APPS = {app.name for app in apps.get_app_configs() if Path(app.path).parent == PROJECT}
OURS = sorted(name for name, app in get_commands().items() if app in OUR_APPS)
WITHOUT_ARGUMENTS = {
    "load_catalogue",
    "check_hypervisor",
    "scheduler",
    "host_events",
    "verify",
    "reconcile",
    "meter",
    "audit_ledger",
    "rotate_secret_key",
    "hosts",
    "servers",
    "operations",
    "recount",
    "check_backup_store",
    "collect_backups",
    "verify_backups",
}

# Nothing of this may become credits.
NO_TOP_UPS = [
    *("0", "0.00", "-0", "-5", "-0.0001", "0.00001", "12345678901", "99999999999999999999", "1e3", "1E-2"),
    *("ten", "", " ", " 5", "5 ", "+5", "1_000", "1,000", "1,5", ".5", "5.", "0x10", "٣", "½", "NaN", "-NaN"),
    *("Infinity", "10 EUR", "EUR 10", "€10", "$10", "10$", "£5", "5 credits", "BTC", "5;", "5\n", "1e400"),
]

pytestmark = pytest.mark.django_db


def run(command: str, *words: str) -> str:
    """What a command prints, without the line's end."""
    out = StringIO()
    call_command(command, *words, stdout=out)
    return out.getvalue().removesuffix("\n")


def refused(command: str, *words: str) -> str:
    """The sentence that a command ends with."""
    with pytest.raises(CommandError) as error:
        run(command, *words)
    [sentence] = str(error.value).splitlines()
    return sentence


@pytest.mark.parametrize("name", OURS)
def test_each_command_teaches_its_use(name: str) -> None:
    command = load_command_class(get_commands()[name], name)

    assert len(command.help) > 80
    assert command.help in " ".join(command.create_parser("manage.py", name).format_help().split())


def test_our_commands_are_found() -> None:
    assert {"top_up", "add_ip_pool", "create_token", "import_image", "load_catalogue"} <= set(OURS)


@pytest.mark.parametrize("name", [name for name in OURS if name not in WITHOUT_ARGUMENTS])
def test_a_command_without_its_arguments_names_them(name: str) -> None:
    assert "required" in refused(name)


def test_only_a_location_that_is_there_is_watched() -> None:
    assert refused("host_events", "--location", "atlantis") == "There is no location atlantis."


# What is odd: a sentence, or done; never a trace-back.

# Words that each command accepts.
SOUND = {
    "add_hypervisor": ["kvm1", "--location=us-west", "--uri=test:///default", "--pool=default-pool"],
    "add_ip_pool": ["--location=us-west", "--network=203.0.113.0/29", "--gateway=203.0.113.1"],
    "create_token": ["--account=alice@example.com", "--name=laptop"],
    "export_backup": [
        "2932ea8e-a3c7-4333-9489-3fd281cee651",
        "--account=alice@example.com",
        "--to=/no/such/folder/disk.raw",
    ],
    "host_events": ["--location=mars"],  # else it would run for ever
    "import_image": ["/no/such/file", f"--sha256={'0' * 64}", "--os=Debian 12"],
    "scheduler": ["--once"],
    "retry_operation": ["1"],
    "top_up": ["--account=alice@example.com", "--amount=1", "--reason=paid"],
}
ODD_WORDS = [
    *(
        "",
        " ",
        "a" * 10_000,
        "nul\0byte",
        "not utf-8 \udcff",
        "\ud800",
        "line\nline",
        "💥",
        "' OR 1=1 --",
        "../..",
    ),
]
ODD_NUMBERS = [
    *("-1", "-0.5", "nan", "inf", "-inf", "1e400", "1e300", "9" * 400, "", "two", "\udcff", "٣\0"),
]


def arguments() -> list[tuple[str, Action]]:
    """Each argument of each command that takes a value."""
    of_django = {action.dest for action in BaseCommand().create_parser("manage.py", "none")._actions}
    return [
        (name, action)
        for name in OURS
        for action in load_command_class(get_commands()[name], name).create_parser("manage.py", name)._actions
        if action.dest not in of_django and action.nargs != 0
    ]


def words_with(name: str, argument: Action, value: str) -> list[str]:
    """Words that the command accepts, but for the value of this argument."""
    sound = SOUND.get(name, [])
    if argument.option_strings:
        [option, *_] = argument.option_strings
        return [*[word for word in sound if not word.startswith(f"{option}=")], f"{option}={value}"]
    return [*[word for word in sound if word.startswith("--")], "--", value]


@pytest.mark.parametrize(
    ("name", "argument"), arguments(), ids=lambda part: part if isinstance(part, str) else part.dest
)
def test_an_odd_word_is_refused_by_a_sentence_or_done(name: str, argument: Action) -> None:
    """Guards: ``OurCommand``, the types of the options, ``full_clean``.  A trace-back fails here."""
    LocationFactory.create()
    AccountFactory.create(email="alice@example.com")
    is_text = argument.type in {None, Path}
    for value in ODD_WORDS if is_text else ODD_NUMBERS:
        with transaction.atomic(), nullcontext() if is_text else pytest.raises(CommandError):
            try:
                run(name, *words_with(name, argument, value))
            except CommandError:
                if not is_text:
                    raise


def test_every_command_is_one_of_ours() -> None:
    for name in OURS:
        assert isinstance(load_command_class(get_commands()[name], name), OurCommand), name


# add_hypervisor.


def add_hypervisor(*words: str, name: str = "kvm1") -> str:
    sound = ["--location", "us-west", "--uri", "test:///default", "--pool", "default-pool"]
    return run("add_hypervisor", name, *sound, *words)


@pytest.mark.parametrize("option", ["vcpus", "memory-mib", "disk-gib"])
def test_a_host_that_has_servers_cannot_be_told_to_sell_less(option: str) -> None:
    """Guard: ``full_clean`` in add_hypervisor."""
    LocationFactory.create()
    add_hypervisor("--disk-gib", "100")
    Hypervisor.objects.update(vcpus_used=2, memory_mib_used=2, disk_gib_used=2)

    with pytest.raises(CommandError, match=f"{option.replace('-', '_')}: Servers have 2 of it"):
        add_hypervisor("--disk-gib", "100", f"--{option}", "1")

    assert Hypervisor.objects.get().disk_gib == 100


CHANGES: list[tuple[list[str], dict[str, Any]]] = [
    ([], {}),
    (["--max-operations", "7"], {"max_operations": 7}),
    (["--vcpus", "9"], {"vcpus": 9}),
    (["--memory-mib", "777"], {"memory_mib": 777}),
    (["--disk-gib", "99"], {"disk_gib": 99}),
    (["--keep-memory-mib", "5"], {"memory_mib": 3072 - 5}),  # libvirt's test driver has 3 GiB
    (["--domain-type", "qemu"], {"domain_type": "qemu"}),
    (["--location", "us-east"], {"location_id": 2}),
]


@pytest.mark.parametrize(
    ("words", "changed"), CHANGES, ids=[" ".join(words) or "nothing" for words, _ in CHANGES]
)
def test_what_is_said_of_a_known_host_changes_and_nothing_else(
    words: list[str], changed: dict[str, Any]
) -> None:
    """The cure of docs/verify.md for a stopped pool must not put on sale what an operator took off."""
    LocationFactory.create(pk=1)
    LocationFactory.create(pk=2, code="us-east")
    add_hypervisor("--disk-gib", "1000", "--memory-mib", "1000", "--vcpus", "3", "--max-operations", "2")
    before = Hypervisor.objects.values().get()
    run("add_hypervisor", "kvm1", *words)

    assert Hypervisor.objects.values().get() == before | changed


def test_a_host_with_servers_stays_in_its_location() -> None:
    """Guard: ``placements`` in add_hypervisor.  On paper its servers would move, with another's addresses."""
    LocationFactory.create()
    LocationFactory.create(code="us-east")
    add_hypervisor()
    Hypervisor.objects.get().placements.create(vcpus=1, memory_mib=128, disk_gib=1)
    with pytest.raises(CommandError, match="it stays there until they are gone"):
        run("add_hypervisor", "kvm1", "--location", "us-east")

    assert Hypervisor.objects.get().location.code == "us-west"


@pytest.mark.parametrize("words", [[], ["--location", "us-west"], ["--uri", "test:///default"]])
def test_a_new_host_needs_a_location_and_an_address(words: list[str]) -> None:
    LocationFactory.create()
    with pytest.raises(CommandError, match="needs --location and --uri"):
        run("add_hypervisor", "kvm1", *words)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--pool", "a" * 65], "storage_pool: "),
        (["--network", "a" * 65], "network: "),
        (["--uri", f"test:///{'a' * 300}"], "uri: "),
        (["--vcpus", "0"], "--vcpus"),
        (["--memory-mib", "-1"], "--memory-mib"),
        (["--disk-gib", "2147483648"], "disk_gib: "),
        (["--keep-memory-mib", "-1"], "--keep-memory-mib"),
        (["--max-operations", "0"], "--max-operations"),
        (["--max-operations", "40000"], "max_operations: "),
    ],
)
def test_what_is_no_host_is_refused(words: list[str], named: str) -> None:
    LocationFactory.create()
    with pytest.raises(CommandError, match=named):
        add_hypervisor(*words)
    assert not Hypervisor.objects.exists()


@pytest.mark.parametrize("name", ["kvm 1", "", "a" * 65, "kvm1.example.com", "künstlich"])
def test_an_odd_name_of_a_host_is_refused(name: str) -> None:
    LocationFactory.create()
    with pytest.raises(CommandError, match="name: "):
        add_hypervisor(name=name)


def test_two_names_for_one_address_are_refused() -> None:
    LocationFactory.create()
    add_hypervisor()
    with pytest.raises(CommandError, match=r"uri: .*already exists"):
        add_hypervisor(name="kvm2")


# retry_operation.


def test_an_operation_that_waits_is_tried_now(broker: Broker) -> None:
    """Guards: ``due_at`` and ``wake`` in ``retry_now``."""
    waits = OperationFactory.create(due_at=Now() + timedelta(minutes=2), retries=7)
    told: list[str] = []
    sent = broker.after_commit_of(lambda: told.append(run("retry_operation", str(waits.pk))))
    assert told == [f"operation {waits.pk}, reboot of {waits.subject_name}, is tried now"]
    assert sent == [("provisioning.carry_out", [waits.pk])]
    waits.refresh_from_db()
    assert waits.due_at <= timezone.now()


def test_an_operation_that_is_over_or_under_way_is_not_touched() -> None:
    later = Now() + timedelta(minutes=2)
    over = OperationFactory.create(status="failed", due_at=later)
    held = OperationFactory.create(due_at=later, lease_until=later)
    said = refused("retry_operation", str(over.pk), str(held.pk), "999999999")
    assert said == (
        f"Operation {over.pk} is over: it failed. A worker is at operation {held.pk}. "
        "There is no operation 999999999."
    )
    for row in (over, held):
        row.refresh_from_db()
        assert row.due_at > timezone.now()


# hosts, servers, operations, revoke_token, console_log.


def rows_of(command: str, *words: str) -> list[dict[str, Any]]:
    """What --json says.  The columns say the same."""
    rows: list[dict[str, Any]] = json.loads(run(command, "--json", *words))
    lines = run(command, *words).splitlines()
    assert [line.split()[0] for line in lines[1:]] == [str(next(iter(row.values()))) for row in rows]
    return rows


def test_hosts_are_listed_with_what_is_sold_and_open_there() -> None:
    host = HypervisorFactory.create(name="kvm1", vcpus=8, vcpus_used=2, last_error="no\npool")
    for number in range(2):
        placement = host.placements.create(vcpus=1, memory_mib=128, disk_gib=1)
        server = ServerFactory.create(home=placement, location=host.location, name=f"server-{number}")
        OperationFactory.create(server=server, hypervisor=host, status="succeeded")
    OperationFactory.create(server=server, hypervisor=host, status="running")
    [row] = rows_of("hosts")

    told = {name: row[name] for name in ("name", "status", "vcpus", "servers", "operations", "error")}
    assert told == {
        "name": "kvm1",
        "status": "enabled",
        "vcpus": "2/8",
        "servers": 2,
        "operations": 1,
        "error": "no pool",
    }


def test_a_server_is_found_by_whatever_is_known_of_it() -> None:
    host = HypervisorFactory.create(name="kvm1")
    port = Port.objects.create(mac="52:54:00:aa:bb:cc")
    pool = IpPool.objects.create(location=host.location, network="203.0.113.0/29", gateway="203.0.113.1")
    for address in ("203.0.113.2", "203.0.113.3"):
        pool.addresses.create(address=address, port=port)
    wanted = ServerFactory.create(
        name="web-1",
        hostname="web1.example.com",
        account__email="alice@example.com",
        location=host.location,
        home=host.placements.create(vcpus=1, memory_mib=128, disk_gib=1),
        port=port,
        ip_address="203.0.113.2",
        status="active",
    )
    gone = ServerFactory.create(name="web-2", account__email="bob@example.com", status="deleted")
    known = [
        *(str(wanted.pk), str(wanted.uuid), "web-1", "web1.example.com", "203.0.113.2", "203.0.113.3"),
        *("52:54:00:AA:BB:CC", "Alice@Example.com"),
    ]
    for text in known:
        assert [row["id"] for row in rows_of("servers", text)] == [wanted.pk], text
    assert [row["id"] for row in rows_of("servers")] == [wanted.pk]
    assert [row["id"] for row in rows_of("servers", "--host", "kvm1", "--status", "active")] == [wanted.pk]
    assert [row["id"] for row in rows_of("servers", "--status", "deleted")] == [gone.pk]
    assert [row["id"] for row in rows_of("servers", "web-2")] == [gone.pk]
    assert rows_of("servers", "web") == []


def test_stuck_operations_are_those_that_do_not_get_on() -> None:
    ago = Now() - timedelta(minutes=6)
    sound = {"status": "running", "lease_until": Now() + timedelta(minutes=1), "due_at": ago}
    well = OperationFactory.create(**sound)
    overdue = OperationFactory.create(**sound, deadline_at=ago)
    retried = OperationFactory.create(**sound, retries=5)
    forgotten = OperationFactory.create(status="queued", due_at=ago)
    failed = OperationFactory.create(status="failed", deadline_at=ago)

    stuck = {row["id"] for row in rows_of("operations", "--stuck")}
    assert stuck == {overdue.pk, retried.pk, forgotten.pk}
    assert {row["id"] for row in rows_of("operations", "--open")} == stuck | {well.pk}
    assert [row["id"] for row in rows_of("operations", "--failed")] == [failed.pk]
    assert [row["id"] for row in rows_of("operations", "--server", str(well.server_id))] == [well.pk]
    assert refused("operations", "--server", "0") == "There is no server 0."


def test_a_token_is_revoked_by_its_beginning_or_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    account = AccountFactory.create(email="alice@example.com")
    (one, _), (two, secret), (other, _) = (
        issue_token(account=account, name=name, permissions=["*:*"]) for name in ("one", "two", "other")
    )
    assert run("revoke_token", one.prefix) == "one of alice@example.com is revoked"
    monkeypatch.setattr("sys.stdin", StringIO(f"{secret}\n"))
    assert run("revoke_token", "-") == "two of alice@example.com is revoked"
    assert list(ApiToken.objects.exclude(revoked_at=None)) == [two, one]
    assert refused("revoke_token", "vps_nothing") == "There is no such token."
    ApiToken.objects.update(prefix="vps_12345678")
    assert refused("revoke_token", "vps_12345678").startswith("Several tokens begin so")
    other.refresh_from_db()
    assert other.revoked_at is None


def test_a_guest_cannot_write_to_the_terminal_of_an_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard: _harmless in console_log."""
    host = HypervisorFactory.create(uri="test:///default")
    server = ServerFactory.create(
        location=host.location, home=host.placements.create(vcpus=1, memory_mib=128, disk_gib=1)
    )
    written = b"login:\r\n\x1b]0;title\x07\tt\xc3\xa4\xff\xc2\x9b31m"
    monkeypatch.setattr(LibvirtDriver, "console_log", lambda *_: written)

    assert run("console_log", str(server.pk)) == "login:\n\\x1b]0;title\\x07\ttä\ufffd\\x9b31m"
    assert refused("console_log", "0") == "There is no server 0."


# recount.


def test_counters_become_what_servers_hold() -> None:
    right = HypervisorFactory.create(name="kvm1", vcpus_used=1, memory_mib_used=128, disk_gib_used=1)
    wrong = HypervisorFactory.create(name="kvm2", vcpus_used=9, memory_mib_used=0, disk_gib_used=1)
    for host in (right, wrong):
        host.placements.create(vcpus=1, memory_mib=128, disk_gib=1)
    said = "kvm2: vcpus_used 9 -> 1\nkvm2: memory_mib_used 0 -> 128"
    assert run("recount", "--dry-run") == said
    assert run("recount", "kvm2") == said
    assert run("recount") == ""
    wrong.refresh_from_db()
    assert (wrong.vcpus_used, wrong.memory_mib_used, wrong.disk_gib_used) == (1, 128, 1)
    assert refused("recount", "kvm2", "atlantis") == "There is no hypervisor atlantis."


def test_what_was_sold_twice_is_not_hidden() -> None:
    host = HypervisorFactory.create(name="kvm1", vcpus=1, vcpus_used=0)
    host.placements.create(vcpus=2, memory_mib=128, disk_gib=1)
    assert refused("recount").endswith("manage.py add_hypervisor kvm1 --vcpus 2")


@pytest.mark.django_db(transaction=True)
def test_a_claim_during_a_recount_is_not_lost(shop: dict[str, Any]) -> None:
    """Guard: the lock in recount; without it the sum is of before the claim, the counter of after it."""
    host, location = Hypervisor.objects.get(), Location.objects.get()
    Hypervisor.objects.update(vcpus_used=1)  # wrong
    with ThreadPoolExecutor(1) as thread:
        with transaction.atomic():
            claim(location, vcpus=1, memory_mib=128, disk_gib=1)
            recounting = thread.submit(_in_thread, lambda: recount(host))
            assert wait_for(lambda: _waits_for_a_lock() or recounting.done(), 20)
        recounting.result()
    host.refresh_from_db()
    assert host.vcpus_used == 1


def _in_thread(work: Callable[[], Any]) -> Any:
    try:
        return work()
    finally:
        connection.close()


def _waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


# create_token.


def create_token(*words: str, account: str = "alice@example.com", name: str = "laptop") -> str:
    return run("create_token", "--account", account, "--name", name, *words)


def test_a_token_is_printed_and_nothing_else(settings: Any) -> None:
    settings.VPS_SIGNUP_CREDITS = Decimal("25.500000")

    secret = create_token()

    token = ApiToken.objects.get()
    assert secret.startswith("vps_")
    assert secret.isascii()
    assert " " not in secret
    assert token.digest == digest_of(secret)
    assert (token.name, token.permissions) == ("laptop", ["*:*"])
    assert token.account.email == "alice@example.com"
    assert Account.objects.get().balance == Decimal("25.50")
    assert Payment.objects.get().kind == "signup"


def test_an_account_gets_its_first_credits_once_however_it_is_written(settings: Any) -> None:
    settings.VPS_SIGNUP_CREDITS = Decimal(10)

    secrets = {create_token(), create_token(account="Alice@Example.COM")}

    assert len(secrets) == 2
    assert Account.objects.get().balance == 10


def test_without_credits_to_begin_with_the_ledger_stays_empty(settings: Any) -> None:
    settings.VPS_SIGNUP_CREDITS = Decimal(0)
    create_token()

    assert not Payment.objects.exists()


def test_a_token_has_the_permissions_given() -> None:
    create_token("--permission", "servers:read", "--permission", "ssh_keys:*")

    assert ApiToken.objects.get().permissions == ["servers:read", "ssh_keys:*"]


def test_a_token_may_be_made_to_expire() -> None:
    create_token("--expires-days", "30")

    expires_at = ApiToken.objects.get().expires_at
    assert expires_at is not None
    left = expires_at - timezone.now()
    assert timedelta(days=29) < left <= timedelta(days=30)
    for days in ("0", "-1", "99999999"):
        assert "--expires-days" in refused(
            "create_token", "--account", "a@example.com", "--name", "x", f"--expires-days={days}"
        )


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"account": "alice"}, "email"),
        ({"account": ""}, "email"),
        ({"account": f"{'a' * 300}@example.com"}, "email"),
        ({"name": ""}, "name"),
        ({"name": "a" * 101}, "name"),
    ],
)
def test_a_token_for_nobody_or_without_a_name_is_refused(given: dict[str, str], named: str) -> None:
    words = {"account": "alice@example.com", "name": "laptop"} | given

    said = refused("create_token", "--account", words["account"], "--name", words["name"])

    assert said.startswith(f"{named}: ")
    assert not Account.objects.exists()


@pytest.mark.parametrize("word", ["", "servers", "servers:", ":read", "servers:read:", "Servers:Read"])
def test_a_permission_that_would_permit_nothing_is_refused(word: str) -> None:
    said = refused("create_token", "--account", "a@example.com", "--name", "x", "--permission", word)

    assert "servers:read" in said
    assert not Account.objects.exists()


# top_up.


def test_a_top_up_is_a_line_in_the_ledger() -> None:
    account = AccountFactory.create(email="alice@example.com", credits=10)

    told = run("top_up", "--account", "ALICE@example.com", "--amount", "2.50", "--reason", "invoice 17")

    assert told == "alice@example.com: 12.50 credits"
    line = account.payments.get(reason="invoice 17")
    assert (line.kind, line.amount, line.made_by) == ("top_up", Decimal("2.50"), "operator")


@pytest.mark.parametrize(
    ("field", "words"),
    [
        *[("amount", [f"--amount={amount}"]) for amount in NO_TOP_UPS],
        ("reason", ["--amount=1", "--reason", " "]),
        ("reason", ["--amount=1", "--reason", "a" * 256]),
        ("reference", ["--amount=1", "--reference", "a" * 101]),
        ("made_by", ["--amount=1", "--by", "a" * 101]),
    ],
)
def test_what_is_no_top_up_is_refused_and_nothing_written(field: str, words: list[str]) -> None:
    account = AccountFactory.create(credits=10)
    words = [*words, *([] if "--reason" in words else ["--reason", "invoice 17"])]

    assert refused("top_up", "--account", account.email, *words).startswith(f"{field}: ")
    account.refresh_from_db()
    assert (account.balance, Payment.objects.count()) == (10, 1)


def test_the_same_payment_is_not_added_twice() -> None:
    account = AccountFactory.create(credits=0)
    words = ["--account", account.email, "--amount", "5", "--reason", "paid", "--reference", "payment 9"]
    run("top_up", *words)

    assert "payment 9 already" in refused("top_up", *words)
    account.refresh_from_db()
    assert account.balance == 5


def test_nobody_gets_no_credits() -> None:
    words = ["--account", "nobody@example.com", "--amount", "1", "--reason", "none"]
    assert "nobody@example.com" in refused("top_up", *words)


# meter, audit_ledger.


def test_the_meter_charges_suspends_and_lists_what_is_suspended_for_long() -> None:
    account = AccountFactory.create(email="poor@example.com", credits=-1)
    long = {"suspended_for": "billing", "suspended_at": timezone.now() - timedelta(days=15)}
    ServerFactory.create(account=account, name="forgotten", status="suspended", **long)
    server = ServerFactory.create()
    began = timezone.now()
    begun(server, began)

    charged, listed = run("meter").splitlines()

    assert charged == "1 accounts charged"
    assert "forgotten" in listed
    assert "poor@example.com, -1.00 credits" in listed
    assert Usage.objects.get().subject_id == server.pk
    assert run("meter").splitlines()[0] == "0 accounts charged"


def test_the_meter_leaves_to_another_what_that_is_charging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "try_lock", lambda what: nullcontext(False))

    assert run("meter") == "Other ticks are under way and charge what is due."
    tasks.meter()


def test_the_meter_refuses_while_clocks_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    hour_ago = timezone.now() - timedelta(hours=1)
    monkeypatch.setattr(timezone, "now", lambda: hour_ago)

    assert "set right" in refused("meter")


def test_an_audit_that_finds_nothing_says_so_and_one_that_finds_something_fails() -> None:
    assert run("audit_ledger") == "Everything adds up."

    began = timezone.now() - timedelta(days=1)
    server = ServerFactory.create()
    begun(server, began)
    out = StringIO()
    with pytest.raises(CommandError) as error:
        call_command("audit_ledger", stdout=out)
    assert error.value.returncode == 1
    assert out.getvalue().startswith(f"metering_late error server {server.pk}: ")


# load_catalogue.


def catalogue(tmp_path: Path, content: Any) -> str:
    file = tmp_path / "catalogue.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(file)


def plan(**fields: Any) -> dict[str, Any]:
    sound = {"id": 7, "name": "Big", "slug": "big", "vcpus": 2, "memory_mib": 2048, "disk_gib": 20}
    return sound | {"bandwidth_gb": 100, "price_monthly": "5", "price_hourly": "0.01"} | fields


def test_our_catalogue_has_what_is_promised() -> None:
    told = run("load_catalogue")

    assert told == "3 locations, 4 plans, 2 operating_systems, 4 os_versions"
    assert set(Location.objects.values_list("code", flat=True)) == {"us-west", "us-east", "eu-central"}
    # The ids of the contract's examples.
    standard = Plan.objects.get(pk=1)
    assert (standard.name, standard.vcpus, standard.memory_mib, standard.disk_gib, standard.bandwidth_gb) == (
        "Standard VPS",
        2,
        4096,
        80,
        2048,
    )
    assert Plan.objects.get(pk=2).name == "Performance VPS"
    assert OsVersion.objects.get(pk=5).name == "Ubuntu 22.04 LTS"
    assert OsVersion.objects.get(pk=3).name == "Debian 12"


def test_to_load_it_twice_changes_nothing_and_keeps_images() -> None:
    run("load_catalogue")
    OsVersion.objects.filter(pk=5).update(image=ImageFactory.create())
    before = [list(model.objects.values()) for model in (Location, Plan, OperatingSystem, OsVersion)]

    run("load_catalogue")

    assert [list(model.objects.values()) for model in (Location, Plan, OperatingSystem, OsVersion)] == before


def test_new_rows_get_ids_behind_those_that_were_given(tmp_path: Path) -> None:
    run("load_catalogue", catalogue(tmp_path, {"plans": [plan(id=7000)]}))

    made = {field: value for field, value in plan(slug="next").items() if field != "id"}
    assert Plan.objects.create(**made).pk == 7001


def test_a_row_is_brought_up_to_date_by_its_id(tmp_path: Path) -> None:
    run("load_catalogue", catalogue(tmp_path, {"plans": [plan()]}))
    run("load_catalogue", catalogue(tmp_path, {"plans": [{"id": 7, "name": "Bigger", "is_active": False}]}))

    row = Plan.objects.get()
    assert (row.name, row.is_active, row.vcpus) == ("Bigger", False, 2)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "JSON"),
        ("{", "JSON"),
        ("[]", "plans"),
        ("null", "plans"),
        ({"plan": []}, "plans"),
        ({"plans": {}}, "plans"),
        ({"plans": None}, "plans"),
        ({"plans": ["Big"]}, "plans, row 1: id"),
        ({"plans": [{"name": "Big"}]}, "plans, row 1: id"),
        ({"plans": [plan(id="7")]}, "plans, row 1: id"),
        ({"plans": [plan(id=10**30)]}, "plans, row 1: id"),
        ({"plans": [plan(id=10**19)]}, "plans, row 1: id"),
        ({"plans": [plan(id=0)]}, "plans, row 1: id"),
        ({"plans": [plan(id=-1)]}, "plans, row 1: id"),
        ({"plans": [plan(id=True)]}, "plans, row 1: id"),
        ({"plans": [plan(name="a\0b")]}, "plans, row 1: name"),
        ({"plans": [plan(name=["Big"])]}, "plans, row 1: name"),
        ({"plans": [plan(name=None)]}, "plans, row 1: name"),
        ({"plans": [plan(vcpus=True)]}, "plans, row 1: vcpus"),
        ({"plans": [plan(vcpus=2.5)]}, "plans, row 1: vcpus"),
        ({"plans": [plan(is_active="no")]}, "plans, row 1: is_active"),
        ({"plans": [plan(uuid={})]}, "plans, row 1: uuid"),
        ({"operating_systems": [{"id": 1, "name": "\0"}]}, "operating_systems, row 1: name"),
        ("[" * 100_000, "JSON"),
        ('{"plans": ' + "[" * 100_000 + "]" * 100_000 + "}", "JSON"),
        ('{"plans": [{"id": 7, "name": "\\ud800"}]}', "JSON"),
        ('{"plans": [{"id": 7, "price_hourly": NaN}]}', "JSON"),
        ({"plans": [plan(), plan(id=8)]}, "plans, row 2: slug"),
        ({"plans": [plan(colour="red")]}, "plans, row 1: id"),
        ({"plans": [{"id": 7, "name": "Big"}]}, "plans, row 1: slug"),
        ({"plans": [plan(vcpus="two")]}, "plans, row 1: vcpus"),
        ({"plans": [plan(vcpus=0)]}, "plans, row 1: vcpus"),
        ({"plans": [plan(memory_mib=10**18)]}, "plans, row 1: memory_mib"),
        ({"plans": [plan(price_hourly="free")]}, "plans, row 1: price_hourly"),
        ({"plans": [plan(price_hourly="-0.01")]}, "plans, row 1: price_hourly: Ensure this value is greater"),
        ({"plans": [plan(price_monthly="-5")]}, "plans, row 1: price_monthly: Ensure this value is greater"),
        ({"plans": [plan(price_monthly="0")]}, "plans, row 1: The prices for an hour and for a month should"),
        ({"plans": [plan(price_hourly="0.0000")]}, "plans, row 1: The prices for an hour and for a month"),
        ({"locations": [{"id": 1, "code": "us west", "name": "x"}]}, "locations, row 1: code"),
        (
            {"os_versions": [{"id": 1, "operating_system_id": 9, "name": "x"}]},
            "os_versions, row 1: operating",
        ),
    ],
)
def test_a_catalogue_that_is_wrong_is_refused_as_a_whole(tmp_path: Path, content: Any, named: str) -> None:
    if isinstance(content, dict):
        content.setdefault("operating_systems", [{"id": 1, "name": "Debian"}])

    assert named in refused("load_catalogue", catalogue(tmp_path, content))
    assert not OperatingSystem.objects.exists()
    assert not Plan.objects.exists()


def test_a_plan_may_cost_nothing(tmp_path: Path) -> None:
    run("load_catalogue", catalogue(tmp_path, {"plans": [plan(price_hourly="0", price_monthly="0")]}))

    assert Plan.objects.get().price_hourly == 0


def test_a_catalogue_writes_no_column_that_it_does_not_name(tmp_path: Path) -> None:
    """Guard: ``update_fields`` in plans/services.py: an image may be imported at the same moment."""
    OsVersionFactory.create(pk=1)
    with CaptureQueriesContext(connection) as queries:
        run("load_catalogue", catalogue(tmp_path, {"os_versions": [{"id": 1, "name": "Renamed"}]}))
    [update] = [query["sql"] for query in queries if query["sql"].startswith("UPDATE")]
    assert re.findall(r'"(\w+)" = ', update.split(" WHERE ")[0]) == ["name"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b'{"plans": [{"id": 7, "name": "\xe9"}]}'])
def test_a_catalogue_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "file").write_bytes(content)

    assert str(tmp_path / "file") in refused("load_catalogue", str(tmp_path / "file"))


# add_ip_pool.


def add_ip_pool(network: str, gateway: str, *words: str, location: str = "us-west") -> str:
    return run("add_ip_pool", "--location", location, "--network", network, "--gateway", gateway, *words)


def addresses() -> set[str]:
    """What may be given out."""
    return set(IpAddress.objects.filter(is_reserved=False).values_list("address", flat=True))


def test_a_pool_is_all_of_a_network_but_what_is_kept_back() -> None:
    LocationFactory.create()

    told = add_ip_pool(
        "203.0.113.0/29", "203.0.113.1", "--reserve", "203.0.113.2", "--nameserver", "198.51.100.53"
    )

    assert told == "203.0.113.0/29: 4 addresses in us-west"
    # Neither the network's own, nor the gateway, nor the reserved one, nor broadcast.
    assert addresses() == {f"203.0.113.{n}" for n in (3, 4, 5, 6)}
    pool = IpPool.objects.get()
    assert (pool.gateway, pool.nameservers, pool.family) == ("203.0.113.1", ["198.51.100.53"], 4)


def test_of_a_large_network_every_address_can_be_given_out() -> None:
    LocationFactory.create()

    told = add_ip_pool("2001:db8::/64", "2001:db8::1")

    assert told == f"2001:db8::/64: {2**64 - 2} addresses in us-west"
    assert len(addresses()) < 1000, "their rows are made when they are needed"
    assert min(map(ip_address, addresses())) == ip_address("2001:db8::2")


def test_a_gateway_written_at_length_is_kept_back_too() -> None:
    LocationFactory.create()

    add_ip_pool("2001:db8::/125", "2001:0DB8:0:0::0001")

    assert "2001:db8::1" not in addresses()


def test_a_nameserver_of_the_network_is_kept_back_too() -> None:
    """Guard: ``nameservers`` among ``kept_back`` in inventory/services.py."""
    LocationFactory.create()

    told = add_ip_pool("203.0.113.0/29", "203.0.113.1", "--nameserver", "203.0.113.3")

    assert told == "203.0.113.0/29: 4 addresses in us-west"
    assert "203.0.113.3" not in addresses()


def test_a_pool_may_be_made_again_with_more_kept_back(capsys: pytest.CaptureFixture[str]) -> None:
    """Guard: the update to ``is_reserved=True`` in inventory/services.py, the warning in the command."""
    HypervisorFactory.create(location=LocationFactory.create())
    add_ip_pool("203.0.113.0/29", "203.0.113.1")
    port = make_port(Location.objects.get())
    [taken] = port.addresses.all()
    free = min(addresses() - {taken.address})
    assert not capsys.readouterr().err

    told = add_ip_pool("203.0.113.0/29", "203.0.113.1", "--reserve", free, "--reserve", taken.address)

    assert told == "203.0.113.0/29: 3 addresses in us-west"
    assert capsys.readouterr().err == f"{taken} is kept back, but a server holds it until it is deleted.\n"
    assert not addresses() & {free, taken.address}
    assert list(port.addresses.all()) == [taken]  # what a server has, it keeps
    assert IpPool.objects.count() == 1


def test_a_new_gateway_that_a_server_holds_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    HypervisorFactory.create(location=LocationFactory.create())
    add_ip_pool("203.0.113.0/29", "203.0.113.1")
    [taken] = make_port(Location.objects.get()).addresses.all()

    add_ip_pool("203.0.113.0/29", taken.address)

    assert taken.address in capsys.readouterr().err
    assert taken.address not in addresses()


def test_what_was_kept_back_stays_so_until_it_is_unreserved() -> None:
    """Guard: ``*kept_back`` among the rows that inventory/services.py makes: a conflict keeps its flag."""
    LocationFactory.create()
    add_ip_pool("203.0.113.0/29", "203.0.113.1", "--reserve", "203.0.113.2")

    add_ip_pool("203.0.113.0/29", "203.0.113.6")
    assert addresses() == {f"203.0.113.{n}" for n in (3, 4, 5)}

    add_ip_pool("203.0.113.0/29", "203.0.113.6", "--unreserve", "203.0.113.2", "--unreserve", "203.0.113.6")
    assert addresses() == {f"203.0.113.{n}" for n in (2, 3, 4, 5)}, "the gateway never"


@pytest.mark.parametrize(
    ("network", "gateway", "words", "named"),
    [
        ("203.0.113.0/24", "203.0.113.1", ["--location", "mars"], "mars"),
        ("203.0.113.0/33", "203.0.113.1", [], "203.0.113.0/33"),
        ("203.0.113.7/24", "203.0.113.1", [], "host bits"),
        ("network", "203.0.113.1", [], "network"),
        ("203.0.113.0/24", "router", [], "router"),
        ("203.0.113.0/24", "203.0.114.1", [], "203.0.114.1"),
        ("203.0.113.0/24", "2001:db8::1", [], "2001:db8::1"),
        ("fe80::/64", "fe80::1%eth0", [], "fe80::1%eth0"),
        ("203.0.113.0/24", "203.0.113.1", ["--nameserver", "dns"], "dns"),
        ("203.0.113.0/24", "203.0.113.1", ["--reserve", "203.0.113.256"], "203.0.113.256"),
        ("203.0.113.0/24", "203.0.113.1", ["--unreserve", "203.0.113.256"], "203.0.113.256"),
        ("203.0.113.0/24", "203.0.113.1", ["--reserve", "203.0.114.2"], "203.0.114.2"),
        ("203.0.113.0/24", "203.0.113.1", ["--unreserve", "203.0.114.2"], "203.0.114.2"),
        ("203.0.113.0/24", "203.0.113.255", [], "broadcast"),
        ("224.0.1.0/24", "224.0.1.1", [], "multicast"),
        ("203.0.113.0/30", "203.0.113.1", ["--reserve", "203.0.113.2"], "no address"),
    ],
)
def test_what_is_no_pool_is_refused(network: str, gateway: str, words: list[str], named: str) -> None:
    LocationFactory.create()
    given = ["--location", "us-west", "--network", network, "--gateway", gateway, *words]

    assert named in refused("add_ip_pool", *given)
    assert not IpPool.objects.exists()


@pytest.mark.parametrize("network", ["203.0.113.0/25", "203.0.113.64/26", "203.0.0.0/16", "203.0.113.9/32"])
def test_a_pool_that_overlaps_with_another_is_refused(network: str) -> None:
    """Guard: the constraint ``ip_pools_do_not_overlap``."""
    LocationFactory.create()
    LocationFactory.create(code="us-east")
    add_ip_pool("203.0.113.0/24", "203.0.113.1")
    add_ip_pool("2001:db8::/64", "fe80::1")

    gateway = "203.0.113.1" if network.endswith("/32") else str(ip_network(network)[1])
    said = refused("add_ip_pool", "--location", "us-east", "--network", network, "--gateway", gateway)

    assert said == f"{network} overlaps with 203.0.113.0/24, a pool of us-west."
    assert IpPool.objects.count() == 2


def test_a_pool_whose_addresses_servers_have_stays_where_it_is() -> None:
    """Guard: ``_existing`` in inventory/pools.py."""
    LocationFactory.create(code="us-east")
    add_ip_pool("203.0.113.0/24", "203.0.113.1", location=LocationFactory.create().code)
    port = make_port(Location.objects.get(code="us-west"))
    words = ["--location", "us-east", "--network", "203.0.113.0/24", "--gateway", "203.0.113.2"]

    assert "servers there have its addresses" in refused("add_ip_pool", *words)
    assert (IpPool.objects.get().location.code, IpPool.objects.get().gateway) == ("us-west", "203.0.113.1")

    remove_port(port)
    run("add_ip_pool", *words)
    assert IpPool.objects.get().location.code == "us-east"


# import_image.

GIB = 1024**3


def qcow2(*, size: int = 3 * GIB, backing_file: int = 0, features: int = 0, version: int = 3) -> bytes:
    """An image with nothing in it, whose header says so (see QEMU's docs/interop/qcow2.txt)."""
    image = bytearray(_empty_image())
    struct.pack_into(">IQ", image, 4, version, backing_file)
    struct.pack_into(">Q", image, 24, size)
    struct.pack_into(">Q", image, 72, features)
    return bytes(image)


@cache
def _empty_image() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), str(3 * GIB)], check=True)
        return path.read_bytes()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def image_dir(settings: Any, tmp_path: Path) -> Path:
    settings.VPS_IMAGE_DIR = tmp_path / "images"
    return tmp_path / "images"


@pytest.fixture
def debian(image_dir: Path) -> OsVersion:
    version: OsVersion = OsVersionFactory.create(name="Debian 12", image=None)
    return version


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "debian.qcow2"


def import_image(source: object, content: bytes, *words: str, name: str = "Debian 12") -> str:
    return run("import_image", str(source), "--sha256", sha256(content), "--os", name, *words)


def test_an_image_puts_its_system_on_offer(debian: OsVersion, image_dir: Path, source: Path) -> None:
    image = qcow2(size=2 * GIB + 1)
    source.write_bytes(image)

    told = import_image(source, image, "--agent")

    debian.refresh_from_db()
    [kept] = image_dir.iterdir()
    assert kept.name == f"{sha256(image)}.qcow2"
    assert kept.read_bytes() == image
    assert told == f"os_id {debian.pk}, Debian 12: {kept}"
    assert versions_on_offer().contains(debian)
    made = debian.image_to_start_from
    assert (made.sha256, made.source, made.size_bytes) == (sha256(image), Image.Source.SYSTEM, len(image))
    assert (made.virtual_size_bytes, made.minimum_disk_gib, made.has_agent) == (2 * GIB + 1, 3, True)


def test_to_import_it_again_needs_the_source_no_more(debian: OsVersion, source: Path) -> None:
    source.write_bytes(qcow2())
    first = import_image(source, qcow2())
    source.unlink()

    assert import_image(source, qcow2()) == first


def test_a_file_that_was_damaged_is_fetched_again(debian: OsVersion, image_dir: Path, source: Path) -> None:
    """Guard: ``_sha256_of(target)`` in images.py."""
    source.write_bytes(qcow2())
    import_image(source, qcow2())
    [kept] = image_dir.iterdir()
    kept.write_bytes(qcow2()[:100])

    import_image(source, qcow2())

    assert kept.read_bytes() == qcow2()


def test_of_two_who_import_at_once_neither_writes_into_the_others_file(
    debian: OsVersion, image_dir: Path, source: Path, tmp_path: Path
) -> None:
    """Guard: the name of ``part`` in images.py."""
    source.write_bytes(qcow2())
    slow, target = tmp_path / "slow", image_dir / f"{sha256(qcow2())}.qcow2"
    os.mkfifo(slow)
    with ThreadPoolExecutor(1) as thread:
        other = thread.submit(images._fetch, str(slow), sha256(qcow2()), target, images.unwatched)
        with slow.open("wb") as late:
            import_image(source, qcow2())
            late.write(b"something else")

    with pytest.raises(ImageInvalid, match="SHA-256"):
        other.result()
    assert target.read_bytes() == qcow2()
    assert list(image_dir.iterdir()) == [target]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.django_db(transaction=True)
def test_an_import_that_is_stopped_leaves_nothing_half_done(
    image_dir: Path, tmp_path: Path, number: int, status: int
) -> None:
    """Guard: _ended_by_sigterm in OurCommand."""
    slow = tmp_path / "slow"
    os.mkfifo(slow)
    env = os.environ | {
        "DATABASE_URL": f"{POSTGRES.url.rpartition('/')[0]}/{connection.settings_dict['NAME']}",
        "VPS_IMAGE_DIR": str(image_dir),
    }
    words = ["import_image", str(slow), "--sha256", "0" * 64, "--os", "Alpine 3.20", "--family", "Alpine"]
    # A suite that runs in the background may have been told to ignore Ctrl-C, and its children with it.
    command = ["env", "--default-signal=INT", sys.executable, "-W", "ignore", "manage.py", *words]
    with subprocess.Popen(command, cwd=PROJECT, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert wait_for(lambda: image_dir.is_dir() and any(image_dir.iterdir()), 60)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()

    assert list(image_dir.iterdir()) == []
    assert process.returncode == status, said
    assert "Traceback" not in said


def test_what_a_killed_import_left_is_removed_after_a_day(
    debian: OsVersion, image_dir: Path, source: Path
) -> None:
    """Guard: _remove_abandoned in images.py."""
    source.write_bytes(qcow2())
    image_dir.mkdir()
    old, young = image_dir / "a.part", image_dir / "b.part"
    for part in (old, young):
        part.touch()
    os.utime(old, (0, 0))
    import_image(source, qcow2())

    assert (old.exists(), young.exists()) == (False, True)


def test_an_image_is_on_the_disk_before_it_has_its_name(
    debian: OsVersion, image_dir: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards: the two ``_sync`` in images.py; without them a loss of power leaves a file of zeros."""
    source.write_bytes(qcow2())
    target, really, synced = image_dir / f"{sha256(qcow2())}.qcow2", os.fsync, list[tuple[int, bool]]()

    def fsync(descriptor: int) -> None:
        really(descriptor)
        synced.append((os.fstat(descriptor).st_ino, target.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    import_image(source, qcow2())

    assert synced == [(target.stat().st_ino, False), (image_dir.stat().st_ino, True)]


def test_a_system_may_be_named_by_its_id_and_the_digest_in_capitals(debian: OsVersion, source: Path) -> None:
    source.write_bytes(qcow2())

    run("import_image", str(source), "--sha256", sha256(qcow2()).upper(), "--os", str(debian.pk))

    debian.refresh_from_db()
    assert debian.image_to_start_from.sha256 == sha256(qcow2())


def test_a_new_system_is_made_with_its_family(image_dir: Path, source: Path) -> None:
    source.write_bytes(qcow2())

    import_image(source, qcow2(), "--family", "Alpine", name="Alpine 3.20")

    version = OsVersion.objects.get()
    assert (version.name, version.operating_system.name) == ("Alpine 3.20", "Alpine")
    assert versions_on_offer().contains(version)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "qcow2"),
        (b"<html>Not found</html>", "qcow2"),
        (qcow2()[:60], "qcow2"),
        (qcow2(version=9), "version"),
        (qcow2(backing_file=512), "backing file"),
        (qcow2(features=1 << 2), "data file"),
        (qcow2(size=0), "0 bytes"),
    ],
    ids=["empty", "no image", "truncated", "new version", "backing file", "data file", "no size"],
)
def test_an_image_that_cannot_stand_alone_is_refused(
    debian: OsVersion, image_dir: Path, source: Path, content: bytes, named: str
) -> None:
    source.write_bytes(content)

    said = refused("import_image", str(source), "--sha256", sha256(content), "--os", "Debian 12")

    assert named in said
    assert list(image_dir.iterdir()) == []
    debian.refresh_from_db()
    assert not versions_on_offer().contains(debian)


def test_an_image_with_another_digest_is_refused(debian: OsVersion, image_dir: Path, source: Path) -> None:
    source.write_bytes(qcow2()[:-1])

    said = refused("import_image", str(source), "--sha256", sha256(qcow2()), "--os", "Debian 12")

    assert sha256(qcow2()) in said
    assert sha256(qcow2()[:-1]) in said
    assert list(image_dir.iterdir()) == []


@pytest.mark.parametrize("folder", ["/dev/null", "/dev/null/images", "/proc/images"])
def test_a_folder_of_images_that_cannot_be_written_is_named(
    debian: OsVersion, source: Path, settings: Any, folder: str
) -> None:
    """Guard: ``OSError`` in core/commands.py."""
    settings.VPS_IMAGE_DIR = Path(folder)
    source.write_bytes(qcow2())

    assert folder in refused("import_image", str(source), "--sha256", sha256(qcow2()), "--os", "Debian 12")
    assert not versions_on_offer().exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--sha256", "abc"], "--sha256"),
        (["--sha256", "g" * 64], "--sha256"),
        (["--os", "Plan 9"], "Plan 9"),
        (["--os", "99"], "99"),
        (["--os", "9" * 30], "9" * 30),
        (["--os", "Plan 9", "--family", ""], "Plan 9"),
        (["--os", "Plan 9", "--family", "a" * 101], "name: "),
        (["--os", "a" * 101, "--family", "Plan"], "name: "),
    ],
)
def test_an_image_of_nothing_is_refused(
    debian: OsVersion, source: Path, words: list[str], named: str
) -> None:
    source.write_bytes(qcow2())

    said = refused("import_image", str(source), "--sha256", sha256(qcow2()), "--os", "Debian 12", *words)

    assert named in said
    assert OsVersion.objects.get() == debian
    assert OperatingSystem.objects.count() == 1


@pytest.mark.parametrize(
    "source",
    ["/no/such/file", "/", "", "http://127.0.0.1:1/image", "http://a b/", "http://[", "ftp://host/image"],
)
def test_a_source_that_cannot_be_read_is_refused_and_makes_no_system(image_dir: Path, source: str) -> None:
    digest = sha256(qcow2())

    said = refused("import_image", source, "--sha256", digest, "--os", "Plan 9", "--family", "Plan")

    assert "cannot be read" in said
    assert not OsVersion.objects.exists()
    assert not OperatingSystem.objects.exists()


class Website(BaseHTTPRequestHandler):
    """/image is an image, /half breaks off, /strange is no HTTP, all else is missing."""

    def do_GET(self) -> None:
        if self.path == "/strange":
            self.wfile.write(b"\x00\xff\r\n\r\n")
            return
        found = self.path in {"/image", "/half"}
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(qcow2())))
        self.end_headers()
        self.wfile.write(qcow2()[: 100 if self.path == "/half" else None])

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def website() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Website) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_image_may_come_from_a_website(debian: OsVersion, website: str) -> None:
    import_image(f"{website}/image", qcow2())

    debian.refresh_from_db()
    assert versions_on_offer().contains(debian)


@pytest.mark.parametrize("path", ["missing", "half", "strange"])
def test_a_website_without_the_image_is_refused(
    debian: OsVersion, image_dir: Path, website: str, path: str
) -> None:
    said = refused("import_image", f"{website}/{path}", "--sha256", sha256(qcow2()), "--os", "Debian 12")

    assert website in said
    assert list(image_dir.iterdir()) == []
