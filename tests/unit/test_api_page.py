"""docs/api.md leaves no call out, and its answers are JSON."""

import json
import re

import pytest

from deploy.local.folder import PROJECT

DOCS = (PROJECT / "docs" / "api.md").read_text()
CALL = re.compile(r'curl (?:-X (\w+) )?[^"]*"\$AUTH"[^/]*"\$VPS_API_URL([^"?]*)')


def published() -> set[tuple[str, str]]:
    """Each method and path of the published schema."""
    calls, path = set(), ""
    for line in (PROJECT / "docs" / "openapi.yaml").read_text().splitlines():
        if found := re.fullmatch(r"  /api/v1(/.*):", line):
            path = found[1]
        elif found := re.fullmatch(r"    (get|post|put|patch|delete):", line):
            calls.add((found[1].upper(), path))
    return calls


def test_every_published_call_is_shown() -> None:
    shown = {(method or "GET", re.sub(r"/(\d+|\$\w+)/", "/{}/", path)) for method, path in CALL.findall(DOCS)}
    assert {(method, re.sub(r"{\w+}", "{}", path)) for method, path in published()} - shown == set()


@pytest.mark.parametrize("answer", re.findall(r"```json\n(.*?)```", DOCS, re.DOTALL))
def test_answers_are_json(answer: str) -> None:
    json.loads(answer)
