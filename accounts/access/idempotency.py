"""Idempotency: a POST with an ``Idempotency-Key`` is carried out once; for 24 hours it has the same answer.

The first answer is kept in the transaction of the work itself: either both are
there or neither.  A refusal is not kept, so the same request may succeed later.
Nor is a secret: the same answer given again has null in its place.
"""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import orjson
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access.authentication import account_of
from accounts.models import Account, IdempotentAnswer
from core import locks
from core.api.rendering import encode
from core.api.views import StrictView
from core.errors import IdempotencyKeyInUse, IdempotencyKeyReused, IdempotentAnswerOutdated

KEPT_FOR = timedelta(hours=24)
MAX_KEY_LENGTH = 255
KEPT_HEADERS = ("Location", "Retry-After")
SHOWN_ONCE = {"secret"}


class IdempotentPosts(StrictView):
    """A view whose POSTs honour the header."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        key = request.headers.get("Idempotency-Key")
        handler = getattr(self, "post", None)  # a path without a POST answers 405 by itself
        if request.method == "POST" and handler is not None:
            if key is None:
                self.prepare(request)
            else:
                self.post = partial(_once, self, key, handler)

    def prepare(self, request: Request) -> None:
        """Slow work to do before the transaction begins.  Called for a POST without a key, too."""

    def require_still_true(self, answer: dict[str, Any]) -> None:
        """Raise if the stored answer is no longer true.  A view that creates rows overrides this."""


def _once(
    view: IdempotentPosts,
    key: str,
    handler: Callable[..., Response],
    request: Request,
    *args: Any,
    **kwargs: Any,
) -> Response:
    """The handler's answer, or the answer that this key was given before.

    Refuses the same key with another request (IdempotencyKeyReused), while the first request has not ended
    (IdempotencyKeyInUse), and a token that may not ask for this (PermissionDenied): permission comes first.
    """
    if not (0 < len(key) <= MAX_KEY_LENGTH and key.isprintable()):
        raise ValidationError({"Idempotency-Key": [f"Should be 1 to {MAX_KEY_LENGTH} printable characters."]})
    account, asked = account_of(request), _fingerprint(request)
    if kept := _kept(account, key):
        return _repeat(view, request, kept, asked)
    view.prepare(request)
    with transaction.atomic():
        _lock(account, key)
        if kept := _kept(account, key):
            return _repeat(view, request, kept, asked)
        response = handler(request, *args, **kwargs)
        IdempotentAnswer.objects.update_or_create(
            account=account,
            key=key,
            defaults={
                "request": asked,
                "status": response.status_code,
                "body": encode(_without_secrets(response.data)).decode(),
                "headers": {name: response[name] for name in KEPT_HEADERS if name in response},
                "created_at": Now(),
            },
        )
    return response


def require_made(rows: QuerySet[Any], answer: dict[str, Any], what: str) -> None:
    """Refuse to repeat a create's answer when the row that it made has been deleted since."""
    if not rows.filter(pk=answer["id"]).exists():
        raise IdempotentAnswerOutdated(
            f"The {what} that this Idempotency-Key made has been deleted. Choose a new key."
        )


def forget_old_answers(at_most: int) -> None:
    """Delete expired answers.  A key that was used again meanwhile keeps its new answer."""
    old = IdempotentAnswer.objects.filter(created_at__lte=Now() - KEPT_FOR)
    first = list(old.order_by("created_at").values_list("pk", flat=True)[:at_most])
    old.filter(pk__in=first).delete()


def _without_secrets(answer: Any) -> dict[str, Any]:
    fields: dict[str, Any] = orjson.loads(encode(answer))
    return {field: None if field in SHOWN_ONCE else value for field, value in fields.items()}


def _kept(account: Account, key: str) -> IdempotentAnswer | None:
    fresh = IdempotentAnswer.objects.filter(created_at__gt=Now() - KEPT_FOR)
    return fresh.filter(account=account, key=key).first()


def _repeat(view: IdempotentPosts, request: Request, kept: IdempotentAnswer, asked: str) -> Response:
    view.check_object_permissions(request, None)
    if kept.request != asked:
        raise IdempotencyKeyReused("This Idempotency-Key was used for another request. Choose a new one.")
    answer = orjson.loads(kept.body)
    view.require_still_true(answer)
    headers = kept.headers | {"Idempotency-Replayed": "true"}
    return Response(answer, status=kept.status, headers=headers)


def _lock(account: Account, key: str) -> None:
    """Lock this key until the transaction ends; refuse if another request holds it."""
    if not locks.try_lock_until_commit(locks.idempotency_key(account.pk, key)):
        raise IdempotencyKeyInUse("The first request with this Idempotency-Key has not ended yet.")


def _fingerprint(request: Request) -> str:
    asked = [request.method, request.path, request.data]
    return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()
