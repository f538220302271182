"""Which images a host has: keeps ``ImageCopy`` true, and removes the copies that nothing needs.

A copy goes in two rounds.  The first retires it: new disks are no longer made from it.  A worker that saw
it a moment before may still be making one, but then its operation is open, or its server is there, by the
time of the second round, which removes the copy only if nothing needs it then either.
"""

import logging

from core.locks import image_on_host, try_lock
from images.models import Image
from inventory.models import Hypervisor
from inventory.services import record_image_copies
from provisioning import hypervisors
from provisioning.drivers import base
from servers.selectors import images_needed_on

log = logging.getLogger(__name__)


def see_to_images(hypervisor: Hypervisor) -> None:
    """Record what the host has and remove what nothing needs.  A host that cannot be asked waits.

    An image that has no row is left: verify names it.
    """
    try:
        _see_to_images(hypervisor)
    except base.HypervisorError as error:
        log.warning("the images of host %s stay as they are for now: %s", hypervisor, error)


def _see_to_images(hypervisor: Hypervisor) -> None:
    driver = hypervisors.driver_for(hypervisor)
    copies = {copy.image.sha256: copy for copy in driver.images()}
    images = list(Image.objects.filter(sha256__in=copies))
    needed = images_needed_on(hypervisor)  # asked after the host: see above
    kept = [
        image
        for image in images
        if image.pk in needed or not _remove(hypervisor, driver, image, copies[image.sha256])
    ]
    record_image_copies(hypervisor, {image.pk for image in kept if copies[image.sha256].is_whole})


def _remove(hypervisor: Hypervisor, driver: base.Driver, image: Image, copy: base.ImageFile) -> bool:
    """One round for one image.  False if it has to stay."""
    with try_lock(image_on_host(image.sha256, hypervisor.pk)) as mine:
        if not mine:
            return False
        try:
            if copy.is_whole:
                driver.retire_image(copy.image)
            else:
                driver.remove_image(copy.image)
        except base.ImageInUse as refusal:
            log.info("host %s keeps an image that no server needs: %s", hypervisor, refusal)
            return False
    return True
