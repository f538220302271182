"""The published schema, held against every answer that a test's customer is given."""

import json
import re
from functools import cache
from typing import Any, NamedTuple

import jsonschema

from core.api.docs import published


class Endpoint(NamedTuple):
    path: re.Pattern[str]
    operations: dict[str, Any]


def check_answer(method: str, path: str, answer: Any) -> None:
    """Fails for a status, a header's absence, a field or a type that the schema does not promise.

    What is no endpoint has no promise to keep.
    """
    operation = _operation(method, path)
    if operation is None:
        return
    promised = resolved(operation["responses"].get(str(answer.status_code)))
    assert promised, f"{method} {path} answered {answer.status_code}, which the schema does not know"
    if "content" not in promised:
        assert answer.content == b""
        return
    assert answer["Content-Type"] == "application/json"
    schema = promised["content"]["application/json"]["schema"]
    errors = [f"{error.json_path}: {error.message}" for error in validator(schema).iter_errors(answer.json())]
    assert not errors, f"{method} {path} answered {answer.status_code} against its schema: {errors}"


def validator(schema: dict[str, Any]) -> Any:
    """Strict where the schema is kind: no field but those that it names."""
    return _validator(json.dumps(schema))


@cache
def _validator(text: str) -> Any:
    whole = {"components": _components(), **json.loads(text)}
    return jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker())


def resolved(node: Any) -> Any:
    """What it is, if it is said elsewhere."""
    if node and "$ref" in node:
        place: Any = published()
        for step in node["$ref"].removeprefix("#/").split("/"):
            place = place[step]
        return place
    return node


def _operation(method: str, path: str) -> dict[str, Any] | None:
    for pattern, operations in _endpoints():
        if pattern.fullmatch(path):
            operation: dict[str, Any] | None = operations.get(method.lower())
            return operation
    return None


@cache
def _endpoints() -> list[Endpoint]:
    return [
        Endpoint(re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), operations)
        for path, operations in published()["paths"].items()
    ]


@cache
def _components() -> Any:
    return _close(published()["components"])


def _close(node: Any) -> Any:
    if isinstance(node, list):
        return [_close(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    closed = {name: _close(inner) for name, inner in node.items()}
    if isinstance(node.get("properties"), dict) and "additionalProperties" not in node:
        closed["additionalProperties"] = False
    return closed
