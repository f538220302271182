"""libvirt's errors become ours, here and nowhere else."""

import errno
import os
import re

import libvirt

from .base import HostBusy, HostMisconfigured, HostUnreachable, HypervisorError, MachineNotFound, PoolFull

_BUSY = {
    libvirt.VIR_ERR_OPERATION_TIMEOUT,  # another job holds the domain's lock (after half a minute of waiting)
    libvirt.VIR_ERR_RESOURCE_BUSY,
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
}
_MISCONFIGURED = {
    libvirt.VIR_ERR_NO_STORAGE_POOL,
    libvirt.VIR_ERR_NO_NETWORK,
    libvirt.VIR_ERR_NO_NWFILTER,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    libvirt.VIR_ERR_NO_SUPPORT,
}
_WIRE = {libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE, libvirt.VIR_FROM_SSH, libvirt.VIR_FROM_LIBSSH}


def translate(error: libvirt.libvirtError, uri: str) -> HypervisorError:
    """Our error for libvirt's, with the host and libvirt's own words in it for staff."""
    code, text = error.get_error_code(), f"{uri}: {error}"
    if is_about_the_host(error):
        return HostUnreachable(text)
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return MachineNotFound(text)
    if is_about_room(error):
        return PoolFull(text)
    if is_busy(error):
        return HostBusy(text)
    if code in _MISCONFIGURED or is_not_started(error):
        return HostMisconfigured(text)
    return HypervisorError(text)


def is_about_the_host(error: libvirt.libvirtError) -> bool:
    """Whether the host could not be spoken with; what it thinks of our question is then unknown."""
    return error.get_error_domain() in _WIRE


def is_about_room(error: libvirt.libvirtError) -> bool:
    """Whether a file could not be written for lack of room.  libvirt and qemu-img have only words for it."""
    return os.strerror(errno.ENOSPC) in str(error)


def is_fatal(error: Exception) -> bool:
    """Whether the error concerns the whole call and not only the one thing that was being read.

    A lost error too: the call is made again.
    """
    return isinstance(error, libvirt.libvirtError) and (is_about_the_host(error) or is_lost(error))


def is_lost(error: libvirt.libvirtError) -> bool:
    """Whether libvirt-python has lost what libvirt said: it did not do it, and why is unknown.

    Freeing any libvirt object clears the thread's last error; the garbage collector may do so
    between a call's failure and the moment when Python asks for the error.
    """
    return error.get_error_code() is None


def is_busy(error: libvirt.libvirtError) -> bool:
    """Whether the same call may succeed a little later."""
    return error.get_error_code() in _BUSY or is_pool_busy(error)


def is_pool_busy(error: libvirt.libvirtError) -> bool:
    """Whether a volume is in use, or the whole pool: libvirt has no code for either."""
    if error.get_error_domain() != libvirt.VIR_FROM_STORAGE or is_not_started(error):
        return False
    refused = error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID
    return refused or "asynchronous jobs running" in str(error)


def is_not_started(error: libvirt.libvirtError) -> bool:
    """Whether a pool or network that is needed is there, but off; with the code of much else."""
    refused = error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID
    return refused and re.search(r"(storage pool|network) .*is not active", str(error)) is not None


def is_about_a_filter_left_over(error: libvirt.libvirtError) -> bool:
    """Whether a machine's network card got the name of one that libvirt still has a filter for."""
    refused: bool = error.get_error_code() == libvirt.VIR_ERR_OPERATION_FAILED
    return refused and error.get_error_domain() == libvirt.VIR_FROM_NWFILTER


def is_about_traffic_control(error: libvirt.libvirtError) -> bool:
    """Whether the host's kernel lacks what libvirt limits a network card's speed with."""
    return re.search(r"Child process \(\S*tc (qdisc|class|filter) ", str(error)) is not None
