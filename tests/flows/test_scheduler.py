"""Periodic work is done, whatever became of the broker, and once however many schedulers there are."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import current_app
from django.conf import settings
from django.db.models.functions import Now

from core import broker, clock
from core.outage import Outage
from inventory.models import Hypervisor, ImageCopy
from provisioning import image_copies, reconcile, scheduler, tasks
from provisioning.models import PeriodicJob
from provisioning.scheduler import Scheduler, run_job
from provisioning.sweep import Sweep
from tests.factories import WebhookDeliveryFactory, WebhookFactory
from tests.flows.test_operations import at_once
from tests.private_services import REDIS
from tests.receiver import LOOPBACK, Receiver
from webhooks import delivery as outbox
from webhooks import tasks as webhook_tasks
from webhooks.models import WebhookDelivery

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def no_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(broker, "OUTAGE", Outage(lasts_s=2))  # not another test's
    REDIS.stop()
    yield
    REDIS.start()


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that were done.  "bad" fails."""
    done: list[str] = []

    def task(name: str) -> Any:
        def do() -> None:
            done.append(name)
            if name == "bad":
                raise ValueError("it failed")

        return do

    monkeypatch.setattr(scheduler, "_task", task)
    return done


def look() -> None:
    one = Scheduler(Sweep(), sweep_every_s=5)
    one.begin_due_jobs()
    one.finish()


def test_the_tasks_of_all_jobs_are_loaded_before_there_are_threads() -> None:
    """In a process of its own: in this one tests have loaded them."""
    code = """
from celery import current_app
from provisioning.scheduler import Scheduler
from provisioning.sweep import Sweep
Scheduler(Sweep(), sweep_every_s=5)
print(*current_app.tasks)
"""
    shell = [sys.executable, "-W", "ignore", "manage.py", "shell", "--no-imports", "-c", code]
    told = subprocess.run(shell, capture_output=True, text=True, check=True)
    assert set(settings.PERIODIC_JOBS) <= set(told.stdout.split())


def test_nothing_is_left_to_a_beat_that_nobody_runs() -> None:
    """Periodic work belongs into PERIODIC_JOBS."""
    assert not hasattr(settings, "CELERY_BEAT_SCHEDULE")


def test_what_is_due_is_done_once_and_is_due_again_later(settings: Any, done: list[str]) -> None:
    """Guard: ``leases.take`` in ``run_job``."""
    settings.PERIODIC_JOBS = {"good": 60, "bad": 5}
    at_once(4, look)
    assert sorted(done) == ["bad", "good"]
    look()
    assert len(done) == 2
    PeriodicJob.objects.update(due_at=Now() - timedelta(seconds=1))
    look()
    assert sorted(done) == ["bad", "bad", "good", "good"]
    good, bad = PeriodicJob.objects.get(name="good"), PeriodicJob.objects.get(name="bad")
    assert (good.last_error, bad.last_error) == ("", "ValueError('it failed')")
    assert good.last_run_at is not None
    assert 55 < (good.due_at - clock.now()).total_seconds() <= 60
    assert good.lease_until is None


def test_what_a_dead_scheduler_left_is_done_when_its_lease_ends(settings: Any, done: list[str]) -> None:
    settings.PERIODIC_JOBS = {"good": 60}
    job = PeriodicJob.objects.create(name="good", attempt=1, lease_until=Now() + timedelta(minutes=1))
    look()
    assert done == []
    PeriodicJob.objects.filter(pk=job.pk).update(lease_until=Now() - timedelta(seconds=1))
    look()
    assert done == ["good"]


def test_without_a_broker_hosts_are_reconciled_and_sampled(no_broker: None, host: Hypervisor) -> None:
    """Guard: the ``except`` in ``_for_each_host``."""
    Hypervisor.objects.update(last_seen_at=None)
    for name in ("reconcile_all", "sample_all", "see_to_images_all"):
        run_job(PeriodicJob.objects.create(name=f"provisioning.{name}"))
    assert Hypervisor.objects.get().last_seen_at is not None
    assert ImageCopy.objects.exists()
    assert set(PeriodicJob.objects.values_list("last_error", flat=True)) == {""}


def test_without_a_broker_messages_to_webhooks_are_sent(
    no_broker: None, receiver: Receiver, settings: Any
) -> None:
    """Guard: ``broker.OUTAGE`` in the sweep of webhooks."""
    settings.VPS_WEBHOOK_PRIVATE_NETWORKS = LOOPBACK
    for _ in range(2):
        WebhookDeliveryFactory.create(webhook=WebhookFactory.create(url=receiver.url()))
    run_job(PeriodicJob.objects.create(name="webhooks.sweep"))
    assert set(WebhookDelivery.objects.values_list("status", flat=True)) == {"delivered"}


def test_without_a_broker_hours_are_charged(no_broker: None) -> None:
    run_job(PeriodicJob.objects.create(name="servers.meter"))
    assert PeriodicJob.objects.get().last_error == ""


def test_what_waited_for_a_worker_too_long_is_dropped(
    host: Hypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: ``_is_stale``; a night's messages are not all obeyed in the morning."""
    asked: list[int] = []
    monkeypatch.setattr(reconcile, "reconcile", lambda hypervisor: asked.append(hypervisor.pk))
    monkeypatch.setattr(reconcile, "sample_usage", lambda hypervisor: asked.append(hypervisor.pk))
    monkeypatch.setattr(image_copies, "see_to_images", lambda hypervisor: asked.append(hypervisor.pk))
    monkeypatch.setattr(outbox, "deliver", asked.append)
    now, old = clock.now().isoformat(), (clock.now() - timedelta(seconds=61)).isoformat()
    ours = (tasks.reconcile_host, tasks.sample_host, tasks.see_to_images_of_host)
    for task in (*ours, webhook_tasks.deliver):
        task(host.pk, old)
        assert asked == []
        task(host.pk, now)
        assert asked == [host.pk]
        asked.clear()


def test_the_messages_of_periodic_work_say_when_they_were_sent(host: Hypervisor) -> None:
    """Guard: ``told``; and none expires by a worker's clock."""
    sent: list[tuple[Any, ...]] = []

    class Listening:
        def send_task(self, name: str, *args: Any, **options: Any) -> None:
            sent.append((name, args, options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "current_app", Listening())
        tasks.reconcile_all()
    ((name, ((pk,), told), options),) = sent
    assert (name, pk, set(options)) == ("provisioning.reconcile", host.pk, {"queue"})
    assert clock.seconds_since(told["sent_at"]) < 10
    assert current_app.tasks[name]
