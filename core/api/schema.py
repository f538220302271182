"""The parts of the published schema that every endpoint shares: parameters, headers, refusals.

The refusals of an endpoint follow from its kind: 400, 401, 429 and 503 always, 403 with a permission, 404
with a path that names a row, 409 and 422 with an ``Idempotency-Key``.  A view whose actions may cost credits
names these actions in ``needs_credits`` (402); a view whose bodies may name what is not there, in
``names_rows`` (404); one whose actions on a row make others, in ``makes_rows`` (410).

The names of components are part of the API, since customers' generated clients carry them.
"""

from typing import Any

import msgspec
from drf_spectacular.extensions import OpenApiSerializerExtension, OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.utils import OpenApiParameter

from core.api.references import MAX_ID

REF = "#/components/schemas/{name}"
SENTENCES = {"type": "array", "items": {"type": "string"}, "minItems": 1}
SCHEMAS: dict[str, Any] = {
    "Problem": {
        "type": "object",
        "description": "Why the request was refused: a sentence for a person, and a code for a program that "
        "never changes. A refusal that concerns one field names this field, too.",
        "properties": {"detail": {"type": "string"}, "code": {"type": "string", "pattern": "^[a-z_]+$"}},
        "required": ["detail", "code"],
        "additionalProperties": SENTENCES,
    },
    "ValidationProblem": {
        "type": "object",
        "description": "The fields that do not validate, and for each what it should be.",
        "additionalProperties": SENTENCES,
        "minProperties": 1,
    },
    "InsufficientCredits": {
        "type": "object",
        "properties": {
            "detail": {"type": "string"},
            "code": {"type": "string", "const": "insufficient_credits"},
            "balance": {"type": "number", "description": "Credits that the account has."},
            "required": {
                "type": "number",
                "description": "Credits that this and all that runs needs.",
            },
        },
        "required": ["detail", "code", "balance", "required"],
    },
}
PROBLEM = {"$ref": REF.format(name="Problem")}
INVALID = {"anyOf": [PROBLEM, {"$ref": REF.format(name="ValidationProblem")}]}


def name_integer_formats(result: Any, **kwargs: Any) -> Any:
    """Say of each integer whether 32 bits hold it: generated clients choose their type by that.

    A hook of drf-spectacular.
    """
    _name_formats(result)
    return result


def _name_formats(part: Any) -> None:
    if isinstance(part, list):
        for item in part:
            _name_formats(item)
    if not isinstance(part, dict):
        return
    kind = part.get("type")
    if kind == "integer" or (isinstance(kind, list) and "integer" in kind):
        is_small = part.get("maximum", MAX_ID) < 2**31
        part.setdefault("format", "int32" if is_small else "int64")
    for value in part.values():
        _name_formats(value)


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
        "BadRequest",
        answer(
            "The request does not validate, or the server's status does not allow it.",
            INVALID,
            RATE_LIMIT,
            {"summary": "fields", "value": {"name": ["This field is required."]}},
            refusal("already_running", "This server is already running."),
            refusal("not_running", "This server is not running. Start it first."),
            refusal(
                "too_many_creates",
                "This account may have 20 servers in the making at once. Wait until one is active.",
            ),
            refusal("parse_error", "The body is not valid JSON (line 1, column 1)."),
        ),
    ),
    "401": (
        "Unauthorized",
        answer(
            "The token is missing, malformed, unknown, expired or revoked.",
            PROBLEM,
            headers("WWW-Authenticate"),
            refusal("not_authenticated", "Send your API token: Authorization: Bearer vps_..."),
            refusal("malformed_token", "The Authorization header should be: Bearer vps_... (an API token)."),
            refusal("invalid_token", "This API token is unknown."),
            refusal("token_expired", "This API token has expired."),
            refusal("token_revoked", "This API token was revoked."),
            refusal("account_closed", "This account is closed. Ask support."),
        ),
    ),
    "402": (
        "PaymentRequired",
        answer(
            "The account's credits do not suffice.",
            {"$ref": REF.format(name="InsufficientCredits")},
            RATE_LIMIT,
            {
                "summary": "insufficient_credits",
                "value": {
                    "detail": "This needs 0.67 credits, 24 hours of all your servers; you have 0.50.",
                    "code": "insufficient_credits",
                    "balance": 0.5,
                    "required": 0.672,
                },
            },
        ),
    ),
    "403": (
        "Forbidden",
        answer(
            "The token lacks the permission.",
            PROBLEM,
            RATE_LIMIT,
            refusal("permission_denied", "This API token lacks the permission servers:write."),
        ),
    ),
    "404": (
        "NotFound",
        answer(
            "This account has no such row. A row of another account is answered in the same way.",
            PROBLEM,
            RATE_LIMIT,
            refusal("not_found", "There is no such server in this account."),
        ),
    ),
    "409": (
        "Conflict",
        answer(
            "Another operation or request has to end first. Ask again after `Retry-After` seconds.",
            PROBLEM,
            RATE_LIMIT | RETRY_AFTER,
            refusal("operation_in_progress", "Another operation on this server has not finished yet."),
            refusal(
                "idempotency_key_in_use", "The first request with this Idempotency-Key has not ended yet."
            ),
        ),
    ),
    "410": (
        "Gone",
        answer(
            "The first request with this Idempotency-Key made something that has been deleted.",
            PROBLEM,
            RATE_LIMIT,
            refusal(
                "created_and_deleted",
                "The server that this Idempotency-Key made has been deleted. Choose a new key.",
            ),
        ),
    ),
    "422": (
        "IdempotencyKeyReused",
        answer(
            "The Idempotency-Key was used for another request.",
            PROBLEM,
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
            PROBLEM,
            RATE_LIMIT | RETRY_AFTER,
            refusal("too_many_requests", "This token may ask 600 times a minute."),
        ),
    ),
    "503": (
        "ServiceUnavailable",
        answer(
            "The database is away for a moment.",
            PROBLEM,
            RETRY_AFTER,
            refusal("unavailable", "The service is not available at the moment."),
        ),
    ),
}
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    OpenApiParameter.HEADER,
    description="Makes the request safe to repeat: for 24 hours the same key gets the first answer again.",
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
        for code in self._refused_with():
            name, response = REFUSALS[code]
            responses[code] = self._register(name, ResolvedComponent.RESPONSE, response)
        operation["responses"] = dict(sorted(responses.items()))
        return operation

    def _is_list_view(self, serializer: Any = None) -> bool:
        """A view names its further lists, besides ``list`` itself, in ``list_actions``."""
        further = getattr(self.view, "list_actions", ())
        return self._action() in further or bool(super()._is_list_view(serializer))

    def _action(self) -> str:
        return getattr(self.view, "action", None) or ""

    def _refused_with(self) -> list[str]:
        return [
            *["400", "401", "429", "503"],
            *(["402"] if self._action() in getattr(self.view, "needs_credits", ()) else []),
            *(["404"] if self._action() in getattr(self.view, "names_rows", ()) else []),
            *(["403"] if self._permission() else []),
            *(["404"] if "{" in self.path else []),
            *(["409", "422"] if self.method == "POST" else []),
            *(["410"] if self._makes_rows() else []),
        ]

    def _makes_rows(self) -> bool:
        is_create = self.method == "POST" and "{" not in self.path
        return is_create or self._action() in getattr(self.view, "makes_rows", ())

    def _permission(self) -> str | None:
        permissions: Any = self.view.get_permissions()
        return next((permission.needed(self.view, self.method) for permission in permissions), None)

    def _register(self, name: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
        component = ResolvedComponent(name, kind, schema, object=name)
        self.registry.register_on_missing(component)
        return component.ref

    def map_parsers(self) -> list[str]:
        """The content type to publish.  The parser reads any as JSON."""
        return ["application/json"]

    def _resolve_path_parameters(self, variables: list[str]) -> list[dict[str, Any]]:
        """A path names a row by its integer id or by its uuid: to generated clients both are texts."""
        return [
            {
                "name": variable,
                "in": "path",
                "required": True,
                "description": "The integer id or the uuid.",
                "schema": {"type": "string", "maxLength": 36},
                "example": "12345",
            }
            for variable in variables
        ]


ID: dict[str, Any] = {"type": "integer", "format": "int64", "minimum": 1, "maximum": MAX_ID}


class RowReferenceSchema(OpenApiSerializerFieldExtension):
    """In a body the documentation names rows by their integer ids; the uuids of clients are taken, too."""

    target_class = "core.api.fields.RowReference"
    match_subclasses = True

    def map_serializer_field(self, auto_schema: AutoSchema, direction: str) -> dict[str, Any]:
        return dict(ID)


class AnswerSchema(OpenApiSerializerExtension):
    """Publishes a ``core.api.answers.Answer``."""

    target_class = "core.api.answers.Answer"
    match_subclasses = True

    def get_name(self, auto_schema: AutoSchema, direction: Any) -> str:
        return str(self.target.__name__)

    def map_serializer(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        _, components = msgspec.json.schema_components([self.target], ref_template=REF)
        own = components.pop(self.get_name(auto_schema, direction))
        for name, schema in components.items():
            component = ResolvedComponent(name, ResolvedComponent.SCHEMA, _plain(schema), object=name)
            auto_schema.registry.register_on_missing(component)
        plain: dict[str, Any] = _plain(own)
        return plain


def _plain(schema: Any) -> Any:
    """msgspec's schema in the form that generators of clients understand best."""
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {word: _plain(part) for word, part in schema.items() if word != "title" or isinstance(part, dict)}
    if isinstance(plain.get("$ref"), str):
        return {word: part for word, part in plain.items() if word in {"$ref", "description"}}
    if plain.get("format") == "decimal":
        plain["type"] = "number"
        del plain["format"]
    if plain.get("type") == "integer":
        plain.setdefault("format", "int32")
    if "enum" in plain:
        plain.setdefault("type", "string")
    nullable = [part for part in plain.get("anyOf", []) if part != {"type": "null"}]
    if len(nullable) == 1 and isinstance(nullable[0].get("type"), str) and len(plain["anyOf"]) == 2:
        del plain["anyOf"]
        return nullable[0] | plain | {"type": [nullable[0]["type"], "null"]}
    return plain
