"""What the account's endpoints answer, for the documentation; tests hold real answers against it."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer, extend_schema_view
from rest_framework import serializers

from accounts.api.serializers import NewSshKey


class BearerScheme(OpenApiAuthenticationExtension):
    target_class = "accounts.authentication.BearerAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "description": "An API token: `vps_...`"}


class TokenFields(serializers.Serializer[Any]):
    name = serializers.CharField()
    permissions = serializers.ListField(
        child=serializers.CharField(), help_text="`resource:action`, where `*` stands for any."
    )
    prefix = serializers.CharField(help_text="How the token begins.")
    created_at = serializers.DateTimeField()
    last_used_at = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True)


class HolderFields(serializers.Serializer[Any]):
    email = serializers.EmailField()
    first_name = serializers.CharField(allow_blank=True)
    last_name = serializers.CharField(allow_blank=True)
    company_name = serializers.CharField(allow_blank=True)
    created_at = serializers.DateField()


ALICE = {
    "account": {
        "email": "alice@example.com",
        "first_name": "Alice",
        "last_name": "",
        "company_name": "",
        "created_at": "2025-01-10",
    },
    "token": {
        "name": "laptop",
        "permissions": ["*:*"],
        "prefix": "vps_3fKq9dTz",
        "created_at": "2025-01-10T14:30:00Z",
        "last_used_at": None,
        "expires_at": None,
    },
}
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJU8XRHsiyDnAbAUH2LhRsoFRZ09MlFDm3p5DXG9f1Vz alice@laptop"
KEY = {
    "id": 7,
    "uuid": "0b9d2f0e-4a52-4a0e-9d5c-2d4d8f7b1c11",
    "name": "laptop",
    "public_key": PUBLIC_KEY,
    "fingerprint": "SHA256:9sxXUe6uo3Y4zl8jO5O3E8V9q6nTbjzqR5q1f8m0sJk",
    "created_at": "2025-01-10T14:30:00Z",
    "last_used_at": None,
}


@extend_schema_serializer(component_name="Account", examples=[OpenApiExample("Alice", ALICE)])
class AccountAnswer(serializers.Serializer[Any]):
    account = HolderFields()
    token = TokenFields()


@extend_schema_serializer(component_name="SshKey", examples=[OpenApiExample("A key", KEY)])
class SshKeyAnswer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    uuid = serializers.UUIDField()
    name = serializers.CharField()
    public_key = serializers.CharField()
    fingerprint = serializers.CharField(help_text="As `ssh-keygen -l` shows it.")
    created_at = serializers.DateTimeField()
    last_used_at = serializers.DateTimeField(
        allow_null=True, help_text="When it was last put on a new server."
    )


of_account = extend_schema_view(
    get=extend_schema(
        summary="Who am I?", description="Whose the token is and what it may do.", responses=AccountAnswer
    )
)
of_ssh_keys = extend_schema_view(
    list=extend_schema(summary="List SSH keys", responses=SshKeyAnswer(many=True)),
    create=extend_schema(
        summary="Add an SSH key",
        description="The key is read as OpenSSH writes it: one line, no options.",
        request=NewSshKey,
        responses={201: SshKeyAnswer},
        examples=[
            OpenApiExample("A new key", {"name": "laptop", "public_key": PUBLIC_KEY}, request_only=True),
            OpenApiExample("A key", KEY, response_only=True, status_codes=["201"]),
        ],
    ),
    retrieve=extend_schema(summary="Read an SSH key", responses=SshKeyAnswer),
    destroy=extend_schema(
        summary="Delete an SSH key", description="Servers that have it keep it.", responses={204: None}
    ),
)
