"""Stands before every driver, so that nobody can forget: a host that hangs is not waited for all the time."""

from collections.abc import Callable
from functools import partial
from typing import Any

from inventory import contact
from inventory.models import Hypervisor
from provisioning.hypervisors import base


class CircuitBreaker:
    """A driver whose every call first asks, and then tells, whether its host can be spoken with."""

    def __init__(self, hypervisor: Hypervisor, driver: base.Hypervisor) -> None:
        self._hypervisor = hypervisor
        self._driver = driver

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self._call, getattr(self._driver, name))

    def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        host = self._hypervisor
        if not contact.may_be_asked(host):
            raise base.HostUnreachable(f"{host} did not answer and is not asked again yet: {host.last_error}")
        try:
            answer = method(*args, **kwargs)
        except base.HostUnreachable as error:
            contact.record_silence(host, str(error))
            raise
        except base.HypervisorError:
            self._close()
            raise
        self._close()
        return answer

    def _close(self) -> None:
        if self._hypervisor.silences:
            contact.record_answer(self._hypervisor)
