"""Parallel creates cannot pass the limits of their account."""

from collections.abc import Callable
from typing import Any

import pytest

from core.errors import Refusal
from servers.models import Server
from tests.factories import AccountFactory
from tests.flows.test_operations import at_once

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("limit", ["VPS_MAX_SERVERS", "VPS_MAX_OPEN_CREATES"])
def test_of_creates_at_once_no_more_than_the_limit_are_taken(
    order: Callable[..., Server], settings: Any, limit: str
) -> None:
    """Guard: ``create_server`` counts while it holds the account's lock."""
    order()  # the rows of the catalogue
    setattr(settings, limit, 3)
    account = AccountFactory.create()
    results = at_once(8, lambda: order(account=account))
    assert sum(isinstance(result, Server) for result in results) == 3
    codes = {result.code for result in results if isinstance(result, Refusal)}
    assert codes == {"server_limit_reached" if limit == "VPS_MAX_SERVERS" else "too_many_creates"}
    assert Server.objects.filter(account=account).count() == 3
