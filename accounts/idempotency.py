"""Safe retries: a POST with an ``Idempotency-Key`` is done once, and answered the same again for 24 hours.

The first answer is kept in the transaction of the work itself: either both are
there or neither.  A refusal is not kept, so the same request may succeed later.
Nor is a secret: the same answer given again has null in its place.
"""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import orjson
from django.db import connection, transaction
from django.utils import timezone
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.authentication import account_of
from accounts.models import Account, IdempotentAnswer
from vpsorg.errors import IdempotencyKeyInUse, IdempotencyKeyReused

KEPT_FOR = timedelta(hours=24)
MAX_KEY_LENGTH = 255
KEPT_HEADERS = ("Location", "Retry-After")
SHOWN_ONCE = {"secret"}


class IdempotentPosts(APIView):
    """A view whose POSTs honour the header."""

    post: Callable[..., Response]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        key = request.headers.get("Idempotency-Key")
        if request.method == "POST" and key is not None:
            handler = self.post
            self.post = lambda *args, **kwargs: once(key, handler, *args, **kwargs)


def once(key: str, handler: Callable[..., Response], request: Request, *args: Any, **kwargs: Any) -> Response:
    """The handler's answer, or the one that it gave to this key before.

    Refuses the same key with another request (IdempotencyKeyReused) and while the
    first has not ended (IdempotencyKeyInUse).
    """
    if not (0 < len(key) <= MAX_KEY_LENGTH and key.isprintable()):
        raise ValidationError({"Idempotency-Key": [f"Should be 1 to {MAX_KEY_LENGTH} printable characters."]})
    account, asked = account_of(request), _fingerprint(request)
    with transaction.atomic():
        _lock(account, key)
        kept = IdempotentAnswer.objects.filter(account=account, key=key).first()
        if kept and kept.created_at > timezone.now() - KEPT_FOR:
            return _repeat(kept, asked)
        response = handler(request, *args, **kwargs)
        IdempotentAnswer.objects.update_or_create(
            account=account,
            key=key,
            defaults={
                "request": asked,
                "status": response.status_code,
                "body": orjson.dumps(_without_secrets(response.data)).decode(),
                "headers": {name: response[name] for name in KEPT_HEADERS if name in response},
                "created_at": timezone.now(),
            },
        )
    return response


def forget_old_answers(at_most: int) -> None:
    """Remove what counts no more.  A key that is used again meanwhile keeps its new answer."""
    old = IdempotentAnswer.objects.filter(created_at__lte=timezone.now() - KEPT_FOR)
    first = list(old.order_by("created_at").values_list("pk", flat=True)[:at_most])
    old.filter(pk__in=first).delete()


def _without_secrets(answer: dict[str, Any]) -> dict[str, Any]:
    return {field: None if field in SHOWN_ONCE else value for field, value in answer.items()}


def _repeat(kept: IdempotentAnswer, asked: str) -> Response:
    if kept.request != asked:
        raise IdempotencyKeyReused("This Idempotency-Key was used for another request. Choose a new one.")
    headers = kept.headers | {"Idempotency-Replayed": "true"}
    return Response(orjson.loads(kept.body), status=kept.status, headers=headers)


def _lock(account: Account, key: str) -> None:
    """Be the only one at this key until the transaction ends, or refuse."""
    with connection.cursor() as cursor:
        what = f"idempotency {account.pk} {key}"
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [what])
        if not cursor.fetchone()[0]:
            raise IdempotencyKeyInUse("The first request with this Idempotency-Key has not ended yet.")


def _fingerprint(request: Request) -> str:
    asked = [request.method, request.path, request.data]
    return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()
