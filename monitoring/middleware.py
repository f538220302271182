"""Answers ``/healthz``, ``/readyz`` and ``/metrics``, and counts all other requests.

A middleware before all others: a probe comes by an address and not by our name, over plain HTTP, and has no
token of the API.  A proxy should not let these paths through (deploy/proxy does not).
"""

from collections.abc import Callable
from time import monotonic

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.crypto import constant_time_compare
from prometheus_client import CONTENT_TYPE_LATEST

from core.database import is_unavailable
from monitoring import metrics, readiness, requests

Answer = Callable[[HttpRequest], HttpResponse]


class MonitoringMiddleware:
    def __init__(self, get_response: Answer) -> None:
        self._get_response = get_response
        self._probes: dict[str, Answer] = {"/healthz": healthz, "/readyz": readyz, "/metrics": scrape}

    def __call__(self, request: HttpRequest) -> HttpResponse:
        probe = self._probes.get(request.path)
        if probe is not None:
            return probe(request)
        began = monotonic()
        response = self._get_response(request)
        match = request.resolver_match
        requests.count(
            route=match.view_name if match else "none",
            method=request.method or "",
            status=response.status_code,
            seconds=monotonic() - began,
        )
        return response


def healthz(request: HttpRequest) -> HttpResponse:
    """200 while this process answers at all: a supervisor restarts it otherwise."""
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> HttpResponse:
    """200 while this process can serve, else 503: a load balancer sends requests elsewhere meanwhile."""
    told = readiness.checks()
    ready = readiness.is_ready(told)
    return JsonResponse({"status": "ready" if ready else "unready", **told}, status=200 if ready else 503)


def scrape(request: HttpRequest) -> HttpResponse:
    """The metrics, for whoever has VPS_METRICS_TOKEN.  404 where there is no such token."""
    token = settings.VPS_METRICS_TOKEN
    if not token:
        return JsonResponse(
            {"detail": "Metrics are off. Set VPS_METRICS_TOKEN.", "code": "not_found"}, status=404
        )
    if not constant_time_compare(request.headers.get("Authorization", ""), f"Bearer {token}"):
        refusal = {"detail": "Send VPS_METRICS_TOKEN: Authorization: Bearer ...", "code": "not_authenticated"}
        return JsonResponse(refusal, status=401, headers={"WWW-Authenticate": "Bearer"})
    try:
        return HttpResponse(metrics.exposition(), content_type=CONTENT_TYPE_LATEST)
    except Exception as error:
        if not is_unavailable(error):
            raise
        connection.close()
        return JsonResponse({"detail": "Postgres does not answer.", "code": "unavailable"}, status=503)
