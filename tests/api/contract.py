"""The contract's example bodies, and what it means to look like one of them."""

import json
import re
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parent / "examples"
SERVER = 12345


def example(name: str) -> dict[str, Any]:
    """``server-list``: what the contract shows for it."""
    body: dict[str, Any] = json.loads((EXAMPLES / f"{name}.json").read_text())
    return body


# After the contract's fields, those that the provider's own clients read.
EXTRAS = ["uuid", "location_name", "plan_name", "os_name", "ipv4_addresses", "ipv6_addresses"]


# And, last of all in a detail, what host and guest say.
SAID = ["power_state", "guest_addresses"]


def contracts_part(server: dict[str, Any]) -> dict[str, Any]:
    """A server without our extra fields, which stand last."""
    extras = EXTRAS + SAID if SAID[0] in server else EXTRAS
    assert list(server)[-len(extras) :] == extras
    return {field: value for field, value in server.items() if field not in extras}


def same(answer: Any, expected: Any) -> bool:
    """Equal in every value and type (1 is not 1.0, nor true), and in the order of the fields."""
    return json.dumps(answer) == json.dumps(expected)


def looks_like(answer: Any, sample: Any) -> bool:
    """The same fields in the same order, and each value of the sample's type and form."""
    return json.dumps(shape(answer)) == json.dumps(shape(sample))


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return [(field, shape(inner)) for field, inner in value.items()]
    if isinstance(value, list):
        shapes = [shape(inner) for inner in value]
        return [one for position, one in enumerate(shapes) if one not in shapes[:position]]
    return _form(value) if isinstance(value, str) else type(value).__name__


def _form(text: str) -> str:
    """Times and addresses have a form of their own; other texts are just texts."""
    if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text):
        datetime.fromisoformat(text)
        return "time"
    try:
        return f"IPv{ip_address(text).version} address"
    except ValueError:
        return "text"


def is_refusal(answer: Any, code: str) -> bool:
    """One error: a sentence for a person and a word for a program, and nothing else."""
    return list(answer) == ["detail", "code"] and answer["code"] == code and _is_sentence(answer["detail"])


def is_validation_error(answer: Any, *fields: str) -> bool:
    """A body that does not validate: sentences for exactly these fields."""
    return set(answer) == set(fields) and all(
        isinstance(told, list) and told and all(map(_is_sentence, told)) for told in answer.values()
    )


def _is_sentence(text: Any) -> bool:
    return isinstance(text, str) and len(text) > 10 and text[0].isupper() and text.endswith(".")
