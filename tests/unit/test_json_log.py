"""The log as JSON: whatever is logged, one line that a program reads."""

import json
import logging
import sys
from typing import Any

import pytest

from core.json_log import JsonFormatter


def line(message: str, *args: Any, **more: Any) -> str:
    record = logging.LogRecord(
        "servers.x", logging.WARNING, "x.py", 1, message, args, more.pop("exc_info", None)
    )
    vars(record).update(more)
    return JsonFormatter().format(record)


def test_a_line_is_an_object_with_the_facts_of_the_text() -> None:
    told = json.loads(line("%s of %s", "start #1", "server 5", request_id="abc", actor="token:7"))

    assert told.pop("time").endswith("+00:00")
    assert told == {
        "level": "WARNING",
        "request_id": "abc",
        "actor": "token:7",
        "logger": "servers.x",
        "message": "start #1 of server 5",
    }


def test_a_bug_has_its_traceback() -> None:
    try:
        raise ValueError("no such thing")
    except ValueError:
        told = json.loads(line("a bug", exc_info=sys.exc_info()))

    assert told["error"].startswith("Traceback")
    assert told["error"].endswith("ValueError: no such thing")


@pytest.mark.parametrize("text", ["line\nline", 'quote"', "nul\0", "💥", "\ud800", "\x1b[31m"])
def test_whatever_is_logged_it_is_one_line(text: str) -> None:
    told = line("%s", text)

    assert "\n" not in told
    assert json.loads(told)["message"] == text
