"""Receipts: how far an operation got, why it failed, and an answer that waits for its end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

import pytest
from django.db import connection
from django.utils import timezone

from servers.models import Operation
from servers.states import OperationStatus
from tests.api.contract import is_validation_error
from tests.conftest import Customer
from tests.factories import OperationFactory, ServerFactory


@pytest.fixture
def operation(alice: Customer) -> Operation:
    made: Operation = OperationFactory.create(server=ServerFactory.create(account=alice.account))
    return made


def test_a_failure_tells_its_code_and_its_sentence_and_nothing_for_staff(
    alice: Customer, operation: Operation
) -> None:
    Operation.objects.update(
        status="failed", error_code="guest_timeout", message="It did not come up.", error_detail="Traceback"
    )

    answer = alice.get(f"/operations/{operation.pk}/")

    assert answer.json()["error"] == {"code": "guest_timeout", "message": "It did not come up."}
    assert b"Traceback" not in answer.content


def test_the_history_of_a_server_is_newest_first(alice: Customer, operation: Operation) -> None:
    Operation.objects.update(status="succeeded", finished_at=timezone.now())
    later = OperationFactory.create(server=operation.server)

    history = alice.get(f"/servers/{operation.server_id}/operations/").json()

    assert [told["id"] for told in history["results"]] == [later.pk, operation.pk]


def test_an_open_operation_says_when_to_ask_again(alice: Customer, operation: Operation) -> None:
    answer = alice.get(f"/operations/{operation.pk}/")

    assert (answer.json()["status"], answer["Retry-After"]) == ("queued", "2")


@pytest.mark.django_db(transaction=True)
def test_an_answer_waits_for_the_end(alice: Customer, operation: Operation) -> None:
    with _ends_after(1.0, operation):
        began = time.monotonic()
        answer = alice.get(f"/operations/{operation.pk}/?wait=20")
        waited = time.monotonic() - began

    assert answer.json()["status"] == "succeeded"
    assert "Retry-After" not in answer
    assert 0.9 < waited < 10


def test_an_answer_waits_no_longer_than_asked(alice: Customer, operation: Operation) -> None:
    began = time.monotonic()
    assert alice.get(f"/operations/{operation.pk}/?wait=1").json()["status"] == "queued"
    assert 0.9 < time.monotonic() - began < 5


@pytest.mark.parametrize("wait", ["31", "-1", "x", "1.5", "9999999", "%00", "²"])
def test_a_wait_that_is_none_is_refused(alice: Customer, operation: Operation, wait: str) -> None:
    answer = alice.get(f"/operations/{operation.pk}/?wait={wait}")

    assert answer.status_code == 400
    assert is_validation_error(answer.json(), "wait")


@contextmanager
def _ends_after(seconds: float, operation: Operation) -> Iterator[None]:
    def end() -> None:
        Operation.objects.filter(pk=operation.pk).update(status=OperationStatus.SUCCEEDED)
        connection.close()

    timer = Timer(seconds, end)
    timer.start()
    yield
    timer.join()
