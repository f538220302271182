"""The API in gunicorn: any of its processes tells what all of them have answered."""

import http.client
import re
from contextlib import closing
from pathlib import Path

import pytest

from tests.factories import AccountFactory, token_for
from tests.served import served

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = "0123456789abcdef0123456789abcdef"
COUNTED = re.compile(r'^vps_http_requests_total\{.*route="account-me".*\} (\d+)', re.MULTILINE)


def get(port: int, path: str, token: str) -> str:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode()


def test_requests_to_all_processes_are_told_by_each(tmp_path: Path) -> None:
    """Guard: PROMETHEUS_MULTIPROC_DIR in vpsorg.gunicorn; without it each process tells its own."""
    token = token_for(AccountFactory.create())
    with served(tmp_path, VPS_METRICS_TOKEN=TOKEN, VPS_RATE_LIMIT="0") as port:
        for _ in range(60):
            get(port, "/api/v1/account/me/", token)
        told = {tuple(COUNTED.findall(get(port, "/metrics", TOKEN))) for _ in range(20)}

    assert told == {("60",)}
