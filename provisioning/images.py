"""Takes images in: a file or URL becomes a verified qcow2 in VPS_IMAGE_DIR, named by its SHA-256."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import uuid4

from django.conf import settings

from plans.models import OsVersion
from provisioning.hypervisors.base import ImageInvalid
from provisioning.hypervisors.qcow2 import inspect

CHUNK = 1024 * 1024
TIMEOUT_S = 60
GIB = 1024**3


def import_image(*, version: OsVersion, source: str, sha256: str, has_agent: bool) -> Path:
    """Make an image the one that new servers with this system boot.

    Raises ImageInvalid when the source cannot be read, is not what ``sha256``
    says, or is no qcow2 that stands alone.  Existing servers keep their disks.
    May be repeated, also by several at once; a file that was damaged is fetched again.
    """
    target = settings.VPS_IMAGE_DIR / f"{sha256}.qcow2"
    if not target.exists() or _sha256_of(target) != sha256:
        _fetch(source, sha256, target)
    version.image_sha256, version.has_agent = sha256, has_agent
    version.min_disk_gib = -(-inspect(target).virtual_size_bytes // GIB)
    version.save(update_fields=["image_sha256", "has_agent", "min_disk_gib"])
    return target


def _fetch(source: str, sha256: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{uuid4().hex}.part")  # nobody else writes into it
    try:
        with part.open("xb") as copy:
            copy.writelines(_read(source))
        _sync(part)
        if (found := _sha256_of(part)) != sha256:
            raise ImageInvalid(f"{source} has the SHA-256 {found}, not {sha256}")
        inspect(part)
        part.rename(target)
        _sync(target.parent)
    except (OSError, HTTPException, ValueError) as error:
        raise ImageInvalid(f"{source} cannot be read: {error}") from None
    finally:
        part.unlink(missing_ok=True)


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Have a file's content, or a folder's names, outlive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(source: str) -> Iterator[bytes]:
    if source.startswith(("https://", "http://")):
        try:
            stream = urlopen(source, timeout=TIMEOUT_S)  # noqa: S310  (the two schemes are checked above)
        except HTTPError as error:
            error.close()  # it is the answer, too, and holds its socket
            raise
    else:
        stream = open(source, "rb")  # noqa: SIM115  (closed below, as the other)
    with closing(stream):
        while chunk := stream.read(CHUNK):
            yield chunk
