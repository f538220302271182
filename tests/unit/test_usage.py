"""From counters to what a customer reads: restarts, month ends, bounds."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import DatabaseError, transaction

from servers.models import ResourceUsage
from servers.usage import Sample, record_sample
from tests.factories import ServerFactory

NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)
GB = 10**9

pytestmark = pytest.mark.django_db


def sample(at: datetime = NOON, **counted: int) -> Sample:
    nothing = ("cpu_time_ns", "memory_used_mib", "disk_used_gib", "received_bytes", "sent_bytes")
    return Sample(at=at, **({"vcpus": 2} | dict.fromkeys(nothing, 0) | counted))


def cpu(seconds_after_noon: float, cpu_seconds: float, vcpus: int = 2) -> Sample:
    at = NOON + timedelta(seconds=seconds_after_noon)
    return sample(at, cpu_time_ns=int(cpu_seconds * 1e9), vcpus=vcpus)


def traffic(at: datetime, received: int, sent: int = 0) -> Sample:
    return sample(at, received_bytes=received * GB, sent_bytes=sent * GB)


def after(*samples: Sample) -> ResourceUsage:
    """A new server's usage after these samples, as it is in the database."""
    usage: ResourceUsage = ServerFactory.create().usage
    for one in samples:
        record_sample(usage, one)
    return ResourceUsage.objects.get(pk=usage.pk)


def test_usage_that_was_removed_is_not_made_again() -> None:
    """Guard: ``update_fields`` in ``record_sample``."""
    usage = ServerFactory.create().usage
    ResourceUsage.objects.all().delete()

    with pytest.raises(DatabaseError), transaction.atomic():
        record_sample(ResourceUsage(pk=usage.pk or 1, server_id=usage.server_id), sample())
    assert not ResourceUsage.objects.exists()


def test_what_is_used_now_is_what_was_sampled_last() -> None:
    usage = after(sample(memory_used_mib=1, disk_used_gib=2), sample(memory_used_mib=700, disk_used_gib=3))

    assert (usage.memory_used_mib, usage.disk_used_gib) == (700, 3)
    assert usage.sampled_at == NOON


# CPU.


def test_before_the_second_sample_nothing_is_known_of_the_cpu() -> None:
    assert after(cpu(0, 1000)).cpu_percent == 0.0


@pytest.mark.parametrize(
    ("cpu_seconds", "vcpus", "percent"),
    [(0, 2, 0.0), (30, 2, 25.0), (60, 2, 50.0), (120, 2, 100.0), (30, 1, 50.0)],
)
def test_cpu_is_a_share_of_all_vcpus_since_the_last_sample(
    cpu_seconds: int, vcpus: int, percent: float
) -> None:
    usage = after(cpu(-60, 7, vcpus), cpu(0, 100, vcpus), cpu(60, 100 + cpu_seconds, vcpus))

    assert usage.cpu_percent == pytest.approx(percent)


def test_cpu_is_never_more_than_all_of_it() -> None:
    """The host's clock and the counter are not read at the same instant."""
    assert after(cpu(0, 0), cpu(60, 121)).cpu_percent == 100.0


def test_a_machine_that_was_restarted_begins_anew() -> None:
    assert after(cpu(0, 500), cpu(60, 10)).cpu_percent == 0.0
    assert after(cpu(0, 500), cpu(60, 10), cpu(120, 70)).cpu_percent == pytest.approx(50.0)


@pytest.mark.parametrize("seconds", [60, 59])
def test_two_samples_of_one_moment_do_not_divide_by_nothing(seconds: int) -> None:
    assert after(cpu(0, 0), cpu(60, 60), cpu(seconds, 61)).cpu_percent == pytest.approx(50.0)


# Traffic.


def test_traffic_is_counted_from_the_first_sample_on() -> None:
    usage = after(traffic(NOON, received=3, sent=5), traffic(NOON, received=4, sent=9))

    assert (usage.received_bytes, usage.sent_bytes) == (4 * GB, 9 * GB)


def test_a_counter_that_went_back_counts_from_zero() -> None:
    usage = after(traffic(NOON, 100), traffic(NOON, 5), traffic(NOON, 6))

    assert usage.received_bytes == 106 * GB


def test_the_larger_direction_is_billed_in_whole_gb() -> None:
    assert after(sample(received_bytes=2 * GB - 1, sent_bytes=17)).bandwidth_used_gb == 1
    assert after(sample(received_bytes=17, sent_bytes=2 * GB)).bandwidth_used_gb == 2


def test_a_month_begins_at_midnight_utc_on_its_first_day() -> None:
    last = datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC)
    first = last + timedelta(seconds=1)

    assert after(traffic(last, 100), traffic(last, 110)).received_bytes == 110 * GB
    assert after(traffic(last, 100), traffic(first, 110)).received_bytes == 10 * GB
    assert after(traffic(last, 100), traffic(first, 110)).month == first.date()


def test_the_same_month_of_the_next_year_is_another() -> None:
    usage = after(traffic(NOON, 100), traffic(NOON.replace(year=2027), 101))

    assert usage.received_bytes == 1 * GB


def test_a_restart_at_the_turn_of_the_month_loses_nothing() -> None:
    usage = after(traffic(NOON, 100), traffic(NOON + timedelta(days=1), 7))

    assert usage.received_bytes == 7 * GB
