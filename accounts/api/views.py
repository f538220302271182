"""An account's SSH keys (the provider's clients: /ssh-keys/, by uuid)."""

from typing import Any

from django.db.models import QuerySet
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet

from accounts import services
from accounts.api.schema import of_account, of_ssh_keys
from accounts.api.serializers import NewSshKey
from accounts.authentication import account_of, token_of
from accounts.idempotency import IdempotentPosts
from accounts.models import SshKey
from vpsorg.api.references import named_by
from vpsorg.api.times import utc
from vpsorg.errors import NotFound


@of_account
class AccountView(APIView):
    """Who the token belongs to and what it may do.  Open to any active token."""

    resource = None

    def get(self, request: Request) -> Response:
        account, token = account_of(request), token_of(request)
        return Response(
            {
                "account": {
                    "email": account.email,
                    "first_name": account.first_name,
                    "last_name": account.last_name,
                    "company_name": account.company_name,
                    "created_at": account.created_at.date().isoformat(),
                },
                "token": {
                    "name": token.name,
                    "permissions": token.permissions,
                    "prefix": token.prefix,
                    "created_at": utc(token.created_at),
                    "last_used_at": token.last_used_at and utc(token.last_used_at),
                    "expires_at": token.expires_at and utc(token.expires_at),
                },
            }
        )


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
        return self.get_paginated_response([_representation(key) for key in keys])

    def create(self, request: Request) -> Response:
        asked = NewSshKey(data=request.data)
        asked.is_valid(raise_exception=True)
        key = services.add_ssh_key(account=account_of(request), **asked.validated_data)
        return Response(_representation(key), status=status.HTTP_201_CREATED)

    def retrieve(self, request: Request, ssh_key_id: str) -> Response:
        return Response(_representation(self.get_object()))

    def destroy(self, request: Request, ssh_key_id: str) -> Response:
        self.get_object().delete()
        return Response(status=status.HTTP_204_NO_CONTENT)


def _representation(key: SshKey) -> dict[str, Any]:
    return {
        "id": key.pk,
        "uuid": str(key.uuid),
        "name": key.name,
        "public_key": key.public_key,
        "fingerprint": key.fingerprint,
        "created_at": utc(key.created_at),
        "last_used_at": key.last_used_at and utc(key.last_used_at),
    }
