"""Our network filter on a host, and libvirt's bindings of it to network cards.

A binding says which filter stands in front of which card.  libvirt makes it when a machine starts and
removes it when that ends; a libvirtd that is killed in between remembers it for ever.  Such a
stale binding does harm: libvirtd numbers the cards anew after its restart, and refuses to start a machine
whose card gets the number of a stale binding.
"""

import logging
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import libvirt

from . import network_filter

logger = logging.getLogger(__name__)


def define(connection: Any) -> None:
    """Make our filter known to the host, or bring it up to date."""
    try:
        connection.nwfilterDefineXML(network_filter.filter_xml(_uuid_there(connection)))
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        # Nothing passes unfiltered for it: libvirt starts no machine whose filter it cannot set up.
        logger.warning("this libvirt has no network filters: %s", error)


def _uuid_there(connection: Any) -> str:
    """The UUID under which the host knows our filter: libvirt replaces a filter only by both names."""
    try:
        uuid: str = connection.nwfilterLookupByName(network_filter.NAME).UUIDString()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_NWFILTER:
            raise
        return str(network_filter.UUID)
    return uuid


def remove_left_over(connection: Any) -> None:
    """Remove the bindings of our filter to cards that no machine has."""
    bindings = connection.listAllNWFilterBindings()  # first: a machine that starts meanwhile has its card
    cards = set(_cards(connection))
    for binding in bindings:
        if binding.filterName() == network_filter.NAME and binding.portDev() not in cards:
            _remove(binding)


def _cards(connection: Any) -> Iterator[str | None]:
    """The host's names for the network cards of all machines that are on."""
    for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        try:
            definition = ET.fromstring(domain.XMLDesc())  # noqa: S314 (libvirt's own words)
        except libvirt.libvirtError as error:
            # A machine that cannot be read may have any card: then no binding may be removed.
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            continue
        yield from (target.get("dev") for target in definition.iterfind("devices/interface/target"))


def _remove(binding: Any) -> None:
    try:
        binding.delete()
        logger.warning("removed what was left of the network filter on %s", binding.portDev())
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_NWFILTER_BINDING:
            raise  # else its machine has just ended
