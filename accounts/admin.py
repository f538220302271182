from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest

from accounts.models import (
    Account,
    ApiToken,
    IdempotentAnswer,
    SshKey,
)
from accounts.services import revoke_token
from core.admin import EditAdmin, ReadOnlyAdmin
from core.admin_actions import action_on_each

for model in (User, Group):
    admin.site.unregister(model)


@admin.register(User)
class StaffAdmin(EditAdmin[User], UserAdmin[User]):
    """Staff, as Django has them."""


@admin.register(Group)
class GroupOfStaffAdmin(EditAdmin[Group], GroupAdmin):
    """Django's groups of staff, with their permissions."""


@admin.register(Account)
class AccountAdmin(EditAdmin[Account]):
    list_display = ["email", "company_name", "balance", "below_zero_since", "is_active", "created_at"]
    list_filter = ["is_active", ("below_zero_since", admin.EmptyFieldListFilter), "created_at"]
    search_fields = ["email", "company_name", "first_name", "last_name"]
    readonly_fields = ["uuid", "created_at", "balance", "below_zero_since", "warned_at"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # an account is closed (is_active), its history stays


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnlyAdmin[ApiToken]):
    list_display = ["prefix", "name", "account", "permissions", "last_used_at", "expires_at", "revoked_at"]
    list_filter = ["revoked_at", "expires_at", "last_used_at"]
    list_select_related = ["account"]
    search_fields = ["prefix", "name", "account__email"]
    exclude = ["digest"]
    actions = ["revoke"]

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.change_apitoken")

    @action_on_each(
        "Revoke the chosen tokens",
        permission="revoke",
        question="Revoke these tokens for good? The programs that use them are refused from then on.",
        done="{count} tokens are refused from now on.",
    )
    def revoke(self, token: ApiToken) -> None:
        revoke_token(token=token)


@admin.register(SshKey)
class SshKeyAdmin(ReadOnlyAdmin[SshKey]):
    list_display = ["name", "account", "fingerprint", "created_at"]
    list_filter = ["created_at"]
    list_select_related = ["account"]
    search_fields = ["name", "fingerprint", "account__email"]


@admin.register(IdempotentAnswer)
class IdempotentAnswerAdmin(ReadOnlyAdmin[IdempotentAnswer]):
    list_display = ["key", "account", "status", "created_at"]
    list_filter = ["created_at"]
    list_select_related = ["account"]
    search_fields = ["key", "account__email"]
