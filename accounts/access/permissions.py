"""Permissions of a token: ``resource:action``, where ``*`` stands for any."""

import re
from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from accounts.access.authentication import token_of
from accounts.models import ApiToken
from core.errors import NotAuthenticated, PermissionDenied

WORD = re.compile(r"(\*|[a-z_]+):(\*|[a-z_]+)", re.ASCII)
ACTION_OF_METHOD = {"GET": "read", "HEAD": "read", "OPTIONS": "read", "DELETE": "delete"}


class TokenPermits(BasePermission):
    """The default for every view: a token, and the permission ``<view.resource>:<action of the method>``.

    A view of one object is asked after the object was found: what an account
    cannot see does not exist, whatever the token may do.  A view whose
    ``resource`` is None is open to any active token; one whose actions concern other
    resources names these in ``resources``.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        if not isinstance(request.auth, ApiToken):
            raise NotAuthenticated("Send your API token: Authorization: Bearer vps_...")
        return bool(view.kwargs) or self.has_object_permission(request, view, None)

    def has_object_permission(self, request: Request, view: Any, obj: Any) -> bool:
        if needed := self.needed(view, request.method or ""):
            require_permission(request, needed)
        return True

    @staticmethod
    def needed(view: Any, method: str) -> str | None:
        """The permission that a view's method asks for, as the documentation shows it."""
        others: dict[str, str] = getattr(view, "resources", {})
        resource = others.get(getattr(view, "action", None) or "", view.resource)
        return resource and f"{resource}:{ACTION_OF_METHOD.get(method, 'write')}"


def require_permission(request: Request, needed: str) -> None:
    """Raises PermissionDenied unless the request's token has it."""
    if not permits(token_of(request).permissions, *needed.split(":")):
        raise PermissionDenied(f"This API token lacks the permission {needed}.")


def permits(permissions: list[str], resource: str, action: str) -> bool:
    """Whether a token's words cover one action on one resource."""
    return any(
        word in permissions for word in (f"{resource}:{action}", f"{resource}:*", f"*:{action}", "*:*")
    )
