"""Takes images in: a file or URL becomes a verified qcow2 in VPS_IMAGE_DIR, named by its SHA-256."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import uuid4

from django.conf import settings

from images.models import Image
from provisioning.drivers.base import ImageInvalid
from provisioning.drivers.qcow2 import inspect

CHUNK = 1024 * 1024
TIMEOUT_S = 60
GIB = 1024**3
DAY_S = 86_400


Chunks = Iterator[bytes]
# Passes the chunks of a source on, of which the total number of bytes is known or not: to show how far it is.
Watch = Callable[[Chunks, int | None], Chunks]


def unwatched(chunks: Chunks, total: int | None) -> Chunks:
    return chunks


def take_in(*, source: str, sha256: str, has_agent: bool, watch: Watch = unwatched) -> Image:
    """Make a file one of our images.

    Raises ImageInvalid when the source cannot be read, is not what ``sha256``
    says, or is no qcow2 that stands alone.  May be repeated, also by several at
    once; a file that was damaged is fetched again.  Do not call it in a
    transaction: it waits for the source.
    """
    target = file_of(sha256)
    if not target.exists() or _sha256_of(target) != sha256:
        _fetch(source, sha256, target, watch)
    virtual_size = inspect(target).virtual_size_bytes
    image, _ = Image.objects.update_or_create(
        sha256=sha256,
        defaults={
            "size_bytes": target.stat().st_size,
            "virtual_size_bytes": virtual_size,
            "minimum_disk_gib": -(-virtual_size // GIB),
            "has_agent": has_agent,
        },
    )
    return image


def file_of(sha256: str) -> Path:
    """Where our own copy of an image is."""
    folder: Path = settings.VPS_IMAGE_DIR
    return folder / f"{sha256}.qcow2"


def _fetch(source: str, sha256: str, target: Path, watch: Watch) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{uuid4().hex}.part")  # nobody else writes into it
    try:
        with part.open("xb") as copy:
            _remove_abandoned(part)
            copy.writelines(_read(source, watch))
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


def _remove_abandoned(fresh: Path) -> None:
    """Remove the parts of processes that were killed a day ago or earlier, by the folder's own clock."""
    for part in fresh.parent.glob("*.part"):
        with suppress(FileNotFoundError):
            if fresh.stat().st_mtime - part.stat().st_mtime > DAY_S:
                part.unlink()


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


def _read(source: str, watch: Watch) -> Chunks:
    if source.startswith(("https://", "http://")):
        try:
            stream = urlopen(source, timeout=TIMEOUT_S)  # noqa: S310  (the two schemes are checked above)
        except HTTPError as error:
            error.close()  # it is the answer, too, and holds its socket
            raise
    else:
        stream = open(source, "rb")  # noqa: SIM115  (closed below, as the other)
    with closing(stream):
        yield from watch(iter(lambda: stream.read(CHUNK), b""), _size_of(source, stream))


def _size_of(source: str, stream: Any) -> int | None:
    if source.startswith(("https://", "http://")):
        told = stream.headers.get("Content-Length", "")
        return int(told) if told.isdecimal() else None
    return os.fstat(stream.fileno()).st_size
