"""Counts the requests that this API answered, in all its processes.

``prometheus_client`` keeps the numbers in files of PROMETHEUS_MULTIPROC_DIR, which ``vpsorg.gunicorn`` sets,
so that any process can tell those of all.
"""

import os

from prometheus_client import CollectorRegistry, Counter, Histogram, multiprocess

METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
REQUESTS = Counter(
    "vps_http_requests", "Requests by route, method and status.", ["route", "method", "status"]
)
SECONDS = Histogram(
    "vps_http_request_seconds",
    "The time that answers took.",
    ["route", "method"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 35),
)


def count(*, route: str, method: str, status: int, seconds: float) -> None:
    """Count an answer.  ``route`` is the name of a URL pattern, never a path: paths are without number."""
    method = method if method in METHODS else "other"
    REQUESTS.labels(route, method, str(status)).inc()
    SECONDS.labels(route, method).observe(seconds)


def registry() -> CollectorRegistry:
    """A registry with the requests of all processes."""
    made = CollectorRegistry()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        multiprocess.MultiProcessCollector(made)
    else:
        for metric in (REQUESTS, SECONDS):
            made.register(metric)
    return made
