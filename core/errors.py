"""Refusals: expected errors, each with a stable code and a sentence.

Raised where the reason is known (services, lifecycle, authentication), rendered
in one place (``core.api.errors``).  Codes are part of the API.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar


class Refusal(Exception):
    """A request cannot be fulfilled.  ``status`` is the HTTP status of the answer."""

    status: ClassVar[int] = 400
    code: str = "refused"

    def __init__(self, sentence: str, *, code: str | None = None, field: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.code = code or self.code
        self.field = field

    @property
    def headers(self) -> Mapping[str, str]:
        return {}

    @property
    def facts(self) -> Mapping[str, Any]:
        """Further keys of the answer, beside the sentence and the code."""
        return {}


class NotAllowedNow(Refusal):
    """The server's status does not allow it."""


class OperationInProgress(Refusal):
    """Another operation on this server has not finished; the request may succeed later."""

    status = 409
    code = "operation_in_progress"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": "5"}


class IdempotencyKeyInUse(Refusal):
    status = 409
    code = "idempotency_key_in_use"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": "1"}


class IdempotencyKeyReused(Refusal):
    status = 422
    code = "idempotency_key_reused"


class IdempotentAnswerOutdated(Refusal):
    """The first request with this key succeeded, but what it created has been deleted since."""

    status = 410
    code = "created_and_deleted"


class InsufficientCredits(Refusal):
    status = 402
    code = "insufficient_credits"

    def __init__(self, sentence: str, *, balance: Decimal, required: Decimal) -> None:
        super().__init__(sentence)
        self.balance, self.required = balance, required

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"balance": self.balance, "required": self.required}


class NoCapacity(Refusal):
    """No host of the location has room, or no address is left there."""

    code = "no_capacity"


class NotFound(Refusal):
    status = 404
    code = "not_found"


class NotOffered(Refusal):
    """A section of the provider's API that this product does not have."""

    status = 404
    code = "not_offered"


class TooManyRequests(Refusal):
    status = 429
    code = "too_many_requests"

    def __init__(self, sentence: str, *, retry_after_s: int) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(self.retry_after_s)}


class NotAuthenticated(Refusal):
    status = 401
    code = "not_authenticated"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class PermissionDenied(Refusal):
    status = 403
    code = "permission_denied"
