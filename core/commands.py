"""Shared code of the management commands.  Whatever is wrong, a command says it in one sentence."""

import signal
import sys
import threading
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import IntegrityError

from core.database import is_unavailable, refusal_by_trigger
from core.errors import Refusal

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


def whole_number(minimum: int) -> Callable[[str], int]:
    """The type of an option that is a whole number."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) >= minimum):
            raise ArgumentTypeError(f"should be a whole number from {minimum}")
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
