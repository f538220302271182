"""The published schema and the pages to try it.  Whether answers keep it: tests.published, test_fuzz."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from core.api.docs import published
from tests.api.test_tenants import ANY_TOKEN, PERMISSIONS
from tests.published import resolved, validator


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in published()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


@pytest.mark.django_db  # closing an asset ends a request, and Django looks at its connection then
def test_schema_and_docs_are_open_to_all_and_all_that_they_need_is_ours(client: Client) -> None:
    assert client.get("/api/v1/schema/").json() == published()
    page = client.get("/api/v1/docs/")
    assert page.headers["Content-Type"].startswith("text/html")
    needed = re.findall(r'(?:src|href)="([^"]+)"', page.content.decode())

    assert len(needed) > 3
    for url in needed:
        assert url.startswith("/"), url
        asset: Any = client.get(url)
        assert (asset.status_code, len(b"".join(asset)) > 100) == (200, True)
        asset.close()
    assert b"/api/v1/schema/" in client.get("/api/v1/docs/?script=").content


def test_every_endpoint_is_there_with_the_permission_that_it_needs() -> None:
    told = {}
    for method, path, operation in operations():
        assert operation["summary"]
        assert operation["security"] == [{"token": []}]
        word = re.search(r"Needs the permission `(\w+:\w+)`\.", operation["description"])
        told[method, re.sub(r"{(\w+)}", r"<\1>", path)] = word[1] if word else ANY_TOKEN

    assert told == {tuple(route): word for route, word in PERMISSIONS.items()}


def test_every_answer_with_a_body_has_an_example_and_each_is_sound() -> None:
    for method, path, operation in operations():
        parts = {"request": operation.get("requestBody", {})} | operation["responses"]
        for which, part in parts.items():
            for content in resolved(part).get("content", {}).values():
                assert content.get("examples"), (method, path, which)
                for example in content["examples"].values():
                    validator(content["schema"]).validate(example["value"])


@pytest.mark.parametrize("status", ["401", "429"])
def test_what_may_be_answered_everywhere_is_said_everywhere(status: str) -> None:
    assert all(status in operation["responses"] for _, _, operation in operations())
