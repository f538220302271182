"""Machines as libvirt has them: found by UUID, brought on, off, and away."""

import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

import libvirt

from servers.states import PowerState

from . import libvirt_filters
from .base import HostBusy
from .domain_xml import DELIVERED_NAMESPACE, DELIVERED_PREFIX, checked, without_speed_limits
from .libvirt_errors import is_about_a_filter_left_over
from .libvirt_observation import power_of

logger = logging.getLogger(__name__)

_WITH_SAVED = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
_WITH_ALL = _WITH_SAVED | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM


def get(connection: Any, machine: UUID) -> Any:
    return connection.lookupByUUIDString(str(machine))


def find(connection: Any, machine: UUID) -> Any | None:
    try:
        return get(connection, machine)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return None


def start(connection: Any, domain: Any) -> None:
    """Let it run, whether it was off or paused.

    Raises HostBusy when it is neither: somebody else starts or ends it, or a libvirtd that was killed
    while it started it is about to clear it away.
    """
    if _reach(domain, True, lambda: _create(connection, domain)):
        logger.info("started %s", domain.name())
        return
    if _power(domain) == PowerState.PAUSED:
        _resume(domain)
    if _power(domain) != PowerState.RUNNING:
        raise HostBusy(f"{domain.name()} is neither off nor running")


def resume(domain: Any) -> None:
    if power_of(*domain.state()).waits_for_room:
        _resume(domain)


def shut_down(domain: Any) -> None:
    _reach(domain, False, lambda: _press_power_button(domain))


def power_off(domain: Any) -> None:
    if _reach(domain, False, domain.destroy):
        logger.info("powered off %s", domain.name())


def remove(domain: Any) -> None:
    """Cut its power and forget it.  Somebody else may do the same just now."""
    try:
        power_off(domain)
        _undefine(domain)
        logger.info("undefined %s", domain.name())
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise


def rename(domain: Any, name: str) -> None:
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, checked(name), None, None, _now_and_later(domain))


def mark_delivered(domain: Any) -> None:
    domain.setMetadata(
        libvirt.VIR_DOMAIN_METADATA_ELEMENT,
        "<delivered/>",
        DELIVERED_PREFIX,
        DELIVERED_NAMESPACE,
        _now_and_later(domain),
    )


def is_delivered(domain: Any) -> bool:
    try:
        domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, DELIVERED_NAMESPACE)
    except libvirt.libvirtError as error:
        if error.get_error_code() in {libvirt.VIR_ERR_NO_DOMAIN_METADATA, libvirt.VIR_ERR_NO_DOMAIN}:
            return False
        raise
    return True


def _now_and_later(domain: Any) -> int:
    """libvirt's flags to change the stored definition, and the live machine if it runs."""
    live = libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0
    return int(libvirt.VIR_DOMAIN_AFFECT_CONFIG | live)


def remove_speed_limits(connection: Any, domain: Any) -> None:
    connection.defineXML(without_speed_limits(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))


def _reach(domain: Any, active: bool, verb: Callable[[], Any]) -> bool:
    """Bring the machine on or off, and say whether it took us to do so.

    libvirt has no code for "it is so already": its drivers answer it with different errors.
    """
    if bool(domain.isActive()) == active:
        return False
    try:
        verb()
    except libvirt.libvirtError:
        if bool(domain.isActive()) != active:
            raise
        return False
    return True


def _create(connection: Any, domain: Any) -> None:
    try:
        domain.create()
    except libvirt.libvirtError as error:
        if not is_about_a_filter_left_over(error):
            raise
        libvirt_filters.remove_left_over(connection)
        domain.create()


def _resume(domain: Any) -> None:
    try:
        domain.resume()
        logger.info("resumed %s", domain.name())
    except libvirt.libvirtError:
        if _power(domain) == PowerState.PAUSED:
            raise


def _power(domain: Any) -> PowerState:
    return power_of(*domain.state()).state


def _press_power_button(domain: Any) -> None:
    try:
        # Without the flag libvirt would ask the guest agent first, and wait for it.
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_INVALID_ARG:
            raise
        domain.shutdown()  # a kind of machine that has no such button


def _undefine(domain: Any) -> None:
    try:
        domain.undefineFlags(_WITH_ALL)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_INVALID_ARG:
            raise
        domain.undefineFlags(_WITH_SAVED)  # libvirt's drivers refuse flags for what their machines never have
