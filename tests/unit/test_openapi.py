"""What generators of clients rely on in docs/openapi.yaml, which make check holds to the code."""

from collections.abc import Iterator
from typing import Any

import yaml

from deploy.local.folder import PROJECT

SCHEMA: dict[str, Any] = yaml.safe_load((PROJECT / "docs" / "openapi.yaml").read_text())


def integers(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        if part.get("type") in ("integer", ["integer", "null"]):
            yield part
        for value in part.values():
            yield from integers(value)
    if isinstance(part, list):
        for item in part:
            yield from integers(item)


def test_each_integer_says_how_large_it_may_be() -> None:
    """Guard: name_integer_formats, a hook in the settings."""
    assert {part.get("format") for part in integers(SCHEMA)} == {"int32", "int64"}


def test_each_tag_is_declared_and_used() -> None:
    used = {
        tag
        for path in SCHEMA["paths"].values()
        for name, operation in path.items()
        if name != "parameters"
        for tag in operation["tags"]
    }
    assert used == {tag["name"] for tag in SCHEMA["tags"]}
