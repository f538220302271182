"""An account's SSH keys (the provider's clients: /ssh-keys/, by uuid)."""

from typing import Any

from django.db.models import QuerySet
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from accounts import services
from accounts.access.authentication import account_of, token_of
from accounts.access.idempotency import IdempotentPosts, require_made
from accounts.api import answers
from accounts.api.schema import of_account, of_ssh_keys
from accounts.api.serializers import NewSshKey
from accounts.models import SshKey
from core.api.fields import ignored_fields
from core.api.references import named_by
from core.api.views import StrictView
from core.errors import NotFound


@of_account
class AccountView(StrictView):
    """Who the token belongs to and what it may do.  Open to any active token."""

    resource = None

    def get(self, request: Request) -> Response:
        return Response(answers.account(account_of(request), token_of(request)))


@of_ssh_keys
class SshKeyViewSet(IdempotentPosts, GenericViewSet[SshKey]):
    resource = "ssh_keys"
    filter_backends: list[Any] = []
    lookup_url_kwarg = "ssh_key_id"
    lookup_value_regex = "[^/]+"

    def get_queryset(self) -> QuerySet[SshKey]:
        return SshKey.objects.filter(account=account_of(self.request))

    def get_object(self) -> SshKey:
        key = self.get_queryset().filter(named_by(self.kwargs["ssh_key_id"])).first()
        if key is None:
            raise NotFound("There is no such SSH key in this account.")
        self.check_object_permissions(self.request, key)
        return key

    def list(self, request: Request) -> Response:
        keys = self.paginate_queryset(self.get_queryset()) or []
        return self.get_paginated_response([answers.ssh_key(key) for key in keys])

    def require_still_true(self, answer: dict[str, Any]) -> None:
        require_made(self.get_queryset(), answer, "SSH key")

    def create(self, request: Request) -> Response:
        asked = NewSshKey(data=request.data)
        asked.is_valid(raise_exception=True)
        key = services.add_ssh_key(account=account_of(request), **asked.validated_data)
        headers = ignored_fields(asked)
        return Response(answers.ssh_key(key), status=status.HTTP_201_CREATED, headers=headers)

    def retrieve(self, request: Request, ssh_key_id: str) -> Response:
        return Response(answers.ssh_key(self.get_object()))

    def destroy(self, request: Request, ssh_key_id: str) -> Response:
        self.get_object().delete()
        return Response(status=status.HTTP_204_NO_CONTENT)
