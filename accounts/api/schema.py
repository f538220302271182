"""Publishes the account's endpoints."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view

from accounts.api.answers import PUBLIC_KEY, SSH_KEY, Account, SshKey
from accounts.api.serializers import NewSshKey


class BearerScheme(OpenApiAuthenticationExtension):
    target_class = "accounts.access.authentication.BearerAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "description": "An API token: `vps_...`"}


of_account = extend_schema_view(
    get=extend_schema(
        summary="Read the token's account",
        description="The account that the token belongs to, and what the token may do.",
        responses=Account,
    )
)
of_ssh_keys = extend_schema_view(
    list=extend_schema(summary="List SSH keys", responses=SshKey),
    create=extend_schema(
        summary="Add an SSH key",
        description="The key is one line as OpenSSH writes it, without options.",
        request=NewSshKey,
        responses={201: SshKey},
        examples=[
            OpenApiExample("A new key", {"name": "laptop", "public_key": PUBLIC_KEY}, request_only=True),
            OpenApiExample("A key", SSH_KEY, response_only=True, status_codes=["201"]),
        ],
    ),
    retrieve=extend_schema(summary="Read an SSH key", responses=SshKey),
    destroy=extend_schema(
        summary="Delete an SSH key",
        description="Servers that have the key keep it.",
        responses={204: None},
    ),
)
