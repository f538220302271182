"""Safe retries: the same key and body is done once and answered the same again."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from threading import Barrier, Thread
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from accounts import tasks
from accounts.access.idempotency import forget_old_answers
from accounts.models import Account, IdempotentAnswer
from billing import ledger
from servers.models import Server
from tests.api.contract import is_refusal, is_validation_error
from tests.conftest import Customer

KEY = {"HTTP_IDEMPOTENCY_KEY": "8e03978e-40d5-43dd-bc93-6894a57f9324"}


def test_a_create_that_is_sent_again_makes_no_second_server(alice: Customer, shop: dict[str, Any]) -> None:
    first, again = (alice.post("/servers/", shop, **KEY) for _ in range(2))

    assert (first.status_code, first.json(), first["Location"]) == (201, again.json(), again["Location"])
    assert again.status_code == 201
    assert again["Idempotency-Replayed"] == "true"
    assert Server.objects.count() == 1


def test_the_answer_of_an_action_is_repeated_too(alice: Customer, shop: dict[str, Any]) -> None:
    server_id = alice.post("/servers/", shop).json()["id"]
    Server.objects.update(status="active")
    Server.objects.get().operations.all().update(status="succeeded")

    first, again = (alice.post(f"/servers/{server_id}/reboot/", **KEY) for _ in range(2))

    assert (first.status_code, first.content) == (again.status_code, again.content)
    assert Server.objects.get().operations.count() == 2


def test_the_same_key_with_another_request_is_refused(alice: Customer, shop: dict[str, Any]) -> None:
    alice.post("/servers/", shop, **KEY)

    answer = alice.post("/servers/", shop | {"name": "other"}, **KEY)

    assert answer.status_code == 422
    assert is_refusal(answer.json(), "idempotency_key_reused")


def test_a_key_belongs_to_its_account(alice: Customer, customer: Callable[..., Customer], shop: Any) -> None:
    answers = [who.post("/servers/", shop, **KEY).json()["id"] for who in (alice, customer())]

    assert len(set(answers)) == 2


def test_a_refusal_is_not_kept(alice: Customer, customer: Callable[..., Customer], shop: Any) -> None:
    poor = customer(credits=0)
    assert poor.post("/servers/", shop, **KEY).status_code == 402
    ledger.top_up(account=poor.account, amount=Decimal(100), reason="paid", made_by="a test")

    assert poor.post("/servers/", shop, **KEY).status_code == 201


def test_after_a_day_a_key_is_new(alice: Customer, shop: dict[str, Any]) -> None:
    alice.post("/servers/", shop, **KEY)
    IdempotentAnswer.objects.update(created_at=timezone.now() - timedelta(hours=24))

    assert alice.post("/servers/", shop, **KEY).status_code == 201
    assert Server.objects.count() == 2


def test_answers_are_forgotten_after_a_day(alice: Customer, shop: dict[str, Any]) -> None:
    """The table would grow for ever.  Guard: ``forget_old_answers``, and the scheduler that has it done."""
    alice.post("/servers/", shop, **KEY)
    alice.post("/servers/", shop, HTTP_IDEMPOTENCY_KEY="another")
    day = timedelta(hours=24)
    IdempotentAnswer.objects.filter(key="another").update(created_at=timezone.now() - day)

    assert tasks.forget_answers.name in settings.PERIODIC_JOBS
    tasks.forget_answers()

    assert IdempotentAnswer.objects.get().key == KEY["HTTP_IDEMPOTENCY_KEY"]


def test_a_key_that_is_used_again_while_it_is_forgotten_keeps_its_new_answer(
    alice: Customer, shop: dict[str, Any]
) -> None:
    """Guard: ``old.filter`` in ``forget_old_answers``."""
    alice.post("/servers/", shop, **KEY)
    IdempotentAnswer.objects.update(created_at=timezone.now() - timedelta(hours=24))

    def use_again(execute: Any, sql: str, *args: Any) -> Any:
        if sql.startswith("DELETE"):
            with connection.cursor() as cursor:
                cursor.execute("UPDATE accounts_idempotentanswer SET created_at = now()")
        return execute(sql, *args)

    with connection.execute_wrapper(use_again):
        forget_old_answers(10)

    assert IdempotentAnswer.objects.exists()


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_a_key_that_is_none_is_refused(alice: Customer, shop: dict[str, Any], key: str) -> None:
    answer = alice.post("/servers/", shop, HTTP_IDEMPOTENCY_KEY=key)

    assert answer.status_code == 400
    assert is_validation_error(answer.json(), "Idempotency-Key")
    assert not Server.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_one_is_done_and_the_others_get_its_answer_or_are_told_to_wait(
    alice: Customer, shop: dict[str, Any]
) -> None:
    gate, answers = Barrier(6), list[Any]()

    def send() -> None:
        mine = Customer(Account.objects.get(pk=alice.account.pk))
        gate.wait()
        answers.append(mine.post("/servers/", shop, **KEY))
        connection.close()

    threads = [Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Server.objects.count() == 1
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert all(answer["Retry-After"] for answer in answers if answer.status_code == 409)
