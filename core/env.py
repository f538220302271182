"""Reads settings from the environment.  An invalid value stops the program at start.

Each function names the variable and says what it should be.  A variable NAME may
also be given as NAME_FILE, the path of a file with the value: for secrets that an
orchestrator mounts.
"""

import base64
import os
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured
from psycopg2 import ProgrammingError
from psycopg2.extensions import parse_dsn

TRUE, FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


def load_file(path: Path) -> None:
    """Take ``NAME=value`` lines as environment variables, where the environment has none already."""
    if path.is_file():
        environ.Env.read_env(str(path), overwrite=False)


def env_str(name: str, default: str | None = None) -> str:
    """The text of NAME or of the file that NAME_FILE names; required when there is no default."""
    file = os.environ.get(f"{name}_FILE")
    if file:
        try:
            return Path(file).read_text().strip()
        except (OSError, ValueError) as error:
            raise ImproperlyConfigured(f"{name}_FILE={file} cannot be read: {error}.") from None
    value = os.environ.get(name, "").strip() or default
    if value is None:
        raise ImproperlyConfigured(f"{name} is not set. See .env.example for what it should be.")
    return value


def env_secret(name: str) -> str:
    """A secret: required, at least 32 characters."""
    value = env_str(name)
    if len(value) < 32:
        raise ImproperlyConfigured(f"{name} should be at least 32 random characters.")
    return value


def env_secrets(name: str) -> list[str]:
    """Secrets of at least 32 characters, separated by commas; none if it is not set."""
    values = env_list(name, "")
    if any(len(value) < 32 for value in values):
        raise ImproperlyConfigured(
            f"{name} should be secrets of at least 32 characters, separated by commas."
        )
    return values


def env_optional_secret(name: str) -> str:
    """A secret of at least 32 characters; empty if it is not set."""
    return env_secret(name) if env_str(name, "") else ""


def env_optional_key(name: str) -> bytes:
    """A key of 32 bytes, given as base64; empty if it is not set."""
    try:
        key = base64.b64decode(env_str(name, ""), validate=True)
    except ValueError:
        key = b"?"
    if len(key) not in {0, 32}:
        raise ImproperlyConfigured(f"{name} should be 32 random bytes as base64: openssl rand -base64 32.")
    return key


def env_store(name: str, default: str) -> str:
    """Where objects are kept: a directory, by its whole path, or s3://BUCKET/PREFIX."""
    address = env_str(name, default)
    if not is_store_address(address):
        raise ImproperlyConfigured(f"{name}={address} should be /a/directory or s3://BUCKET/PREFIX.")
    return address


def is_store_address(address: str) -> bool:
    """Whether it is a directory, by its whole path, or s3://BUCKET/PREFIX."""
    is_bucket = address.startswith("s3://") and address.removeprefix("s3://").partition("/")[0]
    is_place = address.startswith("/") or bool(is_bucket)
    return is_place and not any(char.isspace() or char in "?#" for char in address)


def env_endpoint(name: str) -> str:
    """The URL of a server, without a path; empty if it is not set."""
    url = env_str(name, "")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  (ValueError when it is no port)
        if url and not (parts.scheme in {"http", "https"} and parts.hostname and parts.path in {"", "/"}):
            raise ValueError
    except ValueError:
        raise ImproperlyConfigured(f"{name}={url} should be a URL such as https://s3.example.com.") from None
    return url


def env_bool(name: str, default: bool) -> bool:
    value = env_str(name, str(default)).lower()
    if value not in TRUE | FALSE:
        raise ImproperlyConfigured(f"{name}={value} should be true or false.")
    return value in TRUE


def env_int(name: str, default: int, minimum: int = 0, maximum: int = 999_999_999) -> int:
    value = env_str(name, str(default))
    if not value.isdecimal() or len(value) > 9 or not minimum <= int(value) <= maximum:
        raise ImproperlyConfigured(f"{name}={value} should be a whole number from {minimum} to {maximum}.")
    return int(value)


def env_decimal(name: str, default: str) -> Decimal:
    value = env_str(name, default)
    try:
        number = Decimal(value)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or not 0 <= number < 10**9 or number != round(number, 4):
        raise ImproperlyConfigured(
            f"{name}={value} should be an amount such as 10 or 12.50, 0 or more, with at most 4 decimals."
        )
    return number


def env_list(name: str, default: str | None = None) -> list[str]:
    """Words separated by commas."""
    return [word.strip() for word in env_str(name, default).split(",") if word.strip()]


def env_hosts(name: str) -> list[str]:
    """Host names.  Required: without any, Django refuses every request."""
    hosts = env_list(name)
    if not hosts or any("/" in host for host in hosts):
        raise ImproperlyConfigured(f"{name} should be host names, separated by commas: api.example.com.")
    return hosts


def env_origins(name: str) -> list[str]:
    origins = env_list(name, "")
    if not all(origin.startswith(("https://", "http://")) for origin in origins):
        raise ImproperlyConfigured(f"{name} should be origins, separated by commas: https://api.example.com.")
    return origins


def env_networks(name: str) -> list[IPv4Network | IPv6Network]:
    try:
        return [ip_network(network) for network in env_list(name, "")]
    except ValueError as error:
        raise ImproperlyConfigured(
            f"{name} should be networks, separated by commas: 10.0.0.0/8. {error}."
        ) from None


def env_choice(name: str, choices: Mapping[str, Any] | list[str], default: str) -> str:
    value = env_str(name, default)
    if value not in choices:
        raise ImproperlyConfigured(f"{name}={value} should be one of {', '.join(choices)}.")
    return value


def env_database(name: str) -> dict[str, Any]:
    """Django's form of a libpq URL: postgres://user:password@host:5432/name, or a socket's folder as host."""
    url = env_str(name)
    try:
        if not url.startswith(("postgres://", "postgresql://")):
            raise ProgrammingError
        parts = parse_dsn(url)
        if not parts.get("dbname"):
            raise ProgrammingError
    except ProgrammingError:
        raise ImproperlyConfigured(f"{name} should be postgres://USER:PASSWORD@HOST:PORT/NAME.") from None
    named = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    config = {ours: parts.pop(theirs, "") for theirs, ours in named.items()}
    return {"ENGINE": "core.postgres", **config, "OPTIONS": parts}


def env_redis(name: str) -> str:
    """A Redis URL: redis://, rediss:// or unix://."""
    url = env_str(name)
    try:
        urlsplit(url).port  # noqa: B018  (ValueError when it is no port)
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError
    except ValueError:
        raise ImproperlyConfigured(
            f"{name} should be redis://HOST:PORT/0, rediss://... or unix:///PATH."
        ) from None
    return url
