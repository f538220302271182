"""How the API describes itself.  What is true of every endpoint is said here, once.

Refusals follow from what an endpoint is: with a token 401, 429 and 503, with a
permission 403, with something named in the path 404, with something to read 400,
and a POST may be repeated with an ``Idempotency-Key`` (409, 422).
"""

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse

from vpsorg.api.references import MAX_ID

SENTENCES = {"type": "array", "items": {"type": "string"}, "minItems": 1}
SCHEMAS: dict[str, Any] = {
    "Refusal": {
        "type": "object",
        "description": "One error: a sentence for a person, a word that never changes for a program. "
        "One that concerns a field names it too.",
        "properties": {"detail": {"type": "string"}, "code": {"type": "string", "pattern": "^[a-z_]+$"}},
        "required": ["detail", "code"],
        "additionalProperties": SENTENCES,
    },
    "Complaint": {
        "type": "object",
        "description": "What does not validate: for each field what it should be.",
        "additionalProperties": {
            "anyOf": [SENTENCES, {"type": "object", "additionalProperties": SENTENCES, "minProperties": 1}]
        },
        "minProperties": 1,
    },
}
REFUSAL = {"$ref": "#/components/schemas/Refusal"}
INVALID = {"anyOf": [REFUSAL, {"$ref": "#/components/schemas/Complaint"}]}


def refusal(code: str, sentence: str) -> dict[str, Any]:
    return {"summary": code, "value": {"detail": sentence, "code": code}}


def header(description: str, kind: str = "integer") -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


HEADERS = {
    "Retry-After": header("Seconds after which asking again makes sense."),
    "RateLimit-Limit": header("How many requests this token may make a minute."),
    "RateLimit-Remaining": header("How many are left of this minute."),
    "RateLimit-Reset": header("Seconds until the next minute begins."),
    "X-Request-ID": header("Yours if you sent one, else ours. Tell it to support.", "string"),
    "Link": header('RFC 8288: `<url>; rel="next"` and `rel="prev"`, when there are such pages.', "string"),
    "WWW-Authenticate": header("`Bearer`", "string"),
}


def headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


RATE_LIMIT = headers("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
RETRY_AFTER, REQUEST_ID, LINK = headers("Retry-After"), headers("X-Request-ID"), headers("Link")


def answer(description: str, schema: Any, told: dict[str, Any], *examples: dict[str, Any]) -> dict[str, Any]:
    shown = {example["summary"]: example for example in examples}
    content = {"application/json": {"schema": schema, "examples": shown}}
    return {"description": description, "headers": told | REQUEST_ID, "content": content}


REFUSALS: dict[str, tuple[str, dict[str, Any]]] = {
    "400": (
        "Invalid",
        answer(
            "The request does not validate, or the server's status does not allow it.",
            INVALID,
            RATE_LIMIT,
            {"summary": "fields", "value": {"name": ["This field is required."]}},
            refusal("already_running", "This server is already running."),
            refusal("not_running", "This server is not running. Start it first."),
            refusal("parse_error", "The body is not valid JSON (line 1, column 1)."),
        ),
    ),
    "401": (
        "NotAuthenticated",
        answer(
            "The token is missing, malformed, unknown, expired or revoked.",
            REFUSAL,
            headers("WWW-Authenticate"),
            refusal("not_authenticated", "Send your API token: Authorization: Bearer vps_..."),
            refusal("malformed_token", "The Authorization header should be: Bearer vps_... (an API token)."),
            refusal("invalid_token", "This API token is unknown."),
            refusal("token_expired", "This API token has expired."),
            refusal("token_revoked", "This API token was revoked."),
            refusal("account_closed", "This account is closed. Ask support."),
        ),
    ),
    "403": (
        "PermissionDenied",
        answer(
            "The token lacks the permission.",
            REFUSAL,
            RATE_LIMIT,
            refusal("permission_denied", "This API token lacks the permission servers:write."),
        ),
    ),
    "404": (
        "NotFound",
        answer(
            "There is no such thing in this account; what is somebody else's does not exist.",
            REFUSAL,
            RATE_LIMIT,
            refusal("not_found", "There is no such server in this account."),
        ),
    ),
    "409": (
        "UnderWay",
        answer(
            "Something that must end first has not. Ask again after `Retry-After` seconds.",
            REFUSAL,
            RATE_LIMIT | RETRY_AFTER,
            refusal("operation_in_progress", "Another operation on this server has not finished yet."),
            refusal(
                "idempotency_key_in_use", "The first request with this Idempotency-Key has not ended yet."
            ),
        ),
    ),
    "422": (
        "KeyReused",
        answer(
            "The Idempotency-Key was used for another request.",
            REFUSAL,
            RATE_LIMIT,
            refusal(
                "idempotency_key_reused",
                "This Idempotency-Key was used for another request. Choose a new one.",
            ),
        ),
    ),
    "429": (
        "TooManyRequests",
        answer(
            "This token has asked too often in this minute, or too much of this is under way.",
            REFUSAL,
            RATE_LIMIT | RETRY_AFTER,
            refusal("too_many_requests", "This token may ask 600 times a minute."),
        ),
    ),
    "503": (
        "Unavailable",
        answer(
            "The database is away for a moment.",
            REFUSAL,
            RETRY_AFTER,
            refusal("unavailable", "The service is not available at the moment."),
        ),
    ),
}
INSUFFICIENT_CREDITS = OpenApiResponse(
    {
        "type": "object",
        "properties": {
            "detail": {"type": "string"},
            "code": {"type": "string", "const": "insufficient_credits"},
            "balance": {"type": "number", "description": "What there is."},
            "required": {
                "type": "number",
                "description": "What should be there for this, and all that runs.",
            },
        },
        "required": ["detail", "code", "balance", "required"],
    },
    "The account's credits do not suffice.",
    [
        OpenApiExample(
            "insufficient_credits",
            {
                "detail": "This needs 0.67 credits, 24 hours of all your servers; you have 0.50.",
                "code": "insufficient_credits",
                "balance": 0.5,
                "required": 0.672,
            },
        )
    ],
)
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    OpenApiParameter.HEADER,
    description="Makes the request safe to repeat: for 24 hours the same key is answered the same.",
)


class Schema(AutoSchema):
    """Describes one endpoint; views add what is theirs with ``extend_schema``."""

    def get_operation_id(self) -> str:
        action = getattr(self.view, "action", None)
        return f"{self.get_tags()[0].replace('-', '_')}_{action}" if action else super().get_operation_id()

    def get_override_parameters(self) -> list[Any]:
        return [IDEMPOTENCY_KEY] if self.method == "POST" else []

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        operation = super().get_operation(*args, **kwargs)
        if operation is None:
            return None
        needed = self._permission()
        needs = f"Needs the permission `{needed}`." if needed else "Any valid token may ask this."
        operation["description"] = "\n\n".join(filter(None, [operation.get("description"), needs]))
        for kind, parts in ((ResolvedComponent.SCHEMA, SCHEMAS), (ResolvedComponent.HEADER, HEADERS)):
            for name, part in parts.items():
                self._register(name, kind, part)
        responses = operation["responses"]
        for code, response in responses.items():
            of_list = LINK if code == "200" and self._is_list_view() else {}
            response["headers"] = response.get("headers", {}) | of_list | RATE_LIMIT | REQUEST_ID
            response["description"] = response["description"] or "As asked."
        for code in self._refused_with(operation):
            name, response = REFUSALS[code]
            responses[code] = self._register(name, ResolvedComponent.RESPONSE, response)
        operation["responses"] = dict(sorted(responses.items()))
        return operation

    def _refused_with(self, operation: dict[str, Any]) -> list[str]:
        asked = any(parameter["in"] == "query" for parameter in operation.get("parameters", []))
        return [
            *(["400"] if asked or self.method in {"POST", "PUT", "PATCH"} else []),
            *["401", "429", "503"],
            *(["403"] if self._permission() else []),
            *(["404"] if "{" in self.path else []),
            *(["409", "422"] if self.method == "POST" else []),
        ]

    def _permission(self) -> str | None:
        permissions: Any = self.view.get_permissions()
        return next((permission.needed(self.view, self.method) for permission in permissions), None)

    def _register(self, name: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
        component = ResolvedComponent(name, kind, schema, object=name)
        self.registry.register_on_missing(component)
        return component.ref

    def map_parsers(self) -> list[str]:
        """Bodies are read as JSON whatever they are called; this is what to call them."""
        return ["application/json"]

    def _resolve_path_parameters(self, variables: list[str]) -> list[dict[str, Any]]:
        """Whatever a path names, it names by integer id or uuid."""
        return [
            {
                "name": variable,
                "in": "path",
                "required": True,
                "description": "Its id or its uuid.",
                "schema": id_or_uuid(),
            }
            for variable in variables
        ]


ID: dict[str, Any] = {"type": "integer", "format": "int64", "minimum": 1, "maximum": MAX_ID}


def id_or_uuid() -> dict[str, Any]:
    """A new one for each: the generator writes into what it is given."""
    return {"anyOf": [dict(ID), {"type": "string", "format": "uuid"}]}


class RowReferenceSchema(OpenApiSerializerFieldExtension):
    target_class = "vpsorg.api.fields.RowReference"
    match_subclasses = True

    def map_serializer_field(self, auto_schema: AutoSchema, direction: str) -> dict[str, Any]:
        return id_or_uuid()
