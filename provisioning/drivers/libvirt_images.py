"""The image cache of a host.

An image is a volume and, beside it, an empty marker volume.  libvirt can neither rename a volume nor
create one with its content in a single step, so the marker is what makes an image appear at once: it is
created after the copy was read back and found right, and taken away before anything else is touched.
"""

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import libvirt

from .base import Image, ImageFile, ImageInUse, ImageInvalid
from .libvirt_storage import CHUNK, StoragePool
from .qcow2 import inspect
from .storage_names import image_marker, image_named, image_volume

logger = logging.getLogger(__name__)


def has_image(pool: StoragePool, image: Image) -> bool:
    return pool.find(image_marker(image)) is not None and pool.find(image_volume(image)) is not None


def put_image(pool: StoragePool, image: Image, source: Path) -> None:
    """Copy, check and only then mark.  Raises ImageInvalid and PoolFull; then nothing is left of the copy."""
    if has_image(pool, image):
        return
    pool.remove(image_marker(image))
    if _is_right(pool, image):
        pool.create(image_marker(image), 0)
        logger.info("image %s is in the cache again", image.sha256)
        return
    _refuse_if_in_use(pool, image)
    pool.remove(image_volume(image))
    try:
        inspect(source)
        with source.open("rb") as file:
            pool.require_room(os.fstat(file.fileno()).st_size)
            volume = _copy(pool, image, file)
    except OSError as error:
        raise ImageInvalid(f"The image cannot be read: {error}") from error
    except libvirt.libvirtError:
        with suppress(libvirt.libvirtError):
            pool.remove(image_volume(image))  # half of it would keep the pool full
        raise
    # Read back from the host: a full disk, or a second writer, would go unnoticed otherwise.
    if _sha256(pool.download(volume)) != image.sha256:
        pool.remove(image_volume(image))
        pool.require_room(source.stat().st_size)
        raise ImageInvalid(f"The host's copy of image {image.sha256} is not what was sent.")
    pool.refresh()  # libvirt takes it for raw until then, and its size for that of the file
    pool.create(image_marker(image), 0)
    logger.info("image %s is in the cache", image.sha256)


def images(pool: StoragePool) -> list[ImageFile]:
    names = {volume.name for volume in pool.volumes()}
    found = [image for name in sorted(names) if (image := image_named(name))]
    return [ImageFile(image=image, is_whole=image_marker(image) in names) for image in found]


def retire_image(pool: StoragePool, image: Image) -> None:
    _refuse_if_in_use(pool, image)
    pool.remove(image_marker(image))
    logger.info("image %s is retired", image.sha256)


def remove_image(pool: StoragePool, image: Image) -> None:
    if pool.find(image_marker(image)) is not None:
        raise ImageInUse(f"Image {image.sha256} is not retired.")
    _refuse_if_in_use(pool, image)
    pool.remove(image_volume(image))


def _refuse_if_in_use(pool: StoragePool, image: Image) -> None:
    pool.refresh()
    if clones := pool.backed_by(image_volume(image)):
        raise ImageInUse(f"Image {image.sha256} shows through {', '.join(clones)}.")


def _is_right(pool: StoragePool, image: Image) -> bool:
    volume = pool.find(image_volume(image))
    return volume is not None and _sha256(pool.download(volume)) == image.sha256


def _copy(pool: StoragePool, image: Image, file: BinaryIO) -> Any:
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
