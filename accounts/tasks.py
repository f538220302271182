"""The Celery tasks of accounts, by the names that others send."""

from celery import shared_task

from accounts.idempotency import forget_old_answers
from accounts.webhooks import delivery

WAIT_S = 60  # that a message may, behind receivers that hang; the sweep's own too
SWEPT_AT_ONCE = 1000
FORGOTTEN_AT_ONCE = 10_000


@shared_task(name="accounts.deliver_webhook")
def deliver_webhook(delivery_id: int) -> None:
    delivery.deliver(delivery_id)


@shared_task(name="accounts.sweep_webhooks")
def sweep_webhooks() -> None:
    """Wake what is due: what failed before, and what was forgotten.  Remove what is old."""
    for row in delivery.first_due_of_each_webhook()[:SWEPT_AT_ONCE]:
        delivery.wake(row.pk, expires_s=WAIT_S)
    delivery.remove_old_deliveries(SWEPT_AT_ONCE)


@shared_task(name="accounts.forget_answers")
def forget_answers() -> None:
    forget_old_answers(FORGOTTEN_AT_ONCE)
