"""The actor: who makes a change.  Every change is recorded with its actor.

Each entrance names its actor once: bearer authentication, the middleware for staff
sessions, ``manage.py`` and each Celery task.  Services read ``current``; no service is
told by its caller.  A part of the system that acts by itself (reconcile,
dunning) names itself, whatever triggered it.
"""

import getpass
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from celery.signals import task_postrun, task_prerun

LONGEST_ID, LONGEST_LABEL = 100, 150


class ActorKind(StrEnum):
    TOKEN = "token"  # noqa: S105  (a customer's API token)
    STAFF = "staff"  # a user of the admin site
    OPERATOR = "operator"  # a person at manage.py
    SYSTEM = "system"  # a part of the system


@dataclass(frozen=True)
class Actor:
    """``kind`` and ``id`` identify the actor: code compares them.  ``label`` is for people."""

    kind: ActorKind
    id: str
    label: str

    def __str__(self) -> str:
        return f"{self.kind} {self.label}"

    @property
    def columns(self) -> dict[str, str]:
        """The columns of ``accounts.models.ActorColumns``, by their names."""
        return {"actor_kind": self.kind, "actor_id": self.id, "actor_label": self.label}


class Named(Protocol):
    """Anything with a name that can be shown: an API token."""

    pk: Any
    name: str


class StaffUser(Protocol):
    pk: Any

    def get_username(self) -> str: ...


def token_actor(token: Named) -> Actor:
    return _actor(ActorKind.TOKEN, str(token.pk), token.name)


def staff_actor(user: StaffUser) -> Actor:
    return _actor(ActorKind.STAFF, str(user.pk), user.get_username())


def operator_actor(login: str = "") -> Actor:
    """The person at manage.py: the login name, or the user id of the process."""
    login = login or _login()
    return _actor(ActorKind.OPERATOR, login, login)


def system_actor(part: str) -> Actor:
    return _actor(ActorKind.SYSTEM, part, part)


class NobodyActs(RuntimeError):
    """No actor was named: a bug in an entrance (view, command or task)."""


_current: ContextVar[Actor | None] = ContextVar("actor", default=None)


def current() -> Actor:
    """The current actor.  Raises NobodyActs."""
    actor = _current.get()
    if actor is None:
        raise NobodyActs("No entrance has said who acts.")
    return actor


@contextmanager
def acting_as(actor: Actor | None) -> Iterator[None]:
    """Make this actor ``current`` during the block; None: nobody.  Afterwards the previous actor is."""
    before = _current.set(actor)
    try:
        yield
    finally:
        _current.reset(before)


def become(actor: Actor) -> None:
    """Act as this actor until the surrounding ``acting_as`` ends: for entrances that learn the actor late."""
    _current.set(actor)


class ActorFilter(logging.Filter):
    """Gives every line of the log its ``actor``, such as ``token:12``; ``-`` where nobody acts.

    The label is left out: a customer chooses a token's name, and could forge lines with it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        actor = _current.get()
        record.actor = f"{actor.kind}:{actor.id}" if actor else "-"
        return True


_before_task: dict[str, Token[Actor | None]] = {}


@task_prerun.connect
def _act_as_task(task_id: str, task: Any, **kwargs: Any) -> None:
    _before_task[task_id] = _current.set(system_actor(task.name))


@task_postrun.connect
def _task_is_over(task_id: str, **kwargs: Any) -> None:
    _current.reset(_before_task.pop(task_id))


def _actor(kind: ActorKind, id: str, label: str) -> Actor:
    return Actor(kind, id[:LONGEST_ID], label[:LONGEST_LABEL])


def _login() -> str:
    """The login name, also under sudo.  Empty in a container whose user id has no name."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (OSError, KeyError):
        return f"uid {os.getuid()}"
