"""Schemathesis over the published schema: no 5xx, no status unsaid, no answer against its schema.

Every endpoint is asked what its schema allows and what it forbids, by somebody who
may do everything, somebody who may only read, and nobody.  The seed is fixed
(``derandomize``), so a failure is the same for everybody.
"""

from collections.abc import Callable, Iterable
from io import BytesIO
from random import Random
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import negative_data_rejection

from accounts.models import SshKey
from core.api.docs import published
from tests.api.contract import SERVER
from tests.conftest import Customer
from tests.factories import OperationFactory, ServerFactory, WebhookFactory, token_for
from vpsorg.wsgi import application

# Sound to the letter, and still not possible: what a schema cannot know.
ALSO_RIGHT = ["2xx", "400", "401", "402", "403", "404", "409", "422"]


class Chunks(BytesIO):
    """A body that comes in chunks of random sizes, as a server gives it on to the application."""

    def read(self, size: int | None = -1) -> bytes:
        some = CHUNK.randint(1, 64)
        return super().read(min(some, size) if size and size > 0 else -1)


CHUNK = Random(30)


def in_chunks(environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The application, to which each body is sent without its length."""
    body = Chunks(environment["wsgi.input"].read(int(environment.pop("CONTENT_LENGTH", 0) or 0)))
    more = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": body, "wsgi.input_terminated": True}
    answer: Iterable[bytes] = application(environment | more, start_response)
    return answer


def loaded(app: Any = application, **phases: Any) -> Any:
    config = {
        "checks": {"positive_data_acceptance": {"expected-statuses": ALSO_RIGHT}},
        "phases": phases,
        "generation": {"with-security-parameters": False},  # the token is ours to send, or not
    }
    schema = schemathesis.openapi.from_dict(published(), config=SchemathesisConfig.from_dict(config))
    schema.app = app
    return schema


def up_to(examples: int) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


thorough, brief = loaded(), loaded(coverage={"enabled": False})
chunked = loaded(in_chunks, coverage={"enabled": False}).include(method=["POST", "PUT", "PATCH"])


@pytest.fixture
def world(one_connection: None, settings: Any, alice: Customer, shop: dict[str, Any]) -> dict[str, Any]:
    """Things to name and the tokens to name them with."""
    settings.ALLOWED_HOSTS = ["localhost"]
    server = ServerFactory.create(pk=SERVER, account=alice.account)
    key = SshKey.objects.create(account=alice.account, name="laptop", public_key="ssh-ed25519 AAAA")
    return {
        "server_id": server.pk,
        "operation_id": OperationFactory.create(server=server, status="succeeded").pk,
        "ssh_key_id": key.pk,
        "webhook_id": WebhookFactory.create(account=alice.account).pk,
        "url": "https://hooks.example.com/vps",
        "plan_id": shop["plan_id"],
        "plan": shop["plan_id"],
        "os_id": shop["os_id"],
        "os_version": shop["os_id"],
        "location": shop["location"],
        "tokens": {
            "all": alice.token,
            "reader": token_for(alice.account, "*:read"),
            "nobody": "vps_" + "x" * 43,
        },
    }


@thorough.parametrize()
@up_to(examples=10)
def test_whatever_is_asked_is_answered_as_published(case: Any, world: dict[str, Any]) -> None:
    ask(case, world, "all")


@pytest.mark.parametrize("token", ["reader", "nobody"])
@brief.parametrize()
@up_to(examples=4)
def test_whoever_asks_is_answered_as_published(case: Any, world: dict[str, Any], token: str) -> None:
    ask(case, world, token)


@chunked.parametrize()
@up_to(examples=4)
def test_a_body_in_chunks_is_answered_as_published(case: Any, world: dict[str, Any]) -> None:
    """Guard: core.api.chunked reads the whole body, however little the server gives at a time."""
    answer = ask(case, world, "all")
    if case.meta.generation.mode.is_positive:
        assert "parse_error" not in answer.text
        assert not case.body or "This field is required." not in answer.text


def ask(case: Any, world: dict[str, Any], token: str) -> Any:
    if case.meta.generation.mode.is_positive:
        _name_what_exists(case, world)
    excluded = [negative_data_rejection] if _is_mended(case) else []
    return case.call_and_validate(
        headers={"Authorization": f"Bearer {world['tokens'][token]}"}, excluded_checks=excluded
    )


def _is_mended(case: Any) -> bool:
    """Whether it was spoilt by leaving the token out, which we put in again: then it may well be taken."""
    mutations = getattr(case.meta.phase.data, "mutations", ())
    return any("Authorization" in f"{mutation.parameter} {mutation.original_value}" for mutation in mutations)


def _name_what_exists(case: Any, world: dict[str, Any]) -> None:
    """Where a sound request names something, let it be something: so it gets past the door."""
    for named, kind in ((case.path_parameters, str), (case.body, lambda value: value)):
        if isinstance(named, dict):
            named.update({field: kind(world[field]) for field in named if field in world})
