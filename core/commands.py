"""Shared code of the management commands.  Whatever is wrong, a command says it in one sentence."""

import json
import signal
import sys
import threading
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from math import isfinite
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import IntegrityError

from core.database import is_unavailable, refusal_by_trigger
from core.errors import Refusal

LARGEST = 10**19 - 1  # of 19 digits
YEAR_S = 366 * 24 * 3600.0


class OurCommand(BaseCommand):
    """The base of all commands."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        for name, value in options.items():
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and not is_storable(text):
                    raise CommandError(f"{name}: Should be UTF-8 and have no NUL: {text!r}.")
        try:
            with _ended_by_sigterm():
                return super().execute(*args, **options)
        except KeyboardInterrupt:
            raise CommandError("Stopped.", returncode=130) from None
        except ValidationError as error:
            raise CommandError(sentence_of(error)) from None
        except Refusal as refusal:
            raise CommandError(f"{refusal.field}: {refusal}" if refusal.field else str(refusal)) from None
        except IntegrityError as error:
            sentence = refusal_by_trigger(error)
            if sentence is None:
                raise
            raise CommandError(sentence) from None
        except OSError as error:  # a folder that cannot be written, a file that is none
            raise CommandError(str(error)) from None
        except Exception as error:
            if not is_unavailable(error):
                raise
            raise CommandError(f"Postgres could not answer: {' '.join(str(error).split())}") from None


class ListCommand(OurCommand):
    """The base of commands that print rows: in columns for people, with --json for programs."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="a list of objects instead of columns")

    def show(self, rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
        """Print rows that all have the same keys, which head the columns.  Prints nothing for no rows."""
        if as_json:
            self.stdout.write(json.dumps(rows, indent=1, default=str))
            return
        cells = [["-" if value in (None, "") else str(value) for value in row.values()] for row in rows]
        lines = [list(rows[0]), *cells] if rows else []
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            told = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            self.stdout.write(told.rstrip())


def age_of(moment: datetime | None, now: datetime) -> str:
    """How long ago a moment was, in its largest unit: ``5m``, ``3h``, ``12d``; empty for none."""
    if moment is None:
        return ""
    seconds = int((now - moment).total_seconds())
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{max(0, seconds)}s"


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM raise SystemExit, as Ctrl-C raises KeyboardInterrupt: half-done work is cleared away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_storable(text: str) -> bool:
    """Whether Postgres can store a text.  Words of a shell and of JSON may be no UTF-8, or have a NUL."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def sentence_of(error: ValidationError) -> str:
    """A validation error in one line: ``name: This field cannot be blank.``"""
    return " ".join(
        " ".join(told) if field == NON_FIELD_ERRORS else f"{field}: {' '.join(told)}"
        for field, told in error.message_dict.items()
    )


def whole_number(minimum: int, maximum: int = LARGEST) -> Callable[[str], int]:
    """The type of an option that is a whole number."""
    limits = f"from {minimum}" if maximum == LARGEST else f"from {minimum} to {maximum}"

    def parse(text: str) -> int:
        is_number = text.isascii() and text.isdigit() and len(text) < 20
        if not (is_number and minimum <= int(text) <= maximum):
            raise ArgumentTypeError(f"should be a whole number {limits}")
        return int(text)

    return parse


def seconds(text: str) -> float:
    """The type of an option that is a duration, at most a year."""
    try:
        found = float(text)
    except ValueError:
        found = -1
    if not (isfinite(found) and 0 <= found <= YEAR_S):
        raise ArgumentTypeError("should be a number of seconds, 0 or more")
    return found
