"""Whatever comes in: 400, 401 or 404 with a sentence, never a 5xx, and nothing is changed by it."""

from typing import Any

import pytest

from inventory.models import Hypervisor, IpAddress, Placement, Port
from servers.models import Operation, Server
from tests.api.contract import SERVER, is_refusal, is_validation_error
from tests.conftest import Customer

LIST, ONE = "/servers/", f"/servers/{SERVER}/"
WRITES = {"POST": LIST, "PUT": ONE, "PATCH": ONE}
UPDATE = {"name": "fine", "hostname": "fine.example.com", "backups_enabled": True}

HOSTILE = {
    "a space": "a b",
    "a space first": " web",
    "a space last": "web ",
    "a line break inside": "web\nX-Admin: yes",
    "a line break last": "web\n",
    "a carriage return": "web\rX",
    "a line separator": "web\u2028x",
    "a NUL": "web\x00",
    "only a NUL": "\x00",
    "an escape": "\x1b[2J",
    "a lone surrogate": "\ud800",
    "an emoji": "💥",
    "an accent": "wéb",
    "wide letters": "ｗｅｂ",
    "a foreign digit": "web٣",
    "writing from right to left": "\u202eweb",
    "markup": "<script>alert(1)</script>",
    "an entity": "a&amp;b",
    "quotes": "a\"b'c",
    "a semicolon": "web;reboot",
    "a shell's substitution": "$(reboot)",
    "backticks": "`id`",
    "a path": "../../etc/passwd",
    "SQL": "'; DROP TABLE servers_server; --",
    "a template": "{{7*7}}",
    "a percent sign": "%s%n%00",
    "an underscore": "web_01",
    "a hyphen first": "-web",
    "a hyphen last": "web-",
    "only a hyphen": "-",
    "64 characters": "a" * 64,
    "a hundred thousand characters": "a" * 100_000,
    "twenty thousand emoji": "💥" * 20_000,
}
HOSTILE_NAMES = HOSTILE | {"nothing": "", "a dot": "web.example"}
HOSTILE_HOSTNAMES = HOSTILE | {
    "an empty label": "a..b",
    "a dot first": ".a",
    "a dot last": "a.",
    "a label with a hyphen last": "a-.b",
    "a label of 64": f"a.{'b' * 64}.c",
    "254 characters": ".".join(["a" * 49] * 5) + ".abcd",
    "a wildcard": "*.example.com",
    "a URL": "http://example.com",
    "a port": "example.com:80",
    "an IPv6 address": "2001:db8::1",
}

NO_STRING = [1, 0, 1.5, True, None, [], {}, ["web"], {"web": "web"}]
NO_INTEGER = ["1", "", "one", 1.0, 1.5, 1e3, True, False, [], [1], {}, {"id": 1}]
NO_ID: list[Any] = ["00000000-0000-0000-0000-000000000000", 0, -1, 2**63, 2**64, -(2**63), 10**30, -(10**30)]
NO_BOOLEAN = ["true", "yes", "", 1, 0, None, [], {}, [True]]
WRONG_TYPES: dict[str, list[Any]] = {
    "name": NO_STRING,
    "hostname": NO_STRING,
    "location": [*NO_ID, 1.5, True, None, [], {}, ["us-west"], {"code": "us-west"}],
    "plan_id": [*NO_INTEGER, *NO_ID, None],
    "os_id": [*NO_INTEGER, *NO_ID, None],
    "ssh_key_id": [*NO_INTEGER, *NO_ID],
    "backups_enabled": NO_BOOLEAN,
}

DEEP = 100_000
BODIES: dict[str, bytes] = {
    "no JSON": b"hello",
    "half an object": b'{"name": "web"',
    "two objects": b"{}{}",
    "a comma too many": b'{"name": "web",}',
    "single quotes": b"{'name': 'web'}",
    "a comment": b"{} // done",
    "a form": b"name=web&plan_id=1",
    "XML": b"<server><name>web</name></server>",
    "null": b"null",
    "a string": b'"web"',
    "a number": b"1",
    "true": b"true",
    "an array": b"[]",
    "an array of objects": b'[{"name": "web"}]',
    "no UTF-8": b'{"name": "\xff\xfe"}',
    "half a character": b'{"name": "\xe2\x82"}',
    "an overlong character": b'{"name": "\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"name": "\xed\xa0\x80"}',
    "UTF-16": '{"name": "web"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"name": "web"}',
    "a NUL byte": b"\x00",
    "NaN": b'{"plan_id": NaN}',
    "Infinity": b'{"plan_id": -Infinity}',
    "a number too large for a float": b'{"plan_id": 1e400}',
    "a number of 5,000 digits": b'{"plan_id": ' + b"9" * 5_000 + b"}",
    "a number of 100,000 digits": b'{"plan_id": ' + b"9" * 100_000 + b"}",
    "arrays in arrays": b"[" * DEEP + b"]" * DEEP,
    "objects in objects": b'{"name":' * DEEP + b"1" + b"}" * DEEP,
    "arrays without end": b"[" * DEEP,
    "a megabyte": b'{"name": "' + b"a" * 2**20 + b'"}',
    "a megabyte of spaces": b" " * 2**20 + b"{}",
    "a bad value twice": b'{"name": "web", "backups_enabled": true, "backups_enabled": "no"}',
}

TOKENS = {
    "nothing": "",
    "spaces": "   ",
    "no scheme": "vps_0123456789012345678901234567890123456789",
    "only the scheme": "Bearer",
    "only the scheme and a space": "Bearer ",
    "another scheme": "Basic YWxpY2U6c2VjcmV0",
    "a short token": "Bearer vps_",
    "another beginning": "Bearer abc_0123456789012345678901234567890123456789",
    "two tokens": "Bearer vps_01234567890123456789 vps_01234567890123456789",
    "a comma": "Bearer vps_01234567890123456789, Bearer x",
    "quotes": 'Bearer "vps_01234567890123456789"',
    "Latin-1": "Bearer vps_0123456789012345678é",
    "UTF-8 bytes": "Bearer vps_0123456789012345678💥".encode().decode("latin-1"),
    "a NUL": "Bearer vps_01234567890123456789\x00",
    "foreign digits": "Bearer vps_٠١٢٣٤٥٦٧٨٩٠١٢٣٤٥٦٧٨٩",
    "a hundred thousand characters": "Bearer vps_" + "a" * 100_000,
    "a hundred thousand spaces": "Bearer" + " " * 100_000,
    "SQL": "Bearer vps_' OR 1=1 -- 0123456789",
}

NO_SERVERS = {
    "zero": "0",
    "minus one": "-1",
    "plus one": f"+{SERVER}",
    "zeros without end": "0" * 5_000,
    "2^31": str(2**31),
    "2^63": str(2**63),
    "10^30": str(10**30),
    "5,000 digits": "9" * 5_000,
    "a float": f"{SERVER}.0",
    "an exponent": "1e3",
    "hexadecimal": "0x3039",
    "foreign digits": "١٢٣٤٥",
    "wide digits": "１２３４５",
    "a superscript": "²",
    "a word": "web-server-01",
    "nobody's uuid": "00000000-0000-0000-0000-000000000000",
    "36 characters that are no uuid": "g" * 36,
    "36 hyphens": "-" * 36,
    "a NUL": "%00",
    "a NUL behind": f"{SERVER}%00",
    "a line break behind": f"{SERVER}%0A",
    "a space": "%20",
    "a space before": f"%20{SERVER}",
    "half a percent code": "%",
    "no UTF-8": "%ff%fe",
    "a surrogate": "%ED%A0%80",
    "an encoded slash": "%2F",
    "parent folders": "..%2F..%2Fetc%2Fpasswd",
    "one dot": ".",
    "two dots": "..",
    "a semicolon": f"{SERVER};admin=1",
    "SQL": f"{SERVER}%20OR%201=1",
    "an asterisk": "*",
}

NO_PATHS = [
    "",
    "/",
    "//",
    "/..",
    "/servers//",
    "/servers",
    "/%00/",
    "/%ff/",
    "/servers/1/start/now/",
    "/admin/",
]

QUERIES = {
    "no UTF-8": "status=%ff",
    "a NUL": "location=%00",
    "a surrogate": "status=%ED%A0%80",
    "half a percent code": "page=%",
    "raw bytes": "status=\xff",
    "an emoji": "location=💥",
    "SQL": "location=' OR 1=1 --",
    "5,000 digits": "page=" + "9" * 5_000,
    "a hundred thousand characters": "status=" + "a" * 100_000,
    "more parameters than anybody has": "&".join(f"a{n}=1" for n in range(2_000)),
}


each_write = pytest.mark.parametrize("method", WRITES)


def is_told_in_sentences(answer: Any) -> bool:
    """JSON with one sentence and its code, or with sentences for each field."""
    body = answer.json()
    if "code" in body:
        return is_refusal(body, body["code"])
    return is_validation_error(body, *body)


def everything() -> list[Any]:
    """All that a request to a server could change."""
    models = (Server, Operation, Placement, Port, Hypervisor, IpAddress)
    return [list(model.objects.order_by("pk").values()) for model in models]


@pytest.fixture
def sound(shop: dict[str, Any], web_server: Server) -> dict[str, dict[str, Any]]:
    """For each method that writes, a body that is accepted."""
    return {"POST": shop | {"hostname": "fine.example.com"}, "PUT": UPDATE, "PATCH": UPDATE}


@each_write
def test_the_sound_bodies_are_sound(alice: Customer, sound: dict[str, Any], method: str) -> None:
    """Or the tests below would prove nothing."""
    assert alice.ask(method, WRITES[method], sound[method]).status_code in {200, 201}


@each_write
def test_hostile_names_are_refused(alice: Customer, sound: dict[str, Any], method: str) -> None:
    refused(alice, method, sound[method], "name", HOSTILE_NAMES)


@each_write
def test_hostile_hostnames_are_refused(alice: Customer, sound: dict[str, Any], method: str) -> None:
    refused(alice, method, sound[method], "hostname", HOSTILE_HOSTNAMES)


def test_hostile_locations_are_refused(alice: Customer, sound: dict[str, Any]) -> None:
    refused(alice, "POST", sound["POST"], "location", HOSTILE_NAMES)


@pytest.mark.parametrize("field", WRONG_TYPES)
def test_values_of_the_wrong_type_are_refused(alice: Customer, sound: dict[str, Any], field: str) -> None:
    refused(alice, "POST", sound["POST"], field, {repr(value): value for value in WRONG_TYPES[field]})


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("field", UPDATE)
def test_updates_with_values_of_the_wrong_type_are_refused(
    alice: Customer, sound: dict[str, Any], method: str, field: str
) -> None:
    refused(alice, method, sound[method], field, {repr(value): value for value in WRONG_TYPES[field]})


def refused(
    customer: Customer, method: str, sound: dict[str, Any], field: str, cases: dict[str, Any]
) -> None:
    """One bad field among good ones: it is named, if the body could be read, and nothing happens."""
    before = everything()
    for what, value in cases.items():
        answer = customer.ask(method, WRITES[method], sound | {field: value})
        assert answer.status_code == 400, what
        told = answer.json()
        assert is_validation_error(told, field) or is_refusal(told, "parse_error"), (what, told)
    assert everything() == before


@each_write
def test_bodies_that_are_no_sound_object_are_refused(
    alice: Customer, web_server: Server, method: str
) -> None:
    before = everything()

    for what, body in BODIES.items():
        answer = alice.ask(method, WRITES[method], body)
        assert answer.status_code == 400, what
        assert is_told_in_sentences(answer), (what, answer.content)
    assert everything() == before


@each_write
@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        "application/json; charset=nonsense",
        "nonsense",
        "",
    ],
)
def test_json_is_json_whatever_its_content_type(
    alice: Customer, sound: dict[str, Any], method: str, content_type: str
) -> None:
    good = alice.ask(method, WRITES[method], sound[method], CONTENT_TYPE=content_type)
    bad = alice.ask(method, WRITES[method], b"name=web", CONTENT_TYPE=content_type)

    assert good.status_code in {200, 201}
    assert bad.status_code == 400
    assert is_refusal(bad.json(), "parse_error")


@pytest.mark.parametrize("body", [b"null", b"hello", b"\xff", b"{}", b'{"force": true}'])
def test_a_delete_needs_no_body_and_ignores_one(alice: Customer, web_server: Server, body: bytes) -> None:
    assert alice.ask("DELETE", ONE, body).status_code == 204


@pytest.mark.parametrize("body", [b"", b" ", b"{}"])
def test_an_order_without_fields_needs_no_body(alice: Customer, web_server: Server, body: bytes) -> None:
    assert alice.ask("POST", f"{ONE}stop/", body).status_code == 200


@pytest.mark.parametrize("body", [b"null", b"hello", b"\xff", b'{"force": true}'])
def test_an_order_is_not_given_with_a_wish_that_is_ignored(
    alice: Customer, web_server: Server, body: bytes
) -> None:
    answer = alice.ask("POST", f"{ONE}stop/", body)

    assert answer.status_code == 400
    assert is_told_in_sentences(answer)
    assert not Operation.objects.exists()


def test_a_hostname_that_becomes_the_name_may_not_be_empty(alice: Customer, shop: dict[str, Any]) -> None:
    body = {"plan": shop["plan_id"], "os_version": shop["os_id"], "location": shop["location"]}

    answer = alice.post(LIST, body | {"hostname": ""})

    assert answer.status_code == 400
    assert is_validation_error(answer.json(), "hostname")


def test_what_is_wrong_with_an_item_of_a_list_names_the_item(alice: Customer, shop: dict[str, Any]) -> None:
    answer = alice.post(LIST, shop | {"ssh_keys": [2**40, "laptop"]})

    assert answer.status_code == 400
    assert answer.json() == {
        "ssh_keys": [
            "Item 0: There is no such SSH key in this account.",
            "Item 1: Should be an integer id or a uuid.",
        ]
    }


def test_of_a_field_given_twice_the_last_counts(alice: Customer, web_server: Server) -> None:
    answer = alice.ask("PATCH", ONE, b'{"name": "-", "name": "last"}')

    assert answer.json()["name"] == "last"


def test_strange_authorization_headers_are_nobodys(alice: Customer) -> None:
    for what, value in TOKENS.items():
        answer = alice.get(LIST, HTTP_AUTHORIZATION=value)
        assert answer.status_code == 401, what
        assert answer["WWW-Authenticate"] == "Bearer"
        assert is_refusal(answer.json(), "malformed_token" if value.strip() else "not_authenticated"), what


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer ", " Bearer"])
def test_a_token_is_taken_however_its_scheme_is_written(alice: Customer, scheme: str) -> None:
    answer = alice.get(LIST, HTTP_AUTHORIZATION=f"{scheme} {alice.token} ")

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"HTTP_HOST": "evil.example.com"},
        {"HTTP_HOST": "\xff"},
        {"HTTP_HOST": "a b"},
    ],
)
def test_a_host_that_is_not_ours_is_refused(alice: Customer, headers: dict[str, str]) -> None:
    answer = alice.get(LIST, **headers)

    assert answer.status_code == 400
    assert is_refusal(answer.json(), "bad_request")


@pytest.mark.parametrize(
    "headers",
    [
        {"HTTP_ACCEPT": "nonsense;;;q=x"},
        {"HTTP_ACCEPT": "\xff" * 1_000},
        {"HTTP_ACCEPT_LANGUAGE": "../../etc/passwd"},
        {"HTTP_COOKIE": "sessionid=\xff; csrftoken=\x00"},
        {"HTTP_IF_NONE_MATCH": "a" * 10_000},
        {"HTTP_RANGE": "bytes=5-1"},
        {"HTTP_X_HTTP_METHOD_OVERRIDE": "DELETE"},
        {"HTTP_X_FORWARDED_HOST": "evil.example.com"},
        {"HTTP_X_FORWARDED_FOR": "not an address"},
        {"CONTENT_LENGTH": "many"},
        {"CONTENT_LENGTH": ""},
    ],
)
def test_other_strange_headers_change_nothing(
    alice: Customer, web_server: Server, headers: dict[str, str]
) -> None:
    answer = alice.get(ONE, **headers)

    assert answer.status_code == 200
    assert answer.json() == alice.get(ONE).json()


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("PUT", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "stop/")]
)
def test_what_names_no_server_is_not_found(
    alice: Customer, web_server: Server, method: str, path: str
) -> None:
    before = everything()

    for what, name in NO_SERVERS.items():
        answer = alice.ask(method, f"/servers/{name}/{path}", UPDATE)
        assert answer.status_code == 404, what
        assert is_refusal(answer.json(), "not_found"), what
    assert everything() == before


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_no_path_is_not_found(alice: Customer, method: str) -> None:
    for path in NO_PATHS:
        answer = alice.ask(method, path, {})
        assert answer.status_code == 404, path
        assert is_refusal(answer.json(), "not_found")


def test_strange_queries_are_refused(alice: Customer) -> None:
    for what, query in QUERIES.items():
        answer = alice.get(LIST, QUERY_STRING=query.encode().decode("latin-1"))
        assert answer.status_code == 400, what
        assert is_told_in_sentences(answer), what
