"""Who acts is named at every entrance, and forgotten at its end."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.urls import resolve

from accounts import actors
from accounts.access.acting import ActorMiddleware
from accounts.actors import (
    Actor,
    ActorFilter,
    ActorKind,
    NobodyActs,
    acting_as,
    become,
    current,
    operator_actor,
    staff_actor,
    system_actor,
    token_actor,
)
from tests.factories import TESTER

EVE = operator_actor("eve")


def nobody_acts() -> bool:
    try:
        current()
    except NobodyActs:
        return True
    return False


def test_an_actor_has_a_kind_and_an_id_to_compare_and_a_label_to_read() -> None:
    token = SimpleNamespace(pk=12, name="ci")
    assert token_actor(token) == Actor(ActorKind.TOKEN, "12", "ci")
    assert staff_actor(User(pk=3, username="clerk")) == Actor(ActorKind.STAFF, "3", "clerk")
    assert system_actor("reconcile") == Actor(ActorKind.SYSTEM, "reconcile", "reconcile")
    assert [str(token_actor(token)), str(EVE)] == ["token ci", "operator eve"]


def test_a_name_that_is_too_long_for_its_column_is_cut() -> None:
    actor = operator_actor("x" * 1000)
    assert (len(actor.id), len(actor.label)) == (actors.LONGEST_ID, actors.LONGEST_LABEL)


def test_without_an_actor_nothing_is_written_down() -> None:
    with acting_as(None), pytest.raises(NobodyActs):
        current()


def test_whoever_acted_before_acts_again_afterwards() -> None:
    """Guard: the ``finally`` in ``acting_as``."""

    @acting_as(EVE)
    def fails() -> None:
        assert current() == EVE
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fails()
    assert current() == TESTER


def answered(path: str, user: Any = None, deed: Callable[[], None] = lambda: None) -> list[Actor | None]:
    """Who acts during a request for a path, before and after its view has done its deed."""
    seen: list[Actor | None] = []

    def view(request: HttpRequest) -> HttpResponse:
        seen.append(None if nobody_acts() else current())
        deed()
        seen.append(None if nobody_acts() else current())
        return HttpResponse()

    request = RequestFactory().get(path)
    request.user = user or AnonymousUser()

    def get_response(request: HttpRequest) -> HttpResponse:
        request.resolver_match = resolve(request.path)
        middleware.process_view(request, view, (), {})
        return view(request)

    middleware = ActorMiddleware(get_response)
    middleware(request)
    return seen


def test_a_request_begins_with_nobody_and_leaves_nobody_behind() -> None:
    """Guard: ``acting_as`` in the middleware; without it the thread's next request has an actor."""
    assert answered("/api/v1/servers/", deed=lambda: become(EVE)) == [None, EVE]
    assert current() == TESTER


def test_in_the_admin_site_the_user_of_the_session_acts_and_in_the_api_a_session_means_nothing() -> None:
    clerk = User(pk=3, username="clerk")
    assert answered("/admin/servers/server/", clerk)[0] == staff_actor(clerk)
    assert answered("/admin/login/")[0] is None
    assert answered("/api/v1/servers/", clerk)[0] is None


def test_a_task_acts_as_itself_and_leaves_nobody_behind() -> None:
    """Guards: the two signals in actors.py."""
    app, seen = Celery(set_as_current=False), list[Actor]()

    @app.task(name="some.task")
    def task() -> None:
        seen.append(current())
        raise ArithmeticError

    task.apply()
    assert seen == [system_actor("some.task")]
    assert current() == TESTER


def line_of(actor: Actor | None) -> Any:
    record = logging.LogRecord("a", logging.INFO, "a.py", 1, "a", (), None)
    with acting_as(actor):
        assert ActorFilter().filter(record)
    return record


def test_lines_of_the_log_name_the_actor_by_its_id() -> None:
    """A customer chooses the label of a token, and could forge lines with it."""
    forger = Actor(ActorKind.TOKEN, "12", "ci\n2025-01-01 INFO all is well")
    assert line_of(forger).actor == "token:12"
    assert line_of(None).actor == "-"


@pytest.mark.parametrize(
    ("env", "login"), [({"LOGNAME": "alice"}, "alice"), ({"LOGNAME": "root", "SUDO_USER": "bob"}, "bob")]
)
def test_what_is_done_by_manage_py_is_done_by_the_operator_who_is_logged_in(
    env: dict[str, str], login: str
) -> None:
    """Guard: ``become`` in manage.py."""
    code = "from accounts.actors import current; print('by', current())"
    clean = {name: value for name, value in os.environ.items() if name not in {"LOGNAME", "SUDO_USER"}}
    shell = [sys.executable, "-W", "ignore", "manage.py", "shell", "--no-imports", "-c", code]
    told = subprocess.run(shell, env=clean | env, capture_output=True, text=True, check=True)
    assert told.stdout == f"by operator {login}\n"
