"""One connection to one libvirtd, on which no call lasts for ever.

Three things keep that promise.  Opening has a limit of its own, since keepalive begins only afterwards.
Keepalive then notices a libvirtd that hangs, or a host that is gone.  And every call has a limit, for a
libvirtd that answers keepalive while the call itself waits for a hung QEMU or a hung disk.

A call that is given up cannot be stopped: its thread waits on until libvirt lets it go.  On an open
connection keepalive sees to that.  An opening hangs as long as libvirtd does, so it is not begun again and
again: the next caller waits for the opening that hangs.
"""

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

import libvirt

from core.backoff import Backoff

from . import libvirt_host
from .base import HostBusy, HostUnreachable, HypervisorError, WrongHost
from .libvirt_errors import is_about_the_host, is_lost, translate

logger = logging.getLogger(__name__)

OPEN_LIMIT_S = 10
# An opening that hangs is left behind after twice as long as the one before: a host that lost its power
# meanwhile will never answer it.
PATIENCE = Backoff(first_s=60, longest_s=3600)
KEEPALIVE_S = 3
KEEPALIVE_MISSES = 3  # so a silent host is given up after 3 * (3 + 1) seconds

Connection = Any  # libvirt.virConnect; libvirt-python has no types
Result = TypeVar("Result")


class LibvirtConnection:
    """Opened when it is first needed, opened anew when it broke; threads may share it.

    With a ``host_uuid`` it is only ever to that host: else calls raise WrongHost.
    """

    def __init__(self, uri: str, host_uuid: UUID | None = None) -> None:
        self.uri = uri
        self._host_uuid = host_uuid
        self._lock = threading.Lock()
        self._held: Connection | None = None
        self._opening: Future[Connection] | None = None
        self._patience_s = 0.0
        self._patient_until = 0.0

    def another(self) -> "LibvirtConnection":
        """A connection of its own to the same host."""
        return LibvirtConnection(self.uri, self._host_uuid)

    def call(self, limit_s: float, body: Callable[[Connection], Result]) -> Result:
        """Call the body with the open connection and return its value; libvirt's errors become ours.

        The body is run once more in two cases: libvirtd was restarted and had hung up, which shows only at
        the next call; or libvirt-python lost the error.
        """
        connection, is_new = self._connect()
        began = monotonic()
        try:
            return self._run(connection, limit_s, body)
        except libvirt.libvirtError as error:
            hung_up = not is_new and is_about_the_host(error) and monotonic() - began < KEEPALIVE_S
            if not hung_up and not is_lost(error):
                raise translate(error, self.uri) from error
            logger.info("%s: once more, after: %s", self.uri, error)
        try:
            return self._run(self._connect()[0], limit_s, body)
        except libvirt.libvirtError as error:
            raise translate(error, self.uri) from error

    def _run(self, connection: Connection, limit_s: float, body: Callable[[Connection], Result]) -> Result:
        try:
            return _within(limit_s, lambda: body(connection))
        except TimeoutError:
            raise self._given_up(connection, limit_s) from None

    def _connect(self) -> tuple[Connection, bool]:
        """The open connection, and whether it was opened just now."""
        _refuse_a_fork()
        give_up_at = monotonic() + OPEN_LIMIT_S
        if not self._lock.acquire(timeout=OPEN_LIMIT_S):
            raise HostUnreachable(f"{self.uri}: another thread waits for its answer already")
        try:
            for known in (self._held, self._opened_late()):
                if known is not None and known.isAlive():
                    self._held = known
                    return known, False
            self._held = None
            self._held = self._open(give_up_at - monotonic())
            return self._held, True
        finally:
            self._lock.release()

    def _open(self, limit_s: float) -> Connection:
        _start_event_loop()
        if self._opening is None:
            self._opening = self._begin_opening(PATIENCE.first_s)
        elif monotonic() > self._patient_until:
            self._opening = self._begin_opening(PATIENCE.after(self._patience_s))
        try:
            connection = self._opening.result(timeout=limit_s)
        except TimeoutError:
            raise HostUnreachable(f"{self.uri}: no answer to a new connection") from None
        except WrongHost:
            self._opening = None
            raise
        except libvirt.libvirtError as error:
            self._opening = None
            raise HostUnreachable(f"{self.uri}: {error}") from error
        self._opening = None
        return connection

    def _begin_opening(self, patience_s: float) -> Future[Connection]:
        self._patience_s, self._patient_until = patience_s, monotonic() + patience_s
        return _begin(partial(_open, self.uri, self._host_uuid))

    def _opened_late(self) -> Connection | None:
        """The connection of an opening that ended after its caller had given up; None if it failed."""
        if self._opening is None or not self._opening.done():
            return None
        opening, self._opening = self._opening, None
        return None if opening.exception() else opening.result()

    def _given_up(self, connection: Connection, limit_s: float) -> HypervisorError:
        """Whether it is the host that does not answer, or only what the call was about."""
        with self._lock:
            # Not closed: other threads may be in the middle of a call.  The last of them closes it.
            if self._held is connection:
                self._held = None
        try:
            _within(OPEN_LIMIT_S, connection.getLibVersion)
        except (TimeoutError, libvirt.libvirtError):
            return HostUnreachable(f"{self.uri}: no answer within {limit_s} s")
        return HostBusy(f"{self.uri}: not done within {limit_s} s")


def _open(uri: str, host_uuid: UUID | None) -> Connection:
    connection = libvirt.open(uri)
    if host_uuid is not None and (found := libvirt_host.host_uuid(connection)) != host_uuid:
        connection.close()
        raise WrongHost(f"{uri}: the host {found} answers, and {host_uuid} is meant")
    try:
        connection.setKeepAlive(KEEPALIVE_S, KEEPALIVE_MISSES)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:  # no wire, no keepalive
            raise
    return connection


def _within(limit_s: float, call: Callable[[], Result]) -> Result:
    """The call's value.  Raises TimeoutError when it takes longer; the call then goes on by itself."""
    answer = _begin(call)
    try:
        return answer.result(timeout=limit_s)
    finally:
        del answer  # see _finish


def _begin(call: Callable[[], Result]) -> Future[Result]:
    answer: Future[Result] = Future()
    # A thread for each call, as one that hangs is lost; not a pool, which waits for its threads at exit.
    run = copy_context().run
    threading.Thread(target=run, args=[_finish, answer, call], name="libvirt-call", daemon=True).start()
    return answer


def _finish(answer: Future[Result], call: Callable[[], Result]) -> None:
    try:
        answer.set_result(call())
    except BaseException as error:
        answer.set_exception(error)
    finally:
        # The answer holds the error, whose traceback holds this frame.  Left to the garbage collector, such
        # a circle ends in any thread at any moment, and with it the libvirt objects in it: see is_lost.
        del answer


_event_loop_lock = threading.Lock()
_event_loop_pid: int | None = None


def _start_event_loop() -> None:
    """Run libvirt's event loop in this process: without it libvirt refuses keepalive."""
    global _event_loop_pid
    with _event_loop_lock:
        if _event_loop_pid == os.getpid():
            return
        libvirt.registerErrorHandler(lambda *_: None, None)  # it would write every error to stderr
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True).start()
        _event_loop_pid = os.getpid()


def _run_event_loop() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def _refuse_a_fork() -> None:
    """Raises RuntimeError in a child of a process that used libvirt.

    libvirt does not outlive a fork: an event loop in the child would read from the parent's sockets what is
    meant for the parent, and a lock of libvirt that was held in the moment of the fork is never let go.
    """
    if _event_loop_pid not in (None, os.getpid()):
        raise RuntimeError("libvirt was used before this process was forked: connect in the children only")
