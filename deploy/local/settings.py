"""The settings of a run, kept in VAR/private.env for ``manage.py`` and the servers.

``manage.py`` reads that file by itself, so it works beside a running product.
"""

import base64
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from deploy.local.folder import write_private

SECRETS = ("VPS_SECRET_KEY", "VPS_METRICS_TOKEN")


def load(var: Path, urls: Mapping[str, str]) -> dict[str, str]:
    """Write the settings of this run.  The environment's values win; the secrets stay."""
    file = var / "private.env"
    kept = read(file)
    ours = {
        **urls,
        **{name: kept.get(name) or secrets.token_urlsafe(48) for name in SECRETS},
        "VPS_BACKUP_KEY": kept.get("VPS_BACKUP_KEY") or base64.b64encode(secrets.token_bytes(32)).decode(),
        "VPS_DEBUG": "false",
        "VPS_ALLOWED_HOSTS": "127.0.0.1,localhost",
        "VPS_SIGNUP_CREDITS": "1000",
        "VPS_IMAGE_DIR": os.fspath(var / "images"),
        "VPS_BACKUP_STORE": os.fspath(var / "backups"),
    }
    values = {name: os.environ.get(name) or value for name, value in ours.items()}
    write(file, values)
    return values


def read(file: Path) -> dict[str, str]:
    """Read NAME=value lines; none if the file does not exist."""
    lines = file.read_text().splitlines() if file.exists() else []
    return dict(line.split("=", 1) for line in lines if "=" in line)


def write(file: Path, values: Mapping[str, str]) -> None:
    """Write NAME=value lines, readable by this user only."""
    write_private(file, "".join(f"{name}={value}\n" for name, value in values.items()))
