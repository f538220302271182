"""The Celery tasks of accounts; other rooms send them by name."""

from celery import shared_task

from accounts.access.idempotency import forget_old_answers

FORGOTTEN_AT_ONCE = 10_000


@shared_task(name="accounts.forget_answers")
def forget_answers() -> None:
    forget_old_answers(FORGOTTEN_AT_ONCE)
