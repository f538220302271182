""".env.example is complete, explained, and in the order of settings.py."""

import os
import re
import runpy
from pathlib import Path

import pytest

from tests.unit.test_env import WRONG

PROJECT = Path(__file__).parents[2]
LINES = (PROJECT / ".env.example").read_text().splitlines()
VALUES = dict(line.split("=", 1) for line in LINES if not line.startswith("#"))


def read_by_settings() -> list[str]:
    return re.findall(r'\benv_\w+\(\s*"([A-Z0-9_]+)"', (PROJECT / "vpsorg" / "settings.py").read_text())


def substituted_by_compose() -> list[str]:
    found = re.findall(r"\$\{([A-Z_]+)", (PROJECT / "docker-compose.yml").read_text())
    return sorted(set(found), key=lambda name: (name == "PORT", name))


def test_it_has_every_variable_in_the_order_of_the_settings() -> None:
    assert list(VALUES) == read_by_settings() + substituted_by_compose()


def test_no_variable_is_missing_from_the_table_of_wrong_ones() -> None:
    assert list(WRONG) == read_by_settings()


def test_every_variable_has_its_one_line_of_comment() -> None:
    comments, variables = LINES[::2], LINES[1::2]

    assert len(comments) == len(variables) == len(VALUES)
    assert all(line.startswith("# ") for line in comments)


def test_it_holds_no_secret() -> None:
    assert VALUES["VPS_SECRET_KEY"] == ""
    assert VALUES["VPS_OLD_SECRET_KEYS"] == ""
    assert VALUES["VPS_BACKUP_KEY"] == ""
    assert VALUES["VPS_BACKUP_S3_SECRET_ACCESS_KEY"] == ""
    assert VALUES["POSTGRES_PASSWORD"] == ""
    assert ":PASSWORD@" in VALUES["DATABASE_URL"]


def test_with_a_secret_filled_in_it_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"VPS_SECRET_KEY": "a" * 50, "VPS_OLD_SECRET_KEYS": f"{'b' * 50}, {'c' * 50}"}
    monkeypatch.setattr(os, "environ", VALUES | secrets)

    settings = runpy.run_path(str(PROJECT / "vpsorg" / "settings.py"))

    assert settings["SECRET_KEY_FALLBACKS"] == ["b" * 50, "c" * 50]
    assert settings["DEBUG"] is False
    assert settings["HTTPS"] is True
