"""The image cache of a host.

An image is a volume and, beside it, an empty marker volume.  libvirt can neither rename a volume nor
create one with its content in a single step, so the marker is what makes an image appear at once: it is
created after the copy was read back and found right, and taken away before anything else is touched.
"""

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .base import Image, ImageInvalid
from .libvirt_storage import CHUNK, StoragePool
from .qcow2 import read_header
from .storage_names import image_marker, image_volume

logger = logging.getLogger(__name__)


def has_image(pool: StoragePool, image: Image) -> bool:
    return pool.find(image_marker(image)) is not None and pool.find(image_volume(image)) is not None


def put_image(pool: StoragePool, image: Image, source: Path) -> None:
    """Copy, check and only then mark.  Raises ImageInvalid."""
    if has_image(pool, image):
        return
    pool.remove(image_marker(image))
    pool.remove(image_volume(image))
    try:
        with source.open("rb") as file:
            volume = _copy(pool, image, file)
    except OSError as error:
        raise ImageInvalid(f"The image cannot be read: {error}") from error
    # What arrived is asked of the host: a full disk, or a second writer, would go unnoticed otherwise.
    if _sha256(pool.download(volume)) != image.sha256:
        raise ImageInvalid(f"The host's copy of image {image.sha256} is not what was sent.")
    pool.create(image_marker(image), 0)
    logger.info("image %s is in the cache", image.sha256)


def _copy(pool: StoragePool, image: Image, file: BinaryIO) -> Any:
    read_header(file)
    file.seek(0)
    size = os.fstat(file.fileno()).st_size
    volume = pool.create(image_volume(image), size)
    digest = hashlib.sha256()
    pool.upload(volume, _read(file, digest), size)
    if digest.hexdigest() != image.sha256:
        pool.remove(image_volume(image))
        raise ImageInvalid(f"The checksum of the file is {digest.hexdigest()}, not {image.sha256}.")
    return volume


def _read(file: BinaryIO, digest: Any) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        digest.update(chunk)
        yield chunk


def _sha256(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
