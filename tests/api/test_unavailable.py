"""A database that is away for a moment is no bug of ours."""

import pytest
from django.db import OperationalError

from tests.api.contract import is_refusal
from tests.conftest import Customer


def test_while_the_database_is_away_clients_are_told_to_come_back(
    alice: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as away:
        away.setattr("django.db.backends.utils.CursorWrapper.execute", refuse)
        answer = alice.get("/servers/")

    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert is_refusal(answer.json(), "unavailable")
