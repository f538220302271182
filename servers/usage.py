"""Turns the counters of a machine, which restart with it, into a server's usage."""

from dataclasses import dataclass
from datetime import datetime

from servers.models import ResourceUsage


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a host counted for one running machine since that machine was started."""

    at: datetime
    cpu_time_ns: int
    vcpus: int
    memory_used_mib: int
    disk_used_gib: int
    received_bytes: int
    sent_bytes: int


def record_sample(usage: ResourceUsage, sample: Sample) -> None:
    """Add a sample: CPU since the last one, traffic to the month's sums.  Months begin at 00:00 UTC.

    Raises DatabaseError when the row is gone: it is not made again.
    """
    month = sample.at.date().replace(day=1)
    is_new_month = usage.month != month
    received = _growth(usage.last_received_bytes, sample.received_bytes)
    sent = _growth(usage.last_sent_bytes, sample.sent_bytes)
    written = {
        "month": month,
        "received_bytes": received if is_new_month else usage.received_bytes + received,
        "sent_bytes": sent if is_new_month else usage.sent_bytes + sent,
        "cpu_percent": _cpu_percent(usage, sample),
        "memory_used_mib": sample.memory_used_mib,
        "disk_used_gib": sample.disk_used_gib,
        "last_cpu_time_ns": sample.cpu_time_ns,
        "last_received_bytes": sample.received_bytes,
        "last_sent_bytes": sample.sent_bytes,
        "sampled_at": sample.at,
    }
    for name, value in written.items():
        setattr(usage, name, value)
    usage.save(update_fields=written)


def _growth(last: int, now: int) -> int:
    """A counter that went back was restarted at zero in between."""
    return now - last if now >= last else now


def _cpu_percent(usage: ResourceUsage, sample: Sample) -> float:
    """Of all the server's vCPUs together, 0 to 100."""
    if usage.sampled_at is None or sample.cpu_time_ns < usage.last_cpu_time_ns:
        return 0.0
    elapsed_ns = (sample.at - usage.sampled_at).total_seconds() * 1e9
    if elapsed_ns <= 0:
        return usage.cpu_percent
    used_ns = sample.cpu_time_ns - usage.last_cpu_time_ns
    return min(100.0, 100.0 * used_ns / (elapsed_ns * sample.vcpus))
