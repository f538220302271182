"""Settings from the environment: nonsense stops the program at start, by the name of the variable."""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from core import env

PROJECT = Path(__file__).parents[2]
SECRET = "0123456789abcdef0123456789abcdef"
SOUND = {
    "VPS_SECRET_KEY": SECRET,
    "VPS_ALLOWED_HOSTS": "api.example.com",
    "DATABASE_URL": "postgres://vps:hunter2@db.example.com/vps",
    "REDIS_URL": "redis://redis.example.com:6379/0",
}

# Of each kind of variable: what is taken and as what, and what is nonsense.
TAKEN: list[tuple[Callable[[str], Any], str, Any]] = [
    (env.env_str, " text ", "text"),
    (env.env_secret, SECRET, SECRET),
    (env.env_optional_secret, SECRET, SECRET),
    (env.env_optional_secret, "  ", ""),
    (env.env_optional_key, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", b"0123456789abcdef" * 2),
    (env.env_optional_key, "", b""),
    (lambda name: env.env_store(name, "/a"), "", "/a"),
    (lambda name: env.env_store(name, "/a"), "/var/lib/backups", "/var/lib/backups"),
    (lambda name: env.env_store(name, "/a"), "s3://bucket/a/prefix", "s3://bucket/a/prefix"),
    (env.env_endpoint, "https://s3.example.com:9000", "https://s3.example.com:9000"),
    (env.env_endpoint, "", ""),
    (lambda name: env.env_bool(name, False), "TRUE", True),
    (lambda name: env.env_bool(name, False), "yes", True),
    (lambda name: env.env_bool(name, True), "off", False),
    (lambda name: env.env_bool(name, True), "0", False),
    (lambda name: env.env_int(name, 5), "0", 0),
    (lambda name: env.env_int(name, 5, minimum=1), "86400", 86400),
    (lambda name: env.env_decimal(name, "5"), "12.50", Decimal("12.50")),
    (env.env_list, "a, b ,,c", ["a", "b", "c"]),
    (env.env_hosts, "a.example.com,.example.org", ["a.example.com", ".example.org"]),
    (env.env_origins, "https://a.example.com", ["https://a.example.com"]),
    (env.env_networks, "10.0.0.0/8, fd00::/8", [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]),
    (lambda name: env.env_choice(name, ["A", "B"], "A"), "B", "B"),
    (env.env_redis, "rediss://:secret@host:6380/1", "rediss://:secret@host:6380/1"),
    (env.env_redis, "unix:///run/redis.sock", "unix:///run/redis.sock"),
]
NONSENSE: list[tuple[Callable[[str], Any], list[str]]] = [
    (env.env_str, ["", "  "]),
    (env.env_secret, ["", "short", "a" * 31]),
    (env.env_optional_secret, ["short", "a" * 31]),
    (env.env_optional_key, ["short", "a" * 44, "YQ==", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZW\u00e4="]),
    (
        lambda name: env.env_store(name, "/a"),
        ["backups", "s3://", "s3:///prefix", "ftp://h/x", "/a b", "s3://b/x?y", "file:///a"],
    ),
    (
        env.env_endpoint,
        ["s3.example.com", "https://", "ftp://h", "https://h:port", "http://[", "https://h/path"],
    ),
    (lambda name: env.env_bool(name, False), ["maybe", "2", "tru"]),
    (lambda name: env.env_int(name, 5), ["-1", "1.5", "five", "1e3", "0x10", "²", "1 2", "9" * 5_000]),
    (lambda name: env.env_int(name, 5, minimum=1), ["0"]),
    (lambda name: env.env_decimal(name, "5"), ["-1", "NaN", "Infinity", "free", "1,5", "1e400", "0.00001"]),
    (env.env_hosts, ["", ",", "https://api.example.com", "api.example.com/"]),
    (env.env_origins, ["api.example.com", "https://a.example.com,b.example.com"]),
    (env.env_networks, ["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/8 fd00::/8", "localhost", "*"]),
    (lambda name: env.env_choice(name, ["DEBUG", "INFO"], "INFO"), ["LOUD", "info"]),
    (
        env.env_database,
        [
            "",
            "db",
            "mysql://h/db",
            "postgres://",
            "postgres://h",
            "postgres://h/db?nonsense=1",
            "postgres://[",
        ],
    ),
    (env.env_redis, ["", "redis", "http://h", "redis://h:port/0", "redis://h:99999/0", "redis://["]),
]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THE_NAME", raising=False)
    monkeypatch.delenv("THE_NAME_FILE", raising=False)


@pytest.mark.parametrize(("read", "text", "value"), TAKEN)
def test_what_makes_sense_is_taken(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[str], Any], text: str, value: Any
) -> None:
    monkeypatch.setenv("THE_NAME", text)

    assert read("THE_NAME") == value


@pytest.mark.parametrize(("read", "texts"), NONSENSE)
def test_nonsense_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[str], Any], texts: list[str]
) -> None:
    for text in texts:
        monkeypatch.setenv("THE_NAME", text)
        with pytest.raises(ImproperlyConfigured, match=r"^THE_NAME") as refusal:
            read("THE_NAME")
        assert str(refusal.value).endswith(".")


@pytest.mark.parametrize("read", [env.env_secret, env.env_optional_key, env.env_database, env.env_redis])
def test_a_refusal_does_not_tell_the_secret(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[str], Any]
) -> None:
    monkeypatch.setenv("THE_NAME", "http://hunter2@host")

    with pytest.raises(ImproperlyConfigured) as refusal:
        read("THE_NAME")
    assert "hunter2" not in str(refusal.value)


def test_what_is_not_set_or_empty_has_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (None, "", "  "):
        if text is not None:
            monkeypatch.setenv("THE_NAME", text)
        assert env.env_str("THE_NAME", "default") == "default"
        assert env.env_bool("THE_NAME", True) is True
        assert env.env_int("THE_NAME", 5) == 5
        assert env.env_decimal("THE_NAME", "5") == 5
        assert env.env_origins("THE_NAME") == []
        assert env.env_networks("THE_NAME") == []
        assert env.env_choice("THE_NAME", ["A"], "A") == "A"


def test_a_database_url_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_NAME", "postgres://vps:p%40ss@db.example.com:5433/store?sslmode=require")

    assert env.env_database("THE_NAME") == {
        "ENGINE": "core.postgres",
        "NAME": "store",
        "USER": "vps",
        "PASSWORD": "p@ss",
        "HOST": "db.example.com",
        "PORT": "5433",
        "OPTIONS": {"sslmode": "require"},
    }


def test_a_database_may_be_reached_by_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_NAME", "postgres://vps@%2Frun%2Fpostgres/vps")

    assert env.env_database("THE_NAME")["HOST"] == "/run/postgres"


# NAME_FILE.


def test_a_variable_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    monkeypatch.setenv("THE_NAME_FILE", str(tmp_path / "secret"))

    assert env.env_secret("THE_NAME") == SECRET


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b""])
def test_a_file_that_is_missing_or_no_text_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    monkeypatch.setenv("THE_NAME_FILE", str(tmp_path / "secret"))

    with pytest.raises(ImproperlyConfigured, match=r"^THE_NAME"):
        env.env_secret("THE_NAME")


def test_lines_of_a_file_do_not_overrule_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("THE_NAME", "mine")
    monkeypatch.setenv("ANOTHER_NAME", "forgotten afterwards")
    monkeypatch.delenv("ANOTHER_NAME")
    (tmp_path / "private.env").write_text("THE_NAME=theirs\nANOTHER_NAME=theirs\n")

    env.load_file(tmp_path / "private.env")
    env.load_file(tmp_path / "no such file")

    assert (os.environ["THE_NAME"], os.environ["ANOTHER_NAME"]) == ("mine", "theirs")


# The whole settings, each variable wrong in its turn.

WRONG = {
    "VPS_SECRET_KEY": ["", "short"],
    "VPS_OLD_SECRET_KEYS": ["short", "a" * 50 + ",short"],
    "VPS_DEBUG": ["maybe"],
    "VPS_ALLOWED_HOSTS": ["", "https://api.example.com"],
    "VPS_TRUSTED_ORIGINS": ["admin.example.com"],
    "VPS_HTTPS": ["maybe"],
    "VPS_LOG_LEVEL": ["LOUD"],
    "VPS_LOG_FORMAT": ["xml"],
    "DATABASE_URL": ["", "sqlite:///db"],
    "REDIS_URL": ["", "amqp://host"],
    "VPS_METRICS_TOKEN": ["short"],
    "VPS_IMAGE_DIR": [],  # any folder will do
    "VPS_BACKUP_KEY": ["short", "a" * 44],
    "VPS_BACKUP_STORE": ["backups", "s3://", "ftp://host/folder"],
    "VPS_BACKUP_S3_ENDPOINT": ["s3.example.com"],
    "VPS_BACKUP_S3_REGION": [],  # a store's own word
    "VPS_BACKUP_S3_ACCESS_KEY_ID": [],  # likewise
    "VPS_BACKUP_S3_SECRET_ACCESS_KEY": [],
    "VPS_BACKUPS_PER_HOST": ["0", "some"],
    "VPS_BACKUPS_BOOTED_DAILY": ["-1", "all"],
    "VPS_TRIAL_MEMORY": ["63", "1 GiB"],
    "VPS_MIN_RUNWAY_HOURS": ["a day"],
    "VPS_BACKUP_WINDOW_MINUTES": ["-1", "1201", "3 h"],
    "VPS_BACKUPS_DAILY": ["0", "many"],
    "VPS_BACKUPS_WEEKLY": ["-1", "many"],
    "VPS_MAX_MANUAL_BACKUPS": ["-1", "many"],
    "VPS_MAX_SNAPSHOTS": ["-1", "many"],
    "VPS_BACKUP_PRICE_RATIO": ["20 %", "-0.1"],
    "VPS_GRACE_HOURS": ["-1", "3 days"],
    "VPS_TERMINATE_AFTER_DAYS": ["-1"],
    "VPS_SIGNUP_CREDITS": ["-1"],
    "VPS_OPERATION_LEASE": ["0"],
    "VPS_BOOT_TIMEOUT": ["0"],
    "VPS_SHUTDOWN_TIMEOUT": ["0"],
    "VPS_ADDRESS_REST": ["-1"],
    "VPS_POOL_RESERVE": ["-1", "101", "5 %"],
    "VPS_RATE_LIMIT": ["-1", "many"],
    "VPS_MAX_SERVERS": ["-1", "many"],
    "VPS_MAX_OPEN_CREATES": ["-1", "many"],
    "VPS_MAX_OPEN_RESTORES": ["-1", "many"],
    "VPS_WEBHOOK_PRIVATE_NETWORKS": ["10.0.0.1/8", "localhost", "10.0.0.0/8;fd00::/8"],
}


def settings_with(monkeypatch: pytest.MonkeyPatch, **variables: str) -> dict[str, Any]:
    monkeypatch.setattr(os, "environ", SOUND | variables)
    return runpy.run_path(str(PROJECT / "vpsorg" / "settings.py"))


def test_four_variables_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_with(monkeypatch)

    assert settings["DEBUG"] is False
    assert settings["DATABASES"]["default"]["NAME"] == "vps"
    assert settings["CELERY_BROKER_URL"] == SOUND["REDIS_URL"]


@pytest.mark.parametrize("variable", WRONG)
def test_a_wrong_variable_stops_the_program_by_its_name(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for value in WRONG[variable]:
        with pytest.raises(ImproperlyConfigured, match=f"^{variable}"):
            settings_with(monkeypatch, **{variable: value})


@pytest.mark.parametrize("variable", SOUND)
def test_what_is_required_has_no_default(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delitem(SOUND, variable)

    with pytest.raises(ImproperlyConfigured, match=f"^{variable} is not set"):
        settings_with(monkeypatch)


@pytest.mark.parametrize(
    ("command", "variable", "value"),
    [
        (["check"], "VPS_SECRET_KEY", ""),
        (["migrate"], "DATABASE_URL", "sqlite:///db"),
        (["create_token", "--account", "a@example.com", "--name", "x"], "VPS_BOOT_TIMEOUT", "soon"),
    ],
)
def test_manage_py_ends_with_one_sentence(
    tmp_path: Path, command: list[str], variable: str, value: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=PROJECT,
        env=SOUND | {"VPS_VAR": str(tmp_path), variable: value},
        capture_output=True,
        text=True,
    )

    assert ended.returncode != 0
    assert ended.stdout == ""
    [sentence] = ended.stderr.splitlines()
    assert sentence.startswith(f"manage.py: {variable}")
